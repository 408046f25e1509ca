"""The way back: `GradientTape`, and functions that bring a gradient of their own."""

from __future__ import annotations

import functools
import gc
import inspect
import operator
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np
from autograd import make_vjp

from .again import Open, Recomputed, Values
from .nodes import (
    NONE,
    Item,
    Linear,
    Lost,
    Node,
    Recording,
    observed,
    observers,
    recorded,
    recording_on,
    release,
    state,
    watching,
)
from .operations import Operation
from .spare import Spare, Sparing, alone
from .tensor import (
    Independent,
    Tensor,
    attach,
    differentiate,
    fill_slots,
    is_traced,
    plain,
    plain_tree,
    read,
    take_traced,
    wrap,
)
from .variable import Variable, in_variable


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function a gradient of its own.

    Parameters
    ----------
    f : callable
        ``f(*args)`` returns ``(value, grad)``; ``grad(*dy)`` gets one gradient per value and
        returns one per argument. If `f` reads trainable Variables other than its arguments,
        ``grad(*dy, variables)`` returns those for the arguments and those for the Variables.
        What happens inside of `f` is not recorded.

    Returns
    -------
    callable
        That returns the value alone.

    Examples
    --------
    >>> @custom_gradient
    ... def ste_sign(x):
    ...     return np.where(x < 0, -1.0, 1.0), lambda dy: dy * (np.abs(x) <= 1)
    """
    name = getattr(f, "__name__", "custom_gradient")

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        values = [read(x) for x in args]
        nodes = [x._node if isinstance(x, Tensor) else None for x in values if _differentiable(x)]
        parents = tuple([recorded(node, name) for node in nodes])
        before, state.reads = state.reads, []
        try:
            with recording_on(frozenset()):
                inputs = [plain(x).view(Tensor) if isinstance(x, np.ndarray) else x for x in values]
                value, grad = observed("forward", name, f)(*inputs, **kwargs)
        finally:
            inner, state.reads = state.reads, before
            if before is not None:
                before += inner
        seen = {id(v): v for v in inner}.values()
        variables = [v for v in seen if any(t.watches(v) for t in state.tapes)]
        value = tuple(map(plain, value)) if isinstance(value, (tuple, list)) else plain(value)
        parents += tuple(Variable._read_(v)._node for v in variables)
        if not any(p is not None for p in parents):
            return wrap(value)
        if variables and "variables" not in inspect.signature(grad).parameters:
            raise TypeError(f"{name}: it reads Variables, so its gradient function must accept 'variables'")
        return attach(value, name, parents, _pull_custom, (name, grad, variables))

    return wrapper


def _differentiable(x: Any) -> bool:
    return isinstance(x, (np.ndarray, Number))


def _pull_custom(residual: Any, dy: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    name, grad, variables = residual
    dys = [wrap(d) for d in dy] if isinstance(dy, tuple) else [wrap(dy)]
    if variables:
        gradients, of_variables = grad(*dys, variables=variables)
    else:
        gradients, of_variables = grad(*dys), ()
    gradients = gradients if isinstance(gradients, (tuple, list)) else (gradients,)
    return (*gradients, *of_variables)


class GradientTape:
    """Records operations inside its ``with`` block, and gives gradients of what they computed.

    Parameters
    ----------
    persistent : bool, optional
        Whether `gradient` may be called more than once. If not, everything is freed by it.
    watch_accessed_variables : bool, optional
        Whether trainable Variables are watched when they are read.

    Notes
    -----
    Tapes belong to the thread that enters them. They may be nested; a gradient of a gradient
    exists through NumPy's functions, and raises NotImplementedError through others.
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._recording = Recording(watch_accessed_variables)

    def __enter__(self) -> GradientTape:
        if self._recording in state.tapes:
            raise ValueError("GradientTape: the tape is already recording")
        state.tapes |= {self._recording}
        return self

    def __exit__(self, *error: Any) -> None:
        state.tapes -= {self._recording}

    def __del__(self) -> None:
        self._recording.close()

    def watch(self, tensor: Any) -> None:
        """Record what is done with a Tensor or Variable, or with each of a nested list of them.

        Raises
        ------
        ValueError
            If one is a plain array or number, which cannot be followed: use `constant`.
        TypeError
            If one is not of a floating dtype.
        """
        for x in _flatten(tensor):
            x = _origin(x)
            if not isinstance(x, (Tensor, Variable)):
                raise ValueError(
                    "GradientTape.watch: argument 'tensor': expected a Tensor or Variable, "
                    f"received {type(x).__name__}; make it one with constant()"
                )
            if x.dtype.kind not in "fc":
                raise TypeError(f"GradientTape.watch: argument 'tensor': expected a floating dtype, received {x.dtype}")
            if isinstance(x, Variable):
                self._recording.leaves.setdefault(id(x), (x, []))
                continue
            with watching:
                self._watch(x)

    def _watch(self, x: Tensor) -> None:
        node = x._node
        if node is not None and not state.tapes.isdisjoint(node.tapes):
            recorded(node, "GradientTape.watch")
        elif type(node) is not Node:
            node = x._node = Node("watch", frozenset(), x)
        if self._recording not in node.tapes:
            self._recording.adopt(node)

    def watched_variables(self) -> tuple[Variable, ...]:
        """The Variables that were watched, in the order of their first use."""
        return tuple(variable for variable, _ in self._recording.leaves.values())

    @contextmanager
    def stop_recording(self) -> Iterator[None]:
        """Do not record inside this ``with`` block."""
        if self._recording not in state.tapes:
            raise RuntimeError("GradientTape.stop_recording: the tape is not recording")
        with recording_on(state.tapes - {self._recording}):
            yield

    def reset(self) -> None:
        """Forget everything recorded so far."""
        old, self._recording = self._recording, Recording(self._recording.watches_variables)
        if old in state.tapes:
            state.tapes = (state.tapes - {old}) | {self._recording}
        old.close()

    @contextmanager
    def accounted(self, passed: Callable[[], Any]) -> Iterator[None]:
        """Inside this ``with`` block, `gradient` calls a function whenever it has passed an operation."""
        self._recording.passed = passed
        try:
            yield
        finally:
            self._recording.passed = None

    def kept(self) -> list[tuple[str, int]]:
        """What is kept for backward: operation and bytes, in the order of recording.

        A buffer counts once, for the first operation that keeps it; that of a Variable never.
        """
        seen: set[int] = set()
        nodes = [n for ref in self._recording.nodes if (n := ref()) is not None]
        nodes = [n for n in nodes if n.backward is not None and n.name != "item"]
        return [(n.name, _count([n.residual, n.recompute, n.source], seen)) for n in nodes]

    def gradient(
        self, target: Any, sources: Any, output_gradients: Any = None, unconnected_gradients: Any = "none"
    ) -> Any:
        """Gradients of the sum of `target` with respect to `sources`.

        Parameters
        ----------
        target : Tensor or nested list, tuple or dict of them
        sources : Tensor, Variable or nested list, tuple or dict of them
        output_gradients : optional
            In the structure of `target`, the gradients to start from; ones if not given.
        unconnected_gradients : {"none", "zero"}
            What stands for a source on which `target` does not depend: None or zeros.

        Returns
        -------
        Tensor or None, in the structure of `sources`

        Raises
        ------
        RuntimeError
            If the tape is not persistent and was asked before.
        NotImplementedError
            If an operation has no derivative.
        """
        recording = self._recording
        if recording.spent:
            raise RuntimeError("GradientTape.gradient: a non-persistent tape can be asked only once")
        unconnected = getattr(unconnected_gradients, "value", unconnected_gradients)
        if unconnected not in ("none", "zero"):
            raise ValueError(
                "GradientTape.gradient: argument 'unconnected_gradients': expected 'none' or "
                f"'zero', received {unconnected_gradients!r}"
            )
        leaves = _flatten(sources)
        wanted = [self._nodes(x) for x in leaves]
        seeds = self._seeds(target, output_gradients)
        outer = state.tapes - {recording}
        try:
            recording.spent = not self._persistent
            with recording_on(outer):
                found = _walk(recording, seeds, {n for nodes in wanted for n in nodes}, outer)
                gradients = []
                for x, nodes in zip(leaves, wanted, strict=True):
                    gradient = None
                    for node in nodes:
                        if node in found:
                            gradient = found[node] if gradient is None else np.add(gradient, found[node])
                    if gradient is None and unconnected == "zero":
                        gradient = np.zeros(x.shape, x.dtype)
                    gradients.append(gradient.view(Tensor) if type(gradient) is np.ndarray else wrap(gradient))
        finally:
            if not self._persistent:
                state.tapes -= {recording}
                recording.close()

        return _like(sources, iter(gradients))

    def _nodes(self, x: Any) -> list[Node]:
        """The nodes of this tape that stand for `x`: several for a Variable that was assigned."""
        x = _origin(x)
        if isinstance(x, Variable):
            leaf = self._recording.leaves.get(id(x))
            return leaf[1] if leaf else []
        if not isinstance(x, Tensor) and not hasattr(x, "_with_node"):
            raise TypeError(
                "GradientTape.gradient: expected Tensors or Variables, "
                f"received {type(x).__name__}; make it one with constant()"
            )
        node = x._node
        if node is None or self._recording not in node.tapes:
            return []
        if type(node) is Lost:
            raise RuntimeError("GradientTape.gradient: a view of a traced Tensor that no tape could record")
        return [node]

    def _seeds(self, target: Any, output_gradients: Any) -> list[tuple[Node, Any]]:
        targets = _flatten(target)
        given = [None] * len(targets) if output_gradients is None else _flatten(output_gradients)
        if len(given) != len(targets):
            raise ValueError(
                "GradientTape.gradient: argument 'output_gradients': expected one for each of "
                f"{len(targets)} targets, received {len(given)}"
            )
        seeds = []
        for x, dy in zip(targets, given, strict=True):
            dy = read(dy)
            if dy is not None and np.shape(dy) != x.shape:
                raise ValueError(
                    "GradientTape.gradient: argument 'output_gradients': expected shape "
                    f"{x.shape}, received {np.shape(dy)}"
                )
            for node in self._nodes(x)[-1:]:
                if dy is None:
                    dy = np.ones(node.shape, node.dtype)
                seeds.append((node, dy if isinstance(dy, Tensor) else np.asarray(dy, node.dtype)))
        return seeds


def _origin(x: Any) -> Any:
    """What a Readable stands for, as far as gradients are concerned."""
    while (source := getattr(x, "_source_", None)) is not None:
        x = source
    return x


def _flatten(x: Any) -> list[Any]:
    if isinstance(x, dict):
        x = list(x.values())
    if not isinstance(x, (list, tuple)):
        return [x]
    leaves = []
    for v in x:
        if isinstance(v, (list, tuple, dict)):
            leaves += _flatten(v)
        else:
            leaves.append(v)
    return leaves


def _like(x: Any, leaves: Iterator[Any]) -> Any:
    """The leaves in the structure of `x`."""
    if isinstance(x, dict):
        return {k: _like(v, leaves) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        nested = list, tuple, dict
        return getattr(x, "_make", type(x))([_like(v, leaves) if isinstance(v, nested) else next(leaves) for v in x])
    return next(leaves)


_BY_ORDER = operator.attrgetter("order")


def _walk(recording: Recording, seeds: list[tuple[Node, Any]], sources: set[Node], outer: frozenset) -> dict[Node, Any]:
    """Gradients of the sources. A node is freed when the walk has passed it and no other tape
    wants it; it was recorded after its parents, so the order of recording is the way back."""
    reached = {node for node, _ in seeds}
    order = sorted(filter(None, map(operator.call, recording.nodes)), key=_BY_ORDER)
    for node in reversed(order):
        if node in reached:
            reached.update(node.parents)
    # Which of its parents a node passes gradients to: those that lead to a source.
    leading = set(sources)
    needs: dict[Node, tuple[bool, ...]] = {}
    for node in order:
        if node in reached and not leading.isdisjoint(node.parents):
            needs[node] = (*map(leading.__contains__, node.parents),)
            leading.add(node)
    del order, reached
    gradients: dict[Node, Any] = {}
    for node, dy in seeds:
        _accumulate(gradients, node, dy, "output_gradients")
    values = Values(needs)
    while needs:
        node, needed = needs.popitem()
        dy = gradients.get(node) if node in sources else gradients.pop(node, None)
        if dy is not None:
            owned = type(node.backward) is Sparing and alone(dy)
            pulled = list(_pull(node, dy, needed, values, outer, owned, gradients))
            pulled.reverse()
            dy = None
            for parent, need in zip(node.parents, needed, strict=True):
                # Popped, since one that nobody else has may be written to.
                if not need or pulled[-1] is None:
                    pulled.pop()
                elif (
                    parent in gradients
                    or type(pulled[-1]) is not np.ndarray
                    or pulled[-1].shape != parent.shape
                    or pulled[-1].dtype is not parent.dtype
                ):
                    _accumulate(gradients, parent, pulled.pop(), node.name)
                else:  # which is what it mostly is
                    gradients[parent] = pulled.pop()
        if values.held:
            values.pass_by(node)
        if recording.spent:
            release(node)
        del node, dy
        if recording.passed is not None:
            recording.passed()
    return gradients


def _pull(
    node: Node,
    dy: Any,
    needed: tuple[bool, ...],
    values: Values,
    outer: frozenset,
    owned: bool,
    found: dict[Node, Any],
) -> Any:
    if isinstance(node.shape, list):
        parts = zip(dy, node.shape, strict=True)
        dy = node.dtype(np.zeros(*like) if d is None else d for d, like in parts)
    if outer and node.source is not None:
        return _pull_again(node, dy)
    residual, backward = node.residual, node.backward
    if type(residual) in (Open, Recomputed):
        residual = values.residual(node)
    spares = type(backward) is Sparing and not outer
    if spares:
        backward = backward.function
    if observers:
        backward = observers[0]("backward", node.name, backward)
    if type(node.backward) is Linear:
        return backward(residual, dy, needed)
    if type(dy) is not np.ndarray:
        dy = plain_tree(dy)
    if spares:
        arrays = [dy] if owned else []
        if type(residual) is tuple and False not in [tape.spent for tape in node.tapes]:
            arrays += [r for r in residual if type(r) is np.ndarray and alone(r, 1)]
        gradients = backward(residual, dy, needed, Spare(arrays, found, node.parents))
    elif outer:
        with recording_on(NONE):
            gradients = backward(residual, dy, needed)
    else:
        gradients = backward(residual, dy, needed)
    if len(gradients) != len(needed):
        raise ValueError(f"gradient of {node.name}: expected {len(needed)} gradients, received {len(gradients)}")
    if not outer:
        return gradients
    nodes = [*node.parents, *(getattr(d, "_node", None) for d in _flatten(dy))]
    parents = tuple([recorded(n, "") for n in nodes])
    if not any(p is not None for p in parents):
        return gradients
    return [
        g
        if g is None or isinstance(g, Item)
        else attach(plain(g), node.name, parents, _no_second_derivative, node.name)
        for g in gradients
    ]


def _pull_again(node: Node, dy: Any) -> Any:
    """Gradients of a NumPy function, recorded by the outer tapes as a function of dy and args."""
    function, args, traced = node.source
    argnum = tuple(range(len(traced)))

    def gradients(dy: Any, *values: Any) -> Any:
        return make_vjp(lambda *boxes: function(*fill_slots(args, boxes)), argnum)(*values)[0](dy)

    followed: list[Tensor] = []
    values = take_traced((dy, *traced), node.name, followed)
    try:
        return differentiate(node.name, gradients, values, followed)
    except Independent:
        return gradients(*fill_slots(values, [plain(t) for t in followed]))


def _no_second_derivative(name: str, dy: Any, needed: Any) -> Any:
    raise NotImplementedError(f"{name} has no second derivative")


def _accumulate(gradients: dict[Node, Any], node: Node, gradient: Any, name: str) -> None:
    if isinstance(gradient, Item):
        parts = gradients.setdefault(node, [None] * len(node.shape))
        before = parts[gradient.index]
        parts[gradient.index] = gradient.dy if before is None else before + gradient.dy
        return
    if type(gradient) is not np.ndarray:
        gradient = read(gradient)
        if not isinstance(gradient, np.ndarray):
            gradient = np.asarray(gradient)
        elif isinstance(gradient, Tensor) and not is_traced(gradient):
            gradient = gradient.view(np.ndarray)
    if gradient.shape != node.shape:
        gradient = _unbroadcast(gradient, node, name)
    if gradient.dtype != node.dtype and node.dtype.kind in "fc":
        gradient = (gradient.real if node.dtype.kind == "f" else gradient).astype(node.dtype)
    before = gradients.pop(node, None)
    if before is not None and before is not gradient:  # it may have been added to that one
        out = None
        if type(before) is type(gradient) is np.ndarray and before.dtype == gradient.dtype:
            out = gradient if alone(gradient) else before if alone(before) else None
        gradient = before + gradient if out is None else np.add(before, gradient, out=out)
    gradients[node] = gradient


def _unbroadcast(gradient: Any, node: Node, name: str) -> Any:
    extra = gradient.ndim - len(node.shape)
    lengths = list(zip(gradient.shape[max(extra, 0) :], node.shape, strict=False))
    if extra < 0 or any(n != m and m != 1 for n, m in lengths):
        raise ValueError(f"gradient of {name}: expected shape {node.shape}, received {gradient.shape}")
    if extra:
        gradient = gradient.sum(axis=tuple(range(extra)))
    axes = tuple(i for i, (n, m) in enumerate(lengths) if n != m)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def _count(x: list[Any], seen: set[int]) -> int:
    """Bytes of the arrays that `x` holds, through containers, closures and autograd's nodes."""
    pending, total = list(x), 0
    while pending:
        x = pending.pop()
        if x is None or isinstance(x, (Node, Operation, type, types.ModuleType)) or hasattr(x, "_read_"):
            continue
        if isinstance(x, np.ndarray):
            if in_variable(x):
                continue
            while isinstance(x.base, np.ndarray):
                x = x.base
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            total += x.nbytes
        elif isinstance(x, Recomputed):
            pending += x.kept
        elif isinstance(x, types.FunctionType):
            pending += [x.__closure__, x.__defaults__]
        elif (
            isinstance(x, (tuple, list, dict, types.CellType, functools.partial))
            or hasattr(x, "nbytes")
            or type(x).__module__.startswith("autograd.")
        ):
            pending += gc.get_referents(x)
    return total
