"""Functions that are particular to quantised networks."""

from __future__ import annotations

from typing import Any

from .ops import quantize

__all__ = ["heaviside", "sign"]


def sign(x: Any) -> Any:
    """Sign that is never zero: -1 where ``x < 0``, +1 elsewhere. Its gradient is zero.

    Parameters
    ----------
    x : array_like of floats

    Returns
    -------
    Tensor
        Of the dtype of `x`; NaN stays NaN.

    Raises
    ------
    TypeError
        If `x` does not hold floats.
    """
    return quantize.step(x, low=-1.0)


def heaviside(x: Any) -> Any:
    """Step function: 1 where ``x > 0``, 0 elsewhere. Its gradient is zero.

    Parameters
    ----------
    x : array_like of floats

    Returns
    -------
    Tensor
        Of the dtype of `x`; NaN stays NaN.
    """
    return quantize.step(x, low=0.0)
