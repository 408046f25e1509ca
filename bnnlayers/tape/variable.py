"""A value that changes: what was read of it does not."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .nodes import Node, state
from .tensor import Readable, Tensor, as_array, plain


class _Buffer(np.ndarray):
    """The memory of a Variable. No view has this class, so NumPy keeps the first view of it as
    base of all others, and a weak reference to that one tells whether anyone still reads it."""


def in_variable(x: Any) -> bool:
    while isinstance(x, np.ndarray):
        if type(x) is _Buffer:
            return True
        x = x.base
    return False


class Variable(Readable):
    """A value that can be assigned to, and that a tape watches when it is read.

    Parameters
    ----------
    initial_value : array_like or callable
        It is copied. Python numbers become float32 and int32.
    trainable : bool, optional
        Whether every tape watches it.
    name : str, optional
        Gets the suffix ``:0``, as in TensorFlow.
    dtype : dtype, optional
    constraint : callable, optional
        For the optimizer to apply after an update.

    Notes
    -----
    A Tensor or array that was read keeps its value: an update is in place only if nobody holds
    what was read of the current version.
    """

    def __init__(
        self,
        initial_value: Any,
        trainable: bool = True,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        constraint: Callable[[Any], Any] | None = None,
    ) -> None:
        if callable(initial_value) and not hasattr(type(initial_value), "_read_"):
            initial_value = initial_value()
        name = name or "Variable"
        self.name = name if name.endswith(":0") else f"{name}:0"
        self.trainable = trainable
        self.constraint = constraint
        self.version = 0
        self._fill_buffer(as_array(initial_value, dtype))

    def _fill_buffer(self, value: np.ndarray) -> None:
        if value.dtype.hasobject:
            raise TypeError(f"Variable {self.name!r}: expected numbers, received {value.dtype}")
        # It must own its memory, or NumPy would see through it to the array that does.
        self._buffer = _Buffer(value.shape, value.dtype)
        self._memory = self._buffer.view(np.ndarray)
        self._memory[...] = value
        self._view: weakref.ref[np.ndarray] | None = None

    def _read_(self) -> Tensor:
        view = None if self._view is None else self._view()
        if view is None:
            view = self._buffer.view(np.ndarray)
            view.setflags(write=False)
            self._view = weakref.ref(view)
        tensor = view.view(Tensor)
        if state.reads is not None:
            state.reads.append(self)
        if state.tapes:
            tensor._node = self._leaf(view)
        return tensor

    def _leaf(self, view: np.ndarray) -> Node | None:
        """The node of this version: one for all reads, and it holds the value they saw."""
        if view.dtype.kind not in "fc":
            return None
        leaves = {}
        node: Any = None
        for tape in state.tapes:
            if tape.watches(self):
                leaves[tape] = nodes = tape.leaves.setdefault(id(self), (self, []))[1]
                for known in nodes:
                    if known.kept() is view:
                        node = known
        if not leaves:
            return None
        if node is None:
            node = Node(self.name, frozenset(leaves), view)
            node.kept = lambda: view
        for tape, nodes in leaves.items():
            if node not in nodes:
                nodes.append(node)
            if tape not in node.tapes:
                tape.adopt(node)
        return node

    def _writable_(self) -> np.ndarray:
        """The memory of the value, to be changed by the caller at once; counts as an update."""
        if self._view is not None and self._view() is not None:
            self._fill_buffer(self._memory)
        self.version += 1
        return self._memory

    def numpy(self) -> Any:
        return self._memory.copy()[()]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._buffer.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._buffer.dtype

    def __len__(self) -> int:
        return len(self._buffer)

    def assign(self, value: ArrayLike) -> Variable:
        """Replace the value.

        Raises
        ------
        ValueError
            If the shape differs. The value is then unchanged, as after a TypeError.
        TypeError
            If the kind of number cannot be cast.
        """
        value = self._checked("assign", value)
        np.copyto(self._writable_(), value, casting="same_kind")
        return self

    def assign_add(self, delta: ArrayLike) -> Variable:
        """Add to the value; raises as `assign` does."""
        delta = self._checked("assign_add", delta)
        value = self._writable_()
        np.add(value, delta, out=value, casting="same_kind")
        return self

    def assign_sub(self, delta: ArrayLike) -> Variable:
        """Subtract from the value; raises as `assign` does."""
        delta = self._checked("assign_sub", delta)
        value = self._writable_()
        np.subtract(value, delta, out=value, casting="same_kind")
        return self

    def _checked(self, method: str, value: ArrayLike) -> np.ndarray:
        value, buffer = plain(value), self._buffer
        if value.dtype == buffer.dtype and value.shape == buffer.shape:
            return value
        if value.shape != self.shape:
            raise ValueError(f"{method}: Variable {self.name!r}: expected shape {self.shape}, received {value.shape}")
        if not np.can_cast(value.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"{method}: Variable {self.name!r}: expected values of dtype {self.dtype}, received {value.dtype}"
            )
        return value

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("_buffer", "_memory", "_view")}
        return state | {"value": self._memory.copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        value = state.pop("value")
        self.__dict__.update(state)
        self._fill_buffer(value)

    def __repr__(self) -> str:
        return (
            f"<Variable {self.name!r} shape={self.shape} dtype={self.dtype} "
            f"numpy={np.array_repr(self._memory)}>"
        )
