"""Importing a module of this package registers its families."""

from . import keras, layers, optimizers, quantizers, signatures, summaries, training, trajectories, zoo
from .registry import FAMILIES

__all__ = [
    "FAMILIES",
    "keras",
    "layers",
    "optimizers",
    "quantizers",
    "signatures",
    "summaries",
    "training",
    "trajectories",
    "zoo",
]
