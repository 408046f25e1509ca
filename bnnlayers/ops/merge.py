"""Elementwise combinations of two arrays that broadcast against each other.

They are NumPy's, but recorded as one step each, can be run again for free, and give the gradient of
a tie as TensorFlow does.
"""

from __future__ import annotations

import numpy as np

from ..tape import add, operation, read
from .norm import Normalized

__all__ = ["add", "maximum", "minimum", "multiply", "total"]


def total(x, y, readers=0):
    """``x + y``, in one pass with a norm that waits for it; it waits in turn if it has readers that let it."""
    for normalized, addend in ((x, y), (y, x)):
        if isinstance(normalized, Normalized):
            found = normalized.plus(addend, readers)
            if found is not None:
                return found if readers else read(found)
    return add(x, y)


@operation(recompute=True)
def multiply(x, y):
    """``x * y``."""
    return x * y, (x, y)


@multiply.backward
def multiply(residual, dy, needed):
    x, y = residual
    return dy * y if needed[0] else None, dy * x if needed[1] else None


@operation(recompute=True)
def maximum(x, y, *, traced):
    """The larger of `x` and `y`; where they are equal, the gradient is that of `x`."""
    return np.maximum(x, y), x >= y if any(traced) else None


@maximum.backward
def maximum(first, dy, needed):
    return dy * first if needed[0] else None, dy * ~first if needed[1] else None


@operation(recompute=True)
def minimum(x, y, *, traced):
    """The smaller of `x` and `y`; where they are equal, the gradient is that of `x`."""
    return np.minimum(x, y), x <= y if any(traced) else None


@minimum.backward
def minimum(first, dy, needed):
    return dy * first if needed[0] else None, dy * ~first if needed[1] else None
