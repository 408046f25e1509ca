"""Training metrics of quantized networks.

Keras gives a metric what a network predicts. What happens to its weights is seen by their quantizers, so these metrics
belong to quantizers: ``SteSign(metrics=["flip_ratio"])``, or every kernel quantizer made inside
`bnnlayers.context.metrics_scope`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import utils
from .bits import BitArray, pack_bits
from .keras import metrics
from .tape import Tensor, constant, plain, read

__all__ = ["FlipRatio"]


@utils.register_alias("flip_ratio")
@utils.register_keras_custom_object
class FlipRatio(metrics.Metric):
    """The mean share of values that changed from one update to the next.

    The first update has nothing to compare with and counts nothing. `reset_state` keeps the values of the last update.

    Parameters
    ----------
    values_dtype : dtype
        Values are cast to it before they are compared: 0.7 is 0 with the default.
    name : str
    dtype : str, optional
        Of the result.

    Notes
    -----
    Values that are all +1 and -1, or 0 and 1, are kept and compared as one bit each, and -1, 0 and +1 as two. A
    `BitArray` is never unpacked for it, but where a scale takes its values out of these.

    Examples
    --------
    >>> m = lq.metrics.FlipRatio()
    >>> m.update_state([1, 1])
    >>> m.update_state([2, 2])
    >>> m.update_state([1, 2])
    >>> float(m.result())
    0.75
    """

    def __init__(self, values_dtype: Any = "int8", name: str = "flip_ratio", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.values_dtype = np.dtype(values_dtype)
        self.total = self.add_weight("total")
        self.count = self.add_weight("count")
        self._shape: tuple[int, ...] | None = None
        self._kept: BitArray | np.ndarray | None = None

    @property
    def built(self) -> bool:
        """Whether the shape of the values is known."""
        return self._shape is not None

    def build(self, input_shape: Any) -> None:
        """Fix the shape of the values; otherwise the first update does, as it does where a dimension is None."""
        if None not in input_shape:
            self._shape = tuple(input_shape)

    @property
    def _previous_values(self) -> Tensor:
        """The values of the last update; zeros before the first."""
        if self._kept is None:
            return constant(np.zeros(self._shape or (), self.values_dtype))
        values = self._kept.numpy() if isinstance(self._kept, BitArray) else self._kept
        return constant(values.astype(self.values_dtype))

    @property
    def nbytes(self) -> int:
        """Bytes that the values of the last update take."""
        return 0 if self._kept is None else self._kept.nbytes

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Compare values with those of the last update.

        Parameters
        ----------
        values : array_like or BitArray
        sample_weight : optional
            Accepted and without effect.

        Raises
        ------
        ValueError
            If the shape is not that of the last update. Nothing has changed then.
        """
        if not isinstance(values, BitArray):
            values = read(values)
            values = plain(values) if hasattr(values, "dtype") else np.asarray(values)
        if self._shape is None:
            self._shape = tuple(values.shape)
        if values.shape != self._shape:
            raise ValueError(
                f"FlipRatio.update_state: argument 'values': expected shape {self._shape}, received {values.shape}"
            )
        kept = self._compact(values)
        if self.count.numpy() > 0 and values.size:
            self.total.assign_add(self.total.dtype.type(_flips(self._kept, kept) / values.size))
        self.count.assign_add(1)
        self._kept = kept

    def _compact(self, values: Any) -> BitArray | np.ndarray:
        """The values cast to `values_dtype`, as bits if they fit."""
        if isinstance(values, BitArray):
            whole = values.kind == "ternary" or values.divisor == 2**values.planes - 1
            if values.scale is None and whole and self.values_dtype.kind == "i":
                return _rounded(values)
            values = values.numpy()
        with np.errstate(invalid="ignore"):
            values = values.astype(self.values_dtype)
        # Packed along the axis of the values before, so that words can be compared.
        return _packed(values, self._kept.axis if isinstance(self._kept, BitArray) else -1)

    def result(self) -> Tensor:
        """Flips per value and update since the last reset."""
        total, count = self.total.numpy(), self.count.numpy()
        return constant(total / (count - 1) if count > 1 else np.zeros_like(total))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "values_dtype": self.values_dtype.name}


def _detached(bits: BitArray, words: np.ndarray, kind: str | None = None) -> BitArray:
    """Words as a `BitArray` like another, which holds neither its node nor what was prepared for kernels."""
    return BitArray(words, bits.shape, bits.axis, kind or bits.kind, bits.divisor if kind is None else 1)


def _rounded(bits: BitArray) -> BitArray:
    """Values in [-1, 1] cut down to integers: what lies between is 0."""
    if bits.planes == 1 or bits.kind == "ternary":
        return _detached(bits, bits.words)
    # All planes set is the greatest code of {0, 1} and the least of signs, none set is the greatest of signs.
    every = np.bitwise_and.reduce(bits.words)
    if bits.kind == "unit":
        return _detached(bits, every[np.newaxis], "unit")
    mixed = np.bitwise_or.reduce(bits.words) ^ every
    return _detached(bits, np.stack([every, bits._inverse(mixed)]), "ternary")


def _packed(values: np.ndarray, axis: int) -> BitArray | np.ndarray:
    """Values as bits if they are signs, {0, 1} or ternary, else as they are."""
    zero, one, minus = values == 0, values == 1, values == -1
    if not (values.ndim and values.dtype.kind in "if" and np.all(zero | one | minus)):
        return np.array(values)
    if not zero.any():
        return pack_bits(values, axis)
    positive = pack_bits(-values, axis)
    if not minus.any():
        return _detached(positive, positive.words, "unit")
    negative = pack_bits(values, axis)
    return _detached(negative, np.concatenate([negative.words, negative.words | positive.words]), "ternary")


def _flips(before: Any, after: Any) -> int:
    """How many values differ."""
    bits = [b for b in (before, after) if isinstance(b, BitArray)]
    if len(bits) == 2 and len({(b.kind, b.axis, b.planes) for b in bits}) == 1:
        changed = np.bitwise_or.reduce(before.words ^ after.words)
        return int(np.bitwise_count(changed).sum(dtype=np.int64))
    return int(np.count_nonzero(np.asarray(before) != np.asarray(after)))
