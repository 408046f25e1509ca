"""Values that are computed when they are read, or in the pass of what reads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tape import Readable, read


class Later(Readable):
    """A float32 array that is yet to be computed. It reads as floats; a reader that knows its class may do better.

    A subclass gives `shape` and `_compute`, which is called once at most.
    """

    shape: Any = None
    dtype: Any = np.dtype(np.float32)
    _value: Any = None

    def _compute(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define _compute()")

    def _read_(self) -> Any:
        if self._value is None:
            self._value = self._compute()
        return self._value

    def integers(self) -> Any:
        """The value, in int16 if it is known to fit."""
        return self._read_()


def integers(x: Any) -> Any:
    """`read(x)` for a reader that takes int16 as well as floats."""
    return x.integers() if isinstance(x, Later) else read(x)
