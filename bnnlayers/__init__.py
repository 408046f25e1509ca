"""Binarized neural networks on ordinary CPUs: larq's API on NumPy, in real 1-bit arithmetic.

``import bnnlayers as lq`` stands for larq, and ``from bnnlayers import keras`` for the part of tf.keras that larq's
scripts use. The names of TensorFlow that they reach for (``GradientTape``, ``Variable``, ``reduce_mean``, ...) are here
too.
"""

from . import (
    activations,
    callbacks,
    constraints,
    context,
    functions,
    keras,
    layers,
    math,
    metrics,
    models,
    ops,
    optimizers,
    profiler,
    quantizers,
    utils,
    zoo,
)
from .bits import BitArray
from .functions import *  # noqa: F403
from .ops import get_num_threads, set_num_threads
from .tape import (
    GradientTape,
    Tensor,
    Variable,
    constant,
    convert_to_tensor,
    custom_gradient,
    stop_gradient,
)

__version__ = "0.1.0"

__all__ = [
    "BitArray",
    "GradientTape",
    "Tensor",
    "Variable",
    "activations",
    "callbacks",
    "constant",
    "constraints",
    "context",
    "convert_to_tensor",
    "custom_gradient",
    "get_num_threads",
    "keras",
    "layers",
    "math",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "profiler",
    "quantizers",
    "set_num_threads",
    "stop_gradient",
    "utils",
    "zoo",
    *functions.__all__,
]
