"""Models: graphs of layers, chains of layers, and classes."""

from .functional import Functional, Model, clone_model, model_from_config, model_from_json
from .saving import load_model, save_model
from .sequential import Sequential

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_config",
    "model_from_json",
    "save_model",
]
