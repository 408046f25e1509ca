"""`QuantizedVariable`: a variable that reads quantised inside `bnnlayers.context.quantized_scope`."""

from __future__ import annotations

from typing import Any

from . import context
from .bits import BitArray
from .ops.quantize import Memo
from .tape import Variable, recording

__all__ = ["QuantizedVariable"]


class QuantizedVariable(Variable):
    """A variable with a quantizer, around the latent one that the optimizer trains.

    Outside of the scope it is the latent variable. Inside, it reads as ``quantizer(latent)``, and gives a product the
    packed operand, which is made once per version of the variable and axis. Assignments always go to the latent one.

    Parameters
    ----------
    variable : Variable
        The latent variable.
    quantizer : callable, optional
    precision : int, optional
        Bits of a quantised value; by default the quantizer's.

    Raises
    ------
    ValueError
        If an argument is not of these types.
    """

    def __init__(self, variable: Variable, quantizer: Any = None, precision: int | None = None) -> None:
        if not isinstance(variable, Variable):
            raise ValueError(f"QuantizedVariable: `variable` must be a Variable, but got `{type(variable)}`.")
        if not (quantizer is None or callable(quantizer)):
            raise ValueError(
                f"QuantizedVariable: `quantizer` must be `callable` or `None`, but got `{type(quantizer)}`."
            )
        if not (precision is None or type(precision) is int):
            raise ValueError(
                f"QuantizedVariable: `precision` must be of type `int` or `None`, but got `{type(precision)}`."
            )
        self.latent_variable = self._source_ = variable
        self.quantizer = quantizer
        self.precision = precision or getattr(quantizer, "precision", None)
        self._memo: Memo = {}
        self._memo_version = variable.version

    @classmethod
    def from_variable(
        cls, variable: Variable, quantizer: Any = None, precision: int | None = None
    ) -> QuantizedVariable:
        """As the constructor; larq's name for it."""
        return cls(variable, quantizer, precision)

    def __getattr__(self, name: str) -> Any:
        # Name, trainability, constraint, version and memory are the latent variable's.
        if name == "latent_variable":  # not there yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.latent_variable, name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.latent_variable.shape

    @property
    def dtype(self) -> Any:
        return self.latent_variable.dtype

    def _quantizes(self) -> bool:
        return self.quantizer is not None and context.should_quantize()

    def _read_(self) -> Any:
        latent = self.latent_variable._read_()
        return self.quantizer(latent) if self._quantizes() else latent

    def _operand_(self, axis: int) -> Any:
        encode = getattr(self.quantizer, "encode", None)
        if encode is None or not context.scope.quantize:
            return self._read_()
        lasting = self._lasting_()
        if lasting is not None and axis in lasting:
            return lasting[axis]
        value = encode(self.latent_variable._read_(), axis=axis, memo=self._memo)
        if lasting is not None and isinstance(value, BitArray):
            lasting[axis] = value
        return value

    def _lasting_(self) -> Memo | None:
        """What was made of the quantised value as it is; None where every read of it counts."""
        if self._memo_version != self.latent_variable.version:
            self._memo, self._memo_version = {}, self.latent_variable.version
        state = None if recording() or not context.scope.quantize else getattr(self.quantizer, "_state", None)
        if state is None:
            return None
        lasting = self._memo.get(state)
        if lasting is None:
            lasting = self._memo[state] = {}
        return lasting

    def forget_packed(self) -> None:
        """Drop the packed forms of the current value, which are made again when they are asked for."""
        self._memo = {}

    def numpy(self) -> Any:
        return self._read_().numpy()

    read_value = Variable.value

    def _writable_(self) -> Any:
        return self.latent_variable._writable_()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memo": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        parts = [f"<{type(self).__name__} {self.name!r} shape={self.shape} dtype={self.dtype}"]
        if self.quantizer is not None:
            parts.append(f"quantizer={getattr(self.quantizer, '__name__', type(self.quantizer).__name__)}")
        if self.precision is not None:
            parts.append(f"precision={self.precision}")
        value = self.numpy()
        return " ".join([*parts, f"numpy={value!r}>" if self.ndim else f"numpy={value}>"])
