from . import layers, quantizers
from .registry import FAMILIES

__all__ = ["FAMILIES", "layers", "quantizers"]
