"""Activations, for an `Activation` layer or the `activation` argument of any layer, by name or as functions."""

from __future__ import annotations

from typing import Any

from . import utils
from .ops import quantize

__all__ = ["hard_tanh", "leaky_tanh"]


@utils.register_keras_custom_object
def hard_tanh(x: Any) -> Any:
    """`x` clipped to [-1, 1].

    Parameters
    ----------
    x : array_like of floats

    Returns
    -------
    Tensor
        Backward keeps one bit per value.
    """
    return quantize.hard_tanh(x)


@utils.register_keras_custom_object
def leaky_tanh(x: Any, alpha: float = 0.2) -> Any:
    """`x` inside of [-1, 1], with slope `alpha` beyond.

    Parameters
    ----------
    x : array_like of floats
    alpha : float

    Returns
    -------
    Tensor
    """
    return quantize.leaky_tanh(x, alpha=alpha)
