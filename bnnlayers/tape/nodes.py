"""What is recorded: nodes, the recordings they belong to, and who looks on."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .variable import Variable


NONE: frozenset[Any] = frozenset()


# What a weak reference to an array is called for, of one that is gone: it returns None.
nobody: Callable[[], Any] = weakref.ref(set())


class _State(threading.local):
    tapes: frozenset[Recording] = NONE
    reads: list[Variable] | None = None


state = _State()
_serial = itertools.count()
# A Tensor may be watched and released by several threads. Reentrant, since a collected tape
# releases its nodes wherever its thread happens to be.
watching = threading.RLock()


class recording_on:
    """Record on these tapes inside a ``with`` block."""

    __slots__ = ("before", "tapes")

    def __init__(self, tapes: frozenset[Recording]) -> None:
        self.tapes = tapes

    def __enter__(self) -> None:
        self.before, state.tapes = state.tapes, self.tapes

    def __exit__(self, *error: Any) -> None:
        state.tapes = self.before


# ``observer(phase, name, function)`` is what runs in the place of `function`, while there is one.
observers: list[Callable[[str, str, Callable[..., Any]], Callable[..., Any]]] = []


def observe(observer: Callable[[str, str, Callable[..., Any]], Callable[..., Any]] | None) -> None:
    """Let every operation run as ``observer(phase, name, function)``; None ends it.

    Raises
    ------
    RuntimeError
        If there is an observer already.
    """
    if observer is not None and observers:
        raise RuntimeError("operations are being observed already: profiles cannot be nested")
    observers[:] = [] if observer is None else [observer]


def observed(phase: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or what the observer makes of it."""
    return function if not observers else observers[0](phase, name, function)


class Node:
    """One recorded value: where it came from, and how a gradient goes back from it.

    Parameters
    ----------
    name : str
        Of the operation, for messages and accounts.
    tapes : frozenset
        The recordings that it belongs to.
    value : Tensor, BitArray or tuple of them
        Only shape and dtype are kept.
    parents : tuple of Node or None
        One entry per differentiable argument, None where an argument is not traced.
    backward : callable, optional
        ``backward(residual, dy, needed)`` returns one gradient (or None) per parent.
    residual : object, optional
        What `backward` reads. A `Recomputed` in its place, or in the place of an element of the tuple,
        is an array that will be computed again.
    recompute : tuple, optional
        ``(operation, args, params)`` that give the value again; a Node among the args stands for
        its value.
    source : tuple, optional
        ``(function, args, traced)`` in autograd's NumPy, for the gradient of a gradient.

    Attributes
    ----------
    array : callable
        Returns the value if anyone still has it, or None.
    kept : callable
        Returns the value if a residual keeps it, or None.
    """

    __slots__ = (
        "__weakref__",
        "array",
        "backward",
        "dtype",
        "kept",
        "name",
        "order",
        "parents",
        "recompute",
        "residual",
        "shape",
        "source",
        "tapes",
    )

    def __init__(
        self,
        name: str,
        tapes: frozenset[Recording],
        value: Any,
        parents: tuple[Any, ...] = (),
        backward: Any = None,
        residual: Any = None,
        recompute: Any = None,
        source: Any = None,
    ) -> None:
        self.name = name
        self.order = next(_serial)
        self.tapes = tapes
        self.array: Callable[[], Any] = nobody
        self.kept: Callable[[], Any] = nobody
        self.shape: Any
        self.dtype: Any
        if isinstance(value, np.ndarray):
            self.shape, self.dtype = value.shape, value.dtype
            self.array = weakref.ref(value)
        elif isinstance(value, (tuple, list)):
            self.shape, self.dtype = [(v.shape, v.dtype) for v in value], type(value)
        else:
            self.shape, self.dtype = value.shape, value.dtype
        self.parents = parents
        self.backward = backward
        self.residual = residual
        self.recompute = recompute
        self.source = source
        if parents:  # of the others no gradient goes anywhere
            for tape in tapes:
                tape.nodes.append(weakref.ref(self))

    def __repr__(self) -> str:
        return f"<Node {self.name} shape={self.shape}>"


class Lost:
    """In the place of a node: this array is a view of a traced one, made where no tape can see."""

    __slots__ = ("tapes",)

    def __init__(self, tapes: frozenset[Recording]) -> None:
        self.tapes = tapes


class Recording:
    """What the nodes of a tape know of it, so that a kept Tensor does not keep the tape."""

    __slots__ = ("leaves", "nodes", "passed", "spent", "watches_variables")

    def __init__(self, watches_variables: bool) -> None:
        # Called when a walk has passed a node, for accounts.
        self.passed: Callable[[], Any] | None = None
        self.nodes: list[weakref.ref[Node]] = []
        self.leaves: dict[int, tuple[Variable, list[Node]]] = {}
        self.spent = False
        self.watches_variables = watches_variables

    def adopt(self, node: Node) -> None:
        node.tapes |= {self}
        self.nodes.append(weakref.ref(node))

    def watches(self, variable: Variable) -> bool:
        return id(variable) in self.leaves or (self.watches_variables and variable.trainable)

    def close(self) -> None:
        self.spent = True
        for ref in self.nodes:
            node = ref()
            if node is not None and node.tapes:
                release(node)
        self.nodes.clear()
        self.leaves.clear()


def release(node: Node) -> None:
    """Forget everything of a node but its identity, unless a tape may yet ask for it."""
    with watching:
        for tape in node.tapes:
            if not tape.spent:
                return
        node.tapes = NONE
        node.parents = ()
        node.backward = node.residual = node.recompute = node.source = None
        node.array = node.kept = nobody


def recorded(node: Any, name: str) -> Any:
    """The node if an active tape of this thread records it, else None."""
    if node is None or state.tapes.isdisjoint(node.tapes):
        return None
    if type(node) is Lost:
        raise RuntimeError(
            f"{name}: an argument is a view of a traced Tensor that no tape could record; "
            "make it with indexing, reshape, transpose or astype, or stop_gradient it"
        )
    return node


class Item:
    """The gradient of one value of an operation that returns several."""

    __slots__ = ("dy", "index")

    def __init__(self, index: int, dy: Any) -> None:
        self.index, self.dy = index, dy


class Linear:
    """A backward made of recorded operations that reads no traced value, so it can be traced."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, residual: Any, dy: Any, needed: tuple[bool, ...]) -> Any:
        return self._function(residual, dy, needed)


pull_item = Linear(lambda index, dy, needed: (Item(index, dy),))
