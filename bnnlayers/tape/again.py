"""Values that are computed again instead of kept."""

from __future__ import annotations

import collections
import math
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from .nodes import Node, observed
from .spare import Sparing

# What may be computed on the way to a value, as a multiple of its bytes. In a chain of elementwise
# operations one that is too far from its beginning is kept instead.
_DETOUR = 5


class Recomputed:
    """In a residual, an argument that will be computed again, and what is kept for that."""

    __slots__ = ("kept", "node")

    def __init__(self, node: Node, kept: list[np.ndarray]) -> None:
        self.node, self.kept = node, kept


class Open(tuple):
    """A residual that has a `Recomputed` among its elements."""

    __slots__ = ()


def without_arguments(residual: Any, values: list[Any], parents: Any) -> Any:
    """`residual` with a `Recomputed` in the place of every argument that is better computed again."""
    if type(residual) is not tuple:
        return without_arguments((residual,), values, parents)[0]
    kept: list[Any] | None = None
    for x, parent in zip(values, parents, strict=True):
        if parent is not None and type(x) is np.ndarray and id(x) in map(id, residual):
            again = _keep(x, parent)
            if again is not x:
                kept = [again if r is x else r for r in kept or residual]
    return residual if kept is None else Open(kept)


# Bytes of a row, one sample of a small dense layer say, that are fewer than a call is worth; and bytes of a value that
# is not worth to be computed again at such an effort.
_ROW, _SMALL, _HARD = 1 << 8, 1 << 21, 4


def _saves(x: np.ndarray, effort: int) -> bool:
    """Whether it is worth that effort not to keep `x`."""
    return x.nbytes > (_SMALL if effort >= _HARD else _ROW * math.prod(x.shape[:1]))


def _keep(x: np.ndarray, node: Node) -> Any:
    """What stands in a residual for the value `x` of `node`: itself or a `Recomputed`, whichever keeps fewer bytes."""
    again = None if node.kept() is not None else node.recompute
    if again is not None and _saves(x, again[0].effort):
        roots: list[Node] = []
        if _reach(again[1], _DETOUR * x.nbytes - x.nbytes, roots) >= 0:
            more = {id(root): root for root in roots if root.kept() is None}.values()
            if sum([root.array().nbytes for root in more]) < x.nbytes:
                for root in more:
                    root.kept = root.array
                return Recomputed(node, [root.kept() for root in roots])
    if node.kept() is None:
        node.kept = weakref.ref(x)
    return x


def _reach(args: list[Any], allowance: int, roots: list[Node]) -> int:
    """What is left of `allowance`, in bytes, when all nodes among `args` have been computed again, or a negative
    number if that cannot be. `roots` gets the nodes whose values are at the beginning of it."""
    for node in args:
        if type(node) is not Node:
            continue
        if node.kept() is not None:
            roots.append(node)
            continue
        count, left = len(roots), -1
        if node.recompute is not None:
            left = allowance - math.prod(node.shape) * node.dtype.itemsize * node.recompute[0].effort
            if left >= 0:
                left = _reach(node.recompute[1], left, roots)
        if left >= 0:
            allowance = left
            continue
        del roots[count:]
        if node.array() is None:
            return -1
        roots.append(node)
    return allowance


class Parts:
    """In a residual, an argument that is computed again whenever a range of its first axis, ``x[images]``, is read."""

    __slots__ = ("_args", "_node")

    def __init__(self, node: Node, args: list[Any]) -> None:
        self._node, self._args = node, args

    @property
    def shape(self) -> tuple[int, ...]:
        return self._node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._node.dtype

    def __getitem__(self, images: slice) -> np.ndarray:
        operation, _, params = self._node.recompute
        args, params = operation.part(images, self._args, params)
        return np.asarray(observed("again", self._node.name, operation._forward)(*args, **params)[0])


class Values:
    """The values that one walk has computed again: each is held while another residual asks for it."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._wanted: collections.defaultdict[Node, int] = collections.defaultdict(int)
        for node in nodes:
            residual = node.residual
            if type(residual) in (Open, Recomputed):
                for r in residual if type(residual) is Open else (residual,):
                    if type(r) is Recomputed:
                        self._wanted[r.node] += 1
        self.held: dict[Node, np.ndarray] = {}

    def residual(self, node: Node) -> Any:
        """That of a node with every array in its place."""
        residual = node.residual
        if type(residual) is Open:
            parts = type(node.backward) is Sparing and node.backward.parts
            return tuple([self._asked(r, parts) if type(r) is Recomputed else r for r in residual])
        return self._asked(residual) if type(residual) is Recomputed else residual

    def _asked(self, again: Recomputed, parts: bool = False) -> Any:
        node = again.node
        self._wanted[node] -= 1
        alone = parts and self._wanted[node] == 0 and node not in self.held and node.kept() is None
        if alone and node.recompute[0].part is not None:
            return Parts(node, [self._value(a) if type(a) is Node else a for a in node.recompute[1]])
        return self._value(node)

    def _value(self, node: Node) -> np.ndarray:
        value = node.kept()
        if value is not None:
            return value
        operation, args, params = node.recompute
        value = self.held.pop(node, None)
        if value is None:
            args = [self._value(a) if type(a) is Node else a for a in args]
            value = np.asarray(observed("again", node.name, operation._forward)(*args, **params)[0])
        if self._wanted[node] > 0 or operation._joins:
            self.held[node] = value
        return value

    def pass_by(self, node: Node) -> None:
        """The walk leaves a node: all that could ask for its value came before."""
        value = self.held.pop(node, None)
        if value is None or not node.recompute[0]._joins:
            return
        # What was joined is taken apart for those of its parts that are asked for later.
        wanted = [p is not None and self._wanted[p] > 0 and p not in self.held for p in node.parents]
        if any(wanted):
            parts = node.backward(node.residual, value, tuple(wanted))
            for parent, part in zip(node.parents, parts, strict=True):
                if part is not None:
                    self.held[parent] = part
