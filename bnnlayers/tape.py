"""Define-by-run differentiation: `Tensor`, `Variable`, `GradientTape`, and how operations are made.

A `Tensor` is a NumPy array that may carry a `Node`. An operation that meets a node of an active
tape records one of its own, and `GradientTape.gradient` walks the nodes back. Our own operations
are a forward with its backward below it (`operation`); the derivatives of NumPy's functions are
those of HIPS autograd.

What a node keeps for backward is the memory of training, so a residual is kept apart from the
arguments, can be computed again instead of kept, and is freed as the walk passes it.
"""

from __future__ import annotations

import collections
import functools
import gc
import inspect
import itertools
import math
import operator
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.extend import Box
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import ArrayLike, DTypeLike

__all__ = [
    "GradientTape",
    "Node",
    "Operation",
    "Parts",
    "Readable",
    "Tensor",
    "Variable",
    "constant",
    "convert_to_tensor",
    "custom_gradient",
    "is_traced",
    "observe",
    "observed",
    "operation",
    "plain",
    "read",
    "stop_gradient",
]


_NONE: frozenset[Any] = frozenset()


def _nobody() -> None:
    return None


class _State(threading.local):
    tapes: frozenset[_Recording] = _NONE
    reads: list[Variable] | None = None


_state = _State()
_serial = itertools.count()
# A Tensor may be watched and released by several threads. Reentrant, since a collected tape
# releases its nodes wherever its thread happens to be.
_watching = threading.RLock()
# HIPS numbers its traces with one global counter, so an inner trace is only sure to get the
# higher number while no other thread starts or ends one.
_tracing = threading.RLock()


class _recording_on:
    """Record on these tapes inside a ``with`` block."""

    __slots__ = ("before", "tapes")

    def __init__(self, tapes: frozenset[_Recording]) -> None:
        self.tapes = tapes

    def __enter__(self) -> None:
        self.before, _state.tapes = _state.tapes, self.tapes

    def __exit__(self, *error: Any) -> None:
        _state.tapes = self.before


# ``observer(phase, name, function)`` is what runs in the place of `function`, while there is one.
_observer: Callable[[str, str, Callable[..., Any]], Callable[..., Any]] | None = None


def observe(observer: Callable[[str, str, Callable[..., Any]], Callable[..., Any]] | None) -> None:
    """Let every operation run as ``observer(phase, name, function)``; None ends it.

    Raises
    ------
    RuntimeError
        If there is an observer already.
    """
    global _observer
    if observer is not None and _observer is not None:
        raise RuntimeError("operations are being observed already: profiles cannot be nested")
    _observer = observer


def observed(phase: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or what the observer makes of it."""
    return function if _observer is None else _observer(phase, name, function)


# ---- nodes -------------------------------------------------------------------------------------


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
        What `backward` reads. A `_Later` in its place, or in the place of an element of the tuple,
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
        tapes: frozenset[_Recording],
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
        self.array: Callable[[], Any] = _nobody
        self.kept: Callable[[], Any] = _nobody
        if isinstance(value, (tuple, list)):
            self.shape: Any = [(v.shape, v.dtype) for v in value]
            self.dtype: Any = type(value)
        else:
            self.shape, self.dtype = value.shape, value.dtype
            if isinstance(value, np.ndarray):
                self.array = weakref.ref(value)
        self.parents = parents
        self.backward = backward
        self.residual = residual
        self.recompute = recompute
        self.source = source
        for tape in tapes:
            tape.nodes.append(weakref.ref(self))

    def free(self) -> None:
        """Forget everything but the identity."""
        self.tapes = frozenset()
        self.parents = ()
        self.backward = self.residual = self.recompute = self.source = None
        self.array = self.kept = _nobody

    def __repr__(self) -> str:
        return f"<Node {self.name} shape={self.shape}>"


class _Lost:
    """In the place of a node: this array is a view of a traced one, made where no tape can see."""

    __slots__ = ("tapes",)

    def __init__(self, tapes: frozenset[_Recording]) -> None:
        self.tapes = tapes


class _Recording:
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
                _release(node)
        self.nodes.clear()
        self.leaves.clear()


def _release(node: Node) -> None:
    with _watching:
        for tape in node.tapes:
            if not tape.spent:
                return
        node.free()


def _parent(node: Any, name: str) -> Any:
    """The node if an active tape of this thread records it, else None."""
    if node is None or _state.tapes.isdisjoint(node.tapes):
        return None
    if type(node) is _Lost:
        raise RuntimeError(
            f"{name}: an argument is a view of a traced Tensor that no tape could record; "
            "make it with indexing, reshape, transpose or astype, or stop_gradient it"
        )
    return node


def _parents(nodes: Iterable[Any], name: str) -> tuple[Any, ...]:
    return tuple([_parent(node, name) for node in nodes])


def _attach(value: Any, name: str, parents: tuple[Any, ...], *args: Any, **more: Any) -> Any:
    """The value of an operation as Tensor (or BitArray, or tuple of them) with its node."""
    tapes = _state.tapes
    if len(tapes) > 1:
        tapes = tapes & frozenset().union(*[p.tapes for p in parents if p is not None])
    if type(value) is np.ndarray and value.dtype.kind in "fc":
        tensor = value.view(Tensor)
        tensor._node = Node(name, tapes, value, parents, *args, **more)
        return tensor
    if hasattr(value, "_with_node"):
        return value._with_node(Node(name, tapes, value, parents, *args, **more))
    if isinstance(value, (tuple, list)):
        value = type(value)(_wrap(v) for v in value)
        whole = Node(name, tapes, value, parents, *args, **more)
        return type(value)(_carry(v, Node("item", tapes, v, (whole,), _pull_item, i)) for i, v in enumerate(value))
    value = np.asarray(value)
    if value.dtype.kind not in "fc":
        return value.view(Tensor)
    return _carry(value, Node(name, tapes, value, parents, *args, **more))


def _carry(value: Any, node: Node) -> Any:
    if hasattr(value, "_with_node"):
        return value._with_node(node)
    if value.dtype.kind in "fc":
        if type(value) is not np.ndarray:
            value = value.view(np.ndarray)
        # The array that the node refers to weakly is the base of the Tensor, and lives as long.
        node.array = weakref.ref(value)
        value = value.view(Tensor)
        value._node = node
    return value


class _Item:
    """The gradient of one value of an operation that returns several."""

    __slots__ = ("dy", "index")

    def __init__(self, index: int, dy: Any) -> None:
        self.index, self.dy = index, dy


class _Linear:
    """A backward made of recorded operations that reads no traced value, so it can be traced."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, residual: Any, dy: Any, needed: tuple[bool, ...]) -> Any:
        return self._function(residual, dy, needed)


class _Sparing:
    """A backward that can write over what nobody will read again, and perhaps takes `Parts`."""

    __slots__ = ("function", "parts")

    def __init__(self, function: Callable[..., Any], parts: bool = False) -> None:
        self.function, self.parts = function, parts

    def __call__(self, residual: Any, dy: Any, needed: tuple[bool, ...], spare: Spare | None = None) -> Any:
        return self.function(residual, dy, needed, spare or Spare([]))


_pull_item = _Linear(lambda index, dy, needed: (_Item(index, dy),))


# ---- the leaf rule and dispatch ----------------------------------------------------------------


def read(x: Any) -> Any:
    """The current Tensor of whatever has `_read_()`, a Variable say; anything else unchanged."""
    while type(x) not in _VALUES and type(x) not in _operands and hasattr(type(x), "_read_"):
        x = x._read_()
    return x


def plain(x: Any) -> np.ndarray:
    """`x` as a plain array that no tape follows; of a Variable a read-only view."""
    if type(x) is np.ndarray:
        return x
    if type(x) is Tensor:
        return x.view(np.ndarray)
    x = read(x)
    return x.view(np.ndarray) if isinstance(x, np.ndarray) else np.asarray(x)


def recording() -> bool:
    """Whether a tape of this thread records, or someone asks what is read."""
    return bool(_state.tapes) or _state.reads is not None


def is_traced(x: Any) -> bool:
    """Whether an operation on `x` would now be recorded by a tape of this thread."""
    if not _state.tapes:
        return False
    node = getattr(read(x), "_node", None)
    return node is not None and not _state.tapes.isdisjoint(node.tapes)


def _wrap(x: Any) -> Any:
    """NumPy's results as Tensors: arrays, scalars (0-d), and tuples or lists of them."""
    if type(x) is np.ndarray:
        return x.view(Tensor)
    if isinstance(x, np.generic):
        return np.asarray(x).view(Tensor)
    if isinstance(x, (tuple, list)):
        return getattr(x, "_make", type(x))(_wrap(v) for v in x)
    return x


def _plain_tree(x: Any) -> Any:
    x = read(x)
    if isinstance(x, Tensor):
        return x.view(np.ndarray)
    if type(x) in (tuple, list):
        return type(x)(map(_plain_tree, x))
    return x


_NO_DERIVATIVE = "{} has no derivative for these arguments; use custom_gradient to give it one"
_WRITES = "{}: cannot write in place from or into a traced Tensor"


class _Slot:
    """Marks the place of a traced Tensor in the arguments of a NumPy function."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


def _fill(x: Any, values: Any) -> Any:
    if type(x) is _Slot:
        return values[x.index]
    if type(x) in (tuple, list):
        return type(x)(_fill(v, values) for v in x)
    return x


def _split(x: Any, name: str, traced: list[Tensor]) -> Any:
    """Arguments with every Tensor made plain, and a `_Slot` where it is traced."""
    x = read(x)
    if type(x) in (tuple, list):
        return type(x)(_split(v, name, traced) for v in x)
    node = getattr(x, "_node", None)
    if node is not None and _parents((node,), name)[0] is not None:
        if not isinstance(x, Tensor):
            raise NotImplementedError(f"{name}: cannot differentiate a {type(x).__name__}")
        traced.append(x)
        return _Slot(len(traced) - 1)
    return x.view(np.ndarray) if isinstance(x, Tensor) else x


def _pull_numpy(residual: Any, dy: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    name, vjp = residual
    try:
        gradients = vjp(dy)
    except Exception as error:
        raise NotImplementedError(_NO_DERIVATIVE.format(name)) from error
    return tuple(gradients) if isinstance(gradients, (tuple, list)) else (gradients,)


class _Independent(Exception):
    """autograd returned a value that does not depend on the traced arguments, or lost them."""


def _differentiate(name: str, function: Callable[..., Any], args: Any, traced: list[Tensor]) -> Any:
    """Run `function` of autograd's NumPy on `args`, whose slots stand for `traced`, and record."""

    def on_boxes(*boxes: Box) -> Box:
        value = function(*_fill(args, boxes))
        if not isinstance(value, Box):
            raise _Independent(name)
        return value

    argnum = 0 if len(traced) == 1 else tuple(range(len(traced)))
    with _tracing:
        forward = observed("forward", name, make_vjp(on_boxes, argnum))
        vjp, value = forward(*[t.view(np.ndarray) for t in traced])
    again = (function, args, traced) if len(_state.tapes) > 1 else None
    parents = tuple(t._node for t in traced)
    return _attach(value, name, parents, _pull_numpy, (name, vjp), source=again)


@functools.cache
def _twin(function: Callable[..., Any]) -> tuple[str, Callable[..., Any] | None]:
    """The name of a NumPy function, and the function of autograd.numpy that is its twin."""
    short = getattr(function, "__name__", repr(function))
    for prefix, numpy, twin in (("np", np, anp), ("np.linalg", np.linalg, anp.linalg), ("np.fft", np.fft, anp.fft)):
        if getattr(numpy, short, None) is function:
            return f"{prefix}.{short}", getattr(twin, short, None)
    return short, None


def _call(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """A NumPy function on Tensors and whatever can be read: recorded if one of them is traced."""
    if not _state.tapes or function in _CONSTANT:
        args = [x if type(x) in _ATOMS else _plain_tree(x) for x in args]
        return _wrap(function(*args, **{k: _plain_tree(v) for k, v in kwargs.items()} if kwargs else kwargs))
    name, twin = _twin(function)
    traced: list[Tensor] = []
    args = _split(args, name, traced)
    by_position = len(traced)
    kwargs = {k: _split(v, name, traced) for k, v in kwargs.items()}
    if not traced:
        return _wrap(function(*args, **kwargs))
    if function in _IN_PLACE or kwargs.get("out") is not None:
        raise TypeError(_WRITES.format(name))
    kwargs.pop("out", None)
    wrong = next((k for k in ("where", "initial") if kwargs.get(k, True) is not True), None)
    if wrong is not None:
        raise NotImplementedError(f"{name}: argument {wrong!r} is not differentiated")
    if function in _OURS:
        kwargs = {k: _fill(v, traced) for k, v in kwargs.items()}
        return _OURS[function](*_fill(args, traced), **kwargs)
    if len(traced) > by_position:
        raise NotImplementedError(f"{name}: pass the traced Tensor by position, not by keyword")
    if twin is None:
        raise NotImplementedError(f"{name} has no derivative; use custom_gradient to give it one")
    try:
        return _differentiate(name, lambda *a: twin(*a, **kwargs), args, traced)
    except Exception as error:
        cause = error
    # What is wrong with the arguments NumPy says better itself.
    function(*_fill(args, [t.view(np.ndarray) for t in traced]), **kwargs)
    raise NotImplementedError(_NO_DERIVATIVE.format(name)) from cause


def _array_ufunc(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    for x in inputs:
        if not isinstance(x, (np.ndarray, np.generic, Readable)) and hasattr(x, "__array_ufunc__"):
            return NotImplemented
    if method == "__call__" and not kwargs and not _state.tapes:
        return _wrap(ufunc(*[x.view(np.ndarray) if isinstance(x, Tensor) else read(x) for x in inputs]))
    out = kwargs.get("out", ())
    for x in out:
        if isinstance(x, Readable):
            raise TypeError(
                f"np.{ufunc.__name__}: a {type(x).__name__} cannot be written in place; "
                "use assign, assign_add or assign_sub"
            )
    if method == "__call__" and not out:
        return _call(ufunc, inputs, kwargs)
    if _state.tapes and any(is_traced(x) for x in (*out, *inputs)):
        if out:
            raise TypeError(_WRITES.format(f"np.{ufunc.__name__}"))
        if ufunc not in _CONSTANT:
            raise NotImplementedError(f"np.{ufunc.__name__}.{method} has no derivative")
    kwargs = {k: _plain_tree(v) for k, v in kwargs.items()}
    result = getattr(ufunc, method)(*_plain_tree(inputs), **kwargs)
    return _wrap(result) if not out else out[0] if len(out) == 1 else out


def _array_function(self: Any, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
    for kind in kinds:
        if not issubclass(kind, (np.ndarray, Readable)):
            return NotImplemented
    out = kwargs.get("out")
    result = _call(function, args, kwargs)
    return result if out is None else out


# ---- Tensor ------------------------------------------------------------------------------------


class Tensor(np.ndarray):
    """A NumPy array that a tape can follow; 0-d where NumPy has scalars.

    Every operator, ufunc, NumPy function and method gives Tensors and, inside an active tape, is
    recorded. A function without a derivative raises NotImplementedError; an array made where no
    tape can see (``t.view(...)``) raises RuntimeError in the next operation that meets it.
    ``t += x`` gives `t` a new value, as in TensorFlow; writing into a traced Tensor raises
    TypeError. ``np.asarray(t)``, ``float(t)``, ``t.item()`` and lists that NumPy makes an array
    from (``np.array([t, t])``; write ``np.stack``) leave the tape.
    """

    _node: Any = None
    __array_priority__ = 100.0
    __array_ufunc__ = _array_ufunc
    __array_function__ = _array_function  # type: ignore[assignment]

    def __array_finalize__(self, template: Any) -> None:
        if isinstance(template, Tensor) and template._node is not None:
            self._node = _Lost(template._node.tapes)

    def numpy(self) -> Any:
        """A copy as plain array, or NumPy scalar if 0-d."""
        return self.view(np.ndarray).copy()[()]

    def __getitem__(self, index: Any) -> Any:
        if self._node is not None and is_traced(self):
            return _getitem(self, index=_plain_tree(index))
        return _wrap(self.view(np.ndarray)[_plain_tree(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if is_traced(self) or is_traced(value):
            raise TypeError(_WRITES.format("Tensor"))
        self.view(np.ndarray)[_plain_tree(index)] = _plain_tree(value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def T(self) -> Tensor:
        return _call(np.transpose, (self,), {})

    @property
    def mT(self) -> Tensor:
        return _call(np.swapaxes, (self, -1, -2), {})

    @property
    def flat(self) -> Any:
        _refuse(self, "flat")
        return self.view(np.ndarray).flat

    def reshape(self, *shape: Any, order: str = "C") -> Tensor:  # type: ignore[override]
        return _call(np.reshape, (self, shape[0] if len(shape) == 1 else shape, order), {})

    def transpose(self, *axes: Any) -> Tensor:
        grouped = len(axes) == 1 and not isinstance(axes[0], int)
        return _call(np.transpose, (self, axes[0] if grouped else axes or None), {})

    def astype(self, dtype: DTypeLike, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        options = dict(zip(("order", "casting", "subok", "copy"), args, strict=False)) | kwargs
        return _cast(self, dtype=np.dtype(dtype), **options)

    def flatten(self, order: str = "C") -> Tensor:  # type: ignore[override]
        return _copy(_call(np.ravel, (self, order), {}))

    def copy(self, order: str = "C") -> Tensor:  # type: ignore[override]
        return _copy(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:  # type: ignore[override]
        return self.view(np.ndarray).copy().view(Tensor)

    def __repr__(self) -> str:
        return np.array_repr(self.view(np.ndarray)).replace("array(", "Tensor(", 1)

    def __str__(self) -> str:
        return str(self.view(np.ndarray))


def _refuse(tensor: Tensor, name: str) -> None:
    if is_traced(tensor):
        raise TypeError(f"Tensor.{name}: cannot be followed by a tape, and the Tensor is traced")


def _method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(getattr(np.ndarray, name))
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _call(function, (self, *args), kwargs)

    return method


def _untraced_method(name: str) -> Callable[..., Any]:
    native = getattr(np.ndarray, name)

    @functools.wraps(native)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        _refuse(self, name)
        return native(self, *args, **kwargs)

    return method


_METHODS = """all any argmax argmin argsort clip conj conjugate cumprod cumsum diagonal dot max mean min nonzero
    prod ravel repeat round searchsorted squeeze std sum swapaxes take trace var"""
for _name in _METHODS.split():
    setattr(Tensor, _name, _method(_name, getattr(np, _name)))
for _name in ("byteswap", "fill", "partition", "put", "resize", "setfield", "sort"):
    setattr(Tensor, _name, _untraced_method(_name))
# A Tensor is a value: an augmented assignment binds the name to the next one.
_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
for _name in _OPERATORS.split():
    setattr(Tensor, f"__i{_name}__", getattr(np.ndarray, f"__{_name}__"))


# What is neither read nor traced, told without a search for attributes.
_ATOMS = {np.ndarray, float, int, bool, str, type(None)}
_VALUES = {*_ATOMS, Tensor}
# Classes that an operation takes as they are, for an operand and for a parameter. Others join as they
# are met: it takes Python long to find out what a class lacks.
_operands: set[type] = {*_ATOMS}
_parameters: set[type] = {*_ATOMS}


# ---- operations --------------------------------------------------------------------------------


class _Buffer(np.ndarray):
    """The memory of a Variable. No view has this class, so NumPy keeps the first view of it as
    base of all others, and a weak reference to that one tells whether anyone still reads it."""


def _in_variable(x: Any) -> bool:
    while isinstance(x, np.ndarray):
        if type(x) is _Buffer:
            return True
        x = x.base
    return False


class Operation:
    """A differentiable operation; made by `operation`."""

    __name__: str

    # ``part(images, args, params)``: the arguments that compute only a range of the first axis of the value.
    part: Callable[..., Any] | None = None

    def __init__(self, forward: Callable[..., Any], recompute: int, linear: bool, joins: bool, parts: bool) -> None:
        functools.update_wrapper(self, forward)
        self._forward = forward
        self._backward: Callable[..., Any] | None = None
        self.effort = int(recompute)
        self._linear = linear
        self._joins = joins
        self._parts = parts
        signature = inspect.signature(forward)
        kept = [p for p in signature.parameters.values() if p.name != "traced"]
        self._wants_traced = len(kept) < len(signature.parameters)
        self.__signature__ = signature.replace(parameters=kept)

    def backward(self, function: Callable[..., Any]) -> Operation:
        """Decorate ``backward(residual, dy, needed)``, which must not write into `dy`.

        One that names a fourth parameter, `spare`, gets a `Spare`.
        """
        self._backward = _Linear(function) if self._linear else function
        if len(inspect.signature(function).parameters) == 4:
            self._backward = _Sparing(function, self._parts)
        return self

    def __call__(self, *args: Any, **params: Any) -> Any:
        values: list[Any] = []
        parents: list[Any] = []
        traced = False
        for x in args:
            node = None
            if type(x) is Tensor:
                node, x = x._node, x.view(np.ndarray)
            elif type(x) not in _ATOMS:
                if type(x) not in _operands:
                    x = convert_to_tensor(x) if type(x) in (list, tuple) else read(x)
                    if not isinstance(x, np.ndarray):
                        if hasattr(type(x), "_record_"):
                            return x._record_(self, args, params)  # a tensor that is yet to come
                        _operands.add(type(x))
                node = getattr(x, "_node", None)
                if isinstance(x, Tensor):
                    x = x.view(np.ndarray)
            if node is not None:
                node = _parent(node, self.__name__)
                traced = traced or node is not None
            values.append(x)
            parents.append(node)
        for key, x in params.items():
            if type(x) not in _parameters:
                params[key] = self._parameter(key, x)
        forward = self._forward if _observer is None else _observer("forward", self.__name__, self._forward)
        if self._wants_traced:
            params["traced"] = tuple([p is not None for p in parents]) if traced else (False,) * len(parents)
        value, residual = forward(*values, **params)
        if not traced:
            return _wrap(value)
        if self._backward is None:
            raise NotImplementedError(f"{self.__name__} has no derivative")
        if residual is not None:
            residual = _without_arguments(residual, values, parents)
        again = self._again(values, parents, params) if self.effort else None
        return _attach(value, self.__name__, tuple(parents), self._backward, residual, again)

    def _parameter(self, key: str, x: Any) -> Any:
        """A parameter as `forward` gets it."""
        if not isinstance(x, Tensor) and not hasattr(type(x), "_read_"):
            _parameters.add(type(x))
            return x
        if is_traced(x):
            raise TypeError(
                f"{self.__name__}: argument {key!r} is a parameter and not differentiated; "
                "expected an untraced value, received a traced Tensor (stop_gradient it)"
            )
        return plain(x)

    def _again(self, values: list[Any], parents: Any, params: dict[str, Any]) -> Any:
        """How to get the value again. An array stands there as its node, which may not have it then."""
        args: list[Any] = []
        for x, parent in zip(values, parents, strict=True):
            if not isinstance(x, np.ndarray) or _in_variable(x):
                args.append(x)
            elif parent is None:
                node = Node("constant", frozenset(), x)
                node.kept = node.array
                args.append(node)
            elif self._joins and parent.recompute is not None and parent.recompute[::2] == (self, params):
                args += parent.recompute[1]
            else:
                args.append(parent)
        if self._wants_traced:
            params = {**params, "traced": (False,) * len(args)}
        return self, args, params


# ---- values that are computed again ------------------------------------------------------------

# What may be computed on the way to a value, as a multiple of its bytes. In a chain of elementwise
# operations one that is too far from its beginning is kept instead.
_DETOUR = 8


class _Later:
    """In a residual, an argument that will be computed again, and what is kept for that."""

    __slots__ = ("kept", "node")

    def __init__(self, node: Node, kept: list[np.ndarray]) -> None:
        self.node, self.kept = node, kept


def _without_arguments(residual: Any, values: list[Any], parents: Any) -> Any:
    """`residual` with a `_Later` in the place of every argument that is better computed again."""
    if type(residual) is not tuple:
        return _without_arguments((residual,), values, parents)[0]
    kept = None
    for x, parent in zip(values, parents, strict=True):
        if parent is not None and type(x) is np.ndarray:
            for i, r in enumerate(residual):
                if r is x:
                    kept = kept or list(residual)
                    kept[i] = _keep(x, parent)
    return residual if kept is None else tuple(kept)


# Bytes of a value that is not worth to be computed again at such an effort.
_SMALL = 1 << 21


def _keep(x: np.ndarray, node: Node) -> Any:
    """What stands in a residual for the value `x` of `node`: itself or a `_Later`, whichever keeps fewer bytes."""
    again = None if node.kept() is not None else node.recompute
    if again is not None and (x.nbytes > _SMALL or again[0].effort < _DETOUR):
        roots: list[Node] = []
        if _reach(again[1], _DETOUR * x.nbytes - x.nbytes, roots) >= 0:
            more = {id(root): root for root in roots if root.kept() is None}.values()
            if sum([root.array().nbytes for root in more]) < x.nbytes:
                for root in more:
                    root.kept = root.array
                return _Later(node, [root.kept() for root in roots])
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


class _Values:
    """The values that one walk has computed again: each is held while another residual asks for it."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._wanted: collections.Counter[Node] = collections.Counter()
        self._asking: set[Node] = set()
        for node in nodes:
            residual = node.residual
            for r in residual if type(residual) is tuple else (residual,):
                if type(r) is _Later:
                    self._wanted[r.node] += 1
                    self._asking.add(node)
        self.held: dict[Node, np.ndarray] = {}

    def residual(self, node: Node) -> Any:
        """That of a node with every array in its place."""
        residual = node.residual
        if node not in self._asking:
            return residual
        if type(residual) is tuple:
            parts = type(node.backward) is _Sparing and node.backward.parts
            return tuple([self._asked(r, parts) if type(r) is _Later else r for r in residual])
        return self._asked(residual) if type(residual) is _Later else residual

    def _asked(self, later: _Later, parts: bool = False) -> Any:
        node = later.node
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


# ---- memory that may be written again -----------------------------------------------------------

# References to an array, and to the one it is a view of, as `_alone` counts them of an array that
# only its caller has.
_ALONE = [0, 0]


def _alone(x: Any, others: int = 0) -> bool:
    """Whether only the caller, and as many `others` as it knows of, can see the memory of an array."""
    if type(x) is not np.ndarray or not x.flags.carray or sys.getrefcount(x) > _ALONE[0] + others:
        return False
    base = x.base
    if base is None:
        return x.flags.owndata
    return type(base) is np.ndarray and base.flags.owndata and sys.getrefcount(base) <= _ALONE[1]


def _calibrate() -> None:
    array: np.ndarray = np.empty(2)
    while not _alone(array):
        _ALONE[0] += 1
    array = array.copy().reshape(1, 2)
    while not _alone(array):
        _ALONE[1] += 1


# Without a global lock the counts of other threads are not seen.
if getattr(sys, "_is_gil_enabled", lambda: True)():
    _calibrate()


class Spare:
    """Arrays of a backward that nobody will read again."""

    __slots__ = ("_arrays", "_gradients", "_parents")

    def __init__(
        self, arrays: list[np.ndarray], gradients: dict[Node, Any] | None = None, parents: tuple[Any, ...] = ()
    ) -> None:
        self._arrays, self._gradients, self._parents = arrays, gradients, parents

    def __call__(self, like: np.ndarray) -> np.ndarray:
        """An array for a result of the shape and dtype of `like`, perhaps dy or a value of the residual.

        It is contiguous. What is written to an element must not depend on another element of dy or the residual that
        may have been overwritten by then.
        """
        for i, array in enumerate(self._arrays):
            if array.shape == like.shape and array.dtype == like.dtype:
                return self._arrays.pop(i)
        return np.empty(like.shape, like.dtype)

    def same(self, x: np.ndarray) -> np.ndarray:
        """A value of the residual itself, if it may be written over, else a new array like it."""
        for i, array in enumerate(self._arrays):
            if array is x:
                return self._arrays.pop(i)
        return np.empty(x.shape, x.dtype)

    def begun(self, index: int) -> np.ndarray | None:
        """The sum of what others gave as gradient of a positional argument, if there is one that nobody else has.

        A backward may add its own to it and return it.
        """
        gradient = self._gradients.get(self._parents[index]) if self._gradients else None
        return gradient if gradient is not None and _alone(gradient, 1) else None


def operation(
    forward: Callable[..., Any] | None = None,
    *,
    recompute: int = False,
    linear: bool = False,
    joins: bool = False,
    parts: bool = False,
) -> Any:
    """Make a forward function a differentiable operation.

    Parameters
    ----------
    forward : callable
        ``forward(*args, **params)`` returns ``(value, residual)``. Positional arguments may be
        differentiated, keywords are parameters. It gets plain arrays in the place of Tensors and
        of whatever has `_read_()`, and `traced` (one bool per positional argument) if its
        signature names that. The value is an array, a BitArray, or a tuple of them.
    recompute : bool or int, optional
        Whether to run forward again is cheap and gives the same bits; 2 if it takes about twice as
        long as an elementwise operation. The value then need not be kept by those who read it, if
        every argument can be had again as well, or if to keep those takes fewer bytes.
    linear : bool, optional
        Whether backward is made of recorded operations and its residual depends on no traced
        value, so that it can be differentiated again.
    joins : bool, optional
        Whether the value is the arguments one after the other, so that nested calls with the same
        parameters could be one, and backward takes the value itself apart.
    parts : bool, optional
        Whether a backward that names `spare` takes `Parts` in the place of an argument in its residual.

    Returns
    -------
    Operation
        Whose `backward` decorates ``backward(residual, dy, needed)``: one gradient per positional
        argument, None where `needed` is false. The tape sums it over broadcast axes and casts it.
        Where the operation has several values, `dy` is a tuple.
    """
    if forward is None:
        return functools.partial(operation, recompute=recompute, linear=linear, joins=joins, parts=parts)
    return Operation(forward, recompute, linear, joins, parts)


@operation(linear=True)
def _getitem(x, *, index):
    return x[index], (x.shape, index)


@_getitem.backward
def _getitem(residual, dy, needed):
    shape, index = residual
    return (_put(dy, shape=shape, index=index),)


@operation(linear=True)
def _put(x, *, shape, index):
    y = np.zeros(shape, x.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) for p in parts):
        y[index] = x
    else:
        np.add.at(y, index, x)
    return y, index


@_put.backward
def _put(index, dy, needed):
    return (dy[index],)


@operation(linear=True)
def _copy(x):
    return x.copy(), None


@_copy.backward
def _copy(residual, dy, needed):
    return (dy,)


@operation(linear=True)
def _cast(x, *, dtype, **options):
    return x.astype(dtype, **options), None


@_cast.backward
def _cast(residual, dy, needed):
    return (dy,)


@operation(linear=True)
def _broadcast_to(x, *, shape):
    return np.broadcast_to(x, shape), None


@_broadcast_to.backward
def _broadcast_to(residual, dy, needed):
    return (dy,)


@operation(recompute=True, linear=True)
def add(x, y):
    """``x + y``."""
    return x + y, None


@add.backward
def add(residual, dy, needed):
    return dy if needed[0] else None, dy if needed[1] else None


@operation(linear=True)
def _where(condition, x, y):
    return np.where(condition, x, y), condition


@_where.backward
def _where(condition, dy, needed):
    zero = dy.dtype.type(0)
    return (
        None,
        np.where(condition, dy, zero) if needed[1] else None,
        np.where(condition, zero, dy) if needed[2] else None,
    )


@operation(linear=True)
def _clip(x, *, low, high):
    inside = np.ones(np.broadcast_shapes(x.shape, np.shape(low), np.shape(high)), bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return np.clip(x, low, high), inside


@_clip.backward
def _clip(inside, dy, needed):
    return (np.where(inside, dy, dy.dtype.type(0)),)


def _clip_numpy(a, a_min=None, a_max=None, *, min=None, max=None):
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    return _clip(a, low=low, high=high)


# NumPy's functions that autograd lacks or gives another derivative than TensorFlow: broadcasting
# in where and broadcast_to, and the ends of clip's interval, which belong to it. And addition, for
# which autograd keeps both arguments.
_OURS: dict[Any, Callable[..., Any]] = {
    np.add: lambda x, y, dtype=None: add(x, y) if dtype is None else add(x, y).astype(dtype),
    np.astype: lambda x, dtype, **options: _cast(x, dtype=np.dtype(dtype), **options),
    np.broadcast_to: lambda array, shape, **_: _broadcast_to(array, shape=shape),
    np.clip: _clip_numpy,
    np.copy: lambda a, **_: _copy(a),
    np.positive: _copy,
    np.where: lambda c, *xy: _where(c, *xy) if xy else _call(np.nonzero, (c,), {}),
}

# Their derivative is zero or they have none: the result is a constant.
_NAMES = """all allclose any argmax argmin argpartition argsort argwhere around array_equal array_equiv array_repr
    array_str bincount ceil count_nonzero digitize empty_like equal fix flatnonzero floor floor_divide full_like
    greater greater_equal histogram isclose isfinite isin isinf isnan isneginf isposinf iscomplex iscomplexobj isreal
    isrealobj less less_equal logical_and logical_not logical_or logical_xor may_share_memory ndim nonzero not_equal
    ones_like result_type rint round searchsorted shape shares_memory sign signbit size trunc unique zeros_like"""
_CONSTANT = {getattr(np, name) for name in _NAMES.split() if hasattr(np, name)}
_IN_PLACE = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}


# ---- Variable ----------------------------------------------------------------------------------


class Readable(NDArrayOperatorsMixin):
    """Whatever stands for a current value: operators, NumPy functions and conversions read it.

    A subclass gives `_read_()`, which returns a Tensor. One that stands for another Readable or
    Tensor may name it in `_source_`: gradients are then asked for with either.
    """

    __array_priority__ = 150.0
    __array_ufunc__ = _array_ufunc
    __array_function__ = _array_function
    # Comparisons are elementwise; as a key or in a set an object stands for itself.
    __hash__ = object.__hash__

    def _read_(self) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define _read_()")

    def value(self) -> Tensor:
        """The current value."""
        return read(self)

    def numpy(self) -> Any:
        """A copy of the current value as plain array, or NumPy scalar if 0-d."""
        return read(self).numpy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(plain(self), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        return read(self)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(read(self))

    def __len__(self) -> int:
        return len(plain(self))

    def __bool__(self) -> bool:
        return bool(plain(self))

    def __float__(self) -> float:
        return float(plain(self))

    def __int__(self) -> int:
        return int(plain(self))

    def __index__(self) -> int:
        return plain(self).__index__()

    def __format__(self, spec: str) -> str:
        return format(plain(self), spec)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the current value."""
        return read(self).shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the current value."""
        return read(self).dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


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
        self._fill_buffer(_array(initial_value, dtype))

    def _fill_buffer(self, value: np.ndarray) -> None:
        if value.dtype.hasobject:
            raise TypeError(f"Variable {self.name!r}: expected numbers, received {value.dtype}")
        # It must own its memory, or NumPy would see through it to the array that does.
        self._buffer = _Buffer(value.shape, value.dtype)
        self._buffer[...] = value
        self._view: weakref.ref[np.ndarray] | None = None

    def _snapshot(self) -> np.ndarray:
        view = None if self._view is None else self._view()
        if view is None:
            view = self._buffer.view(np.ndarray)
            view.flags.writeable = False
            self._view = weakref.ref(view)
        return view

    def _read_(self) -> Tensor:
        view = self._snapshot()
        tensor = view.view(Tensor)
        if _state.reads is not None:
            _state.reads.append(self)
        if _state.tapes:
            tensor._node = self._leaf(view)
        return tensor

    def _leaf(self, view: np.ndarray) -> Node | None:
        """The node of this version: one for all reads, and it holds the value they saw."""
        if view.dtype.kind not in "fc":
            return None
        leaves = []
        node: Any = None
        for tape in _state.tapes:
            if tape.watches(self):
                nodes = tape.leaves.setdefault(id(self), (self, []))[1]
                leaves.append((tape, nodes))
                for known in nodes:
                    if known.kept() is view:
                        node = known
        if leaves and node is None:
            node = Node(self.name, _NONE, view)
            node.kept = lambda: view
        for tape, nodes in leaves:
            if tape not in node.tapes:
                tape.adopt(node)
                nodes.append(node)
        return node

    def _writable_(self) -> np.ndarray:
        """The memory of the value, to be changed by the caller at once; counts as an update."""
        if self._view is not None and self._view() is not None:
            self._fill_buffer(self._buffer.view(np.ndarray))
        self.version += 1
        return self._buffer.view(np.ndarray)

    def numpy(self) -> Any:
        return self._buffer.view(np.ndarray).copy()[()]

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
        state = {k: v for k, v in self.__dict__.items() if k not in ("_buffer", "_view")}
        return state | {"value": self._buffer.view(np.ndarray).copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        value = state.pop("value")
        self.__dict__.update(state)
        self._fill_buffer(value)

    def __repr__(self) -> str:
        return (
            f"<Variable {self.name!r} shape={self.shape} dtype={self.dtype} "
            f"numpy={np.array_repr(self._buffer.view(np.ndarray))}>"
        )


# ---- making and unmaking Tensors ---------------------------------------------------------------


def _array(value: Any, dtype: DTypeLike | None) -> np.ndarray:
    """A plain array; Python numbers become float32 and int32, as in TensorFlow."""
    value = read(value)
    if dtype is None and not hasattr(value, "dtype"):
        first = value
        while isinstance(first, (list, tuple)) and first:
            first = first[0]
        array = np.asarray(value)
        if not hasattr(first, "dtype"):
            dtype = {"float64": np.float32, "int64": np.int32}.get(array.dtype.name)
        return array if dtype is None else array.astype(dtype)
    array = np.asarray(value)
    return array if dtype is None else array.astype(dtype, copy=False)


def constant(value: Any, dtype: DTypeLike | None = None, shape: Any = None) -> Tensor:
    """A Tensor with a copy of `value`, that no tape follows until it is watched.

    Parameters
    ----------
    value : array_like
        Python numbers become float32 and int32.
    dtype : dtype, optional
    shape : tuple of int, optional
        A scalar is broadcast to it, anything else reshaped.
    """
    array = np.array(_array(value, dtype))
    if shape is not None:
        array = np.full(shape, array) if array.size == 1 else array.reshape(shape)
    return array.view(Tensor)


def convert_to_tensor(value: Any, dtype: DTypeLike | None = None) -> Tensor:
    """`value` as Tensor: a Tensor stays itself, a Variable is read, lists of Tensors are stacked."""
    value = read(value)
    if type(value) in (list, tuple) and any(is_traced(v) for v in value):
        value = np.stack([convert_to_tensor(v) for v in value])
    if isinstance(value, Tensor):
        return value if dtype is None or value.dtype == np.dtype(dtype) else value.astype(dtype)
    if hasattr(type(value), "_record_"):  # a tensor that is yet to come
        return value
    return _array(value, dtype).view(Tensor)


def stop_gradient(x: Any) -> Tensor:
    """The value of `x` as a Tensor through which no gradient flows."""
    return plain(x).view(Tensor)


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
        parents = _parents(nodes, name)
        before, _state.reads = _state.reads, []
        try:
            with _recording_on(frozenset()):
                inputs = [plain(x).view(Tensor) if isinstance(x, np.ndarray) else x for x in values]
                value, grad = observed("forward", name, f)(*inputs, **kwargs)
        finally:
            inner, _state.reads = _state.reads, before
            if before is not None:
                before += inner
        seen = {id(v): v for v in inner}.values()
        variables = [v for v in seen if any(t.watches(v) for t in _state.tapes)]
        value = tuple(map(plain, value)) if isinstance(value, (tuple, list)) else plain(value)
        parents += tuple(Variable._read_(v)._node for v in variables)
        if not any(p is not None for p in parents):
            return _wrap(value)
        if variables and "variables" not in inspect.signature(grad).parameters:
            raise TypeError(f"{name}: it reads Variables, so its gradient function must accept 'variables'")
        return _attach(value, name, parents, _pull_custom, (name, grad, variables))

    return wrapper


def _differentiable(x: Any) -> bool:
    return isinstance(x, (np.ndarray, Number))


def _pull_custom(residual: Any, dy: Any, needed: tuple[bool, ...]) -> tuple[Any, ...]:
    name, grad, variables = residual
    dys = [_wrap(d) for d in dy] if isinstance(dy, tuple) else [_wrap(dy)]
    if variables:
        gradients, of_variables = grad(*dys, variables=variables)
    else:
        gradients, of_variables = grad(*dys), ()
    gradients = gradients if isinstance(gradients, (tuple, list)) else (gradients,)
    return (*gradients, *of_variables)


# ---- GradientTape ------------------------------------------------------------------------------


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
        self._recording = _Recording(watch_accessed_variables)

    def __enter__(self) -> GradientTape:
        if self._recording in _state.tapes:
            raise ValueError("GradientTape: the tape is already recording")
        _state.tapes |= {self._recording}
        return self

    def __exit__(self, *error: Any) -> None:
        _state.tapes -= {self._recording}

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
            with _watching:
                self._watch(x)

    def _watch(self, x: Tensor) -> None:
        node = x._node
        if node is not None and not _state.tapes.isdisjoint(node.tapes):
            _parents((node,), "GradientTape.watch")
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
        if self._recording not in _state.tapes:
            raise RuntimeError("GradientTape.stop_recording: the tape is not recording")
        with _recording_on(_state.tapes - {self._recording}):
            yield

    def reset(self) -> None:
        """Forget everything recorded so far."""
        old, self._recording = self._recording, _Recording(self._recording.watches_variables)
        if old in _state.tapes:
            _state.tapes = (_state.tapes - {old}) | {self._recording}
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
        wanted = [self._nodes(_origin(x)) for x in _flatten(sources)]
        seeds = self._seeds(target, output_gradients)
        outer = _state.tapes - {recording}
        try:
            recording.spent = not self._persistent
            with _recording_on(outer):
                found = _walk(recording, seeds, {n for nodes in wanted for n in nodes}, outer)
                gradients = iter(
                    [
                        functools.reduce(np.add, g) if (g := [found[n] for n in nodes if n in found]) else None
                        for nodes in wanted
                    ]
                )
        finally:
            if not self._persistent:
                _state.tapes -= {recording}
                recording.close()

        def answer(source: Any) -> Any:
            gradient = next(gradients)
            if gradient is None and unconnected == "zero":
                return np.zeros(source.shape, source.dtype).view(Tensor)
            return _wrap(gradient)

        return _map(answer, sources)

    def _nodes(self, x: Any) -> list[Node]:
        """The nodes of this tape that stand for `x`: several for a Variable that was assigned."""
        if isinstance(x, Variable):
            return list(self._recording.leaves.get(id(x), (x, []))[1])
        if not isinstance(x, Tensor) and not hasattr(x, "_with_node"):
            raise TypeError(
                "GradientTape.gradient: expected Tensors or Variables, "
                f"received {type(x).__name__}; make it one with constant()"
            )
        node = x._node
        if node is None or self._recording not in node.tapes:
            return []
        if type(node) is _Lost:
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
            for node in self._nodes(_origin(x))[-1:]:
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


def _map(function: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _map(function, v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return getattr(x, "_make", type(x))([_map(function, v) for v in x])
    return function(x)


_BY_ORDER = operator.attrgetter("order")


def _walk(
    recording: _Recording, seeds: list[tuple[Node, Any]], sources: set[Node], outer: frozenset
) -> dict[Node, Any]:
    """Gradients of the sources. A node is freed when the walk has passed it and no other tape
    wants it; it was recorded after its parents, so the order of recording is the way back."""
    reached = {node for node, _ in seeds}
    pending = list(reached)
    while pending:
        for parent in pending.pop().parents:
            if parent is not None and parent not in reached and recording in parent.tapes:
                reached.add(parent)
                pending.append(parent)
    order = sorted(reached, key=_BY_ORDER)
    reached.clear()
    # Which of its parents a node passes gradients to: those that lead to a source.
    leading = set(sources)
    needs: dict[Node, tuple[bool, ...]] = {}
    for node in order:
        if not leading.isdisjoint(node.parents):
            needs[node] = tuple([parent in leading for parent in node.parents])
            leading.add(node)
    gradients: dict[Node, Any] = {}
    for node, dy in seeds:
        _accumulate(gradients, node, dy, "output_gradients")
    values = _Values(needs)
    while order:
        node = order.pop()
        needed = needs.pop(node, None)
        dy = gradients.get(node) if node in sources else gradients.pop(node, None)
        if dy is not None and needed is not None:
            owned = type(node.backward) is _Sparing and _alone(dy)
            pulled = list(_pull(node, dy, needed, values, outer, owned, gradients))[::-1]
            dy = None
            for parent, need in zip(node.parents, needed, strict=True):
                # Popped, since one that nobody else has may be written to.
                if not need or pulled[-1] is None:
                    pulled.pop()
                else:
                    _accumulate(gradients, parent, pulled.pop(), node.name)
        if values.held:
            values.pass_by(node)
        if recording.spent:
            _release(node)
        del node, dy
        if recording.passed is not None:
            recording.passed()
    return gradients


def _pull(
    node: Node,
    dy: Any,
    needed: tuple[bool, ...],
    values: _Values,
    outer: frozenset,
    owned: bool,
    found: dict[Node, Any],
) -> Any:
    if isinstance(node.shape, list):
        parts = zip(dy, node.shape, strict=True)
        dy = node.dtype(np.zeros(*like) if d is None else d for d, like in parts)
    if outer and node.source is not None:
        return _pull_again(node, dy)
    backward = node.backward if _observer is None else _observer("backward", node.name, node.backward)
    if type(node.backward) is _Linear:
        return backward(values.residual(node), dy, needed)
    residual, dy = values.residual(node), dy if type(dy) is np.ndarray else _plain_tree(dy)
    if type(node.backward) is _Sparing and not outer:
        arrays = [dy] if owned else []
        if type(residual) is tuple:
            arrays += [r for r in residual if _alone(r, 1)]
        gradients = backward(residual, dy, needed, Spare(arrays, found, node.parents))
    elif outer:
        with _recording_on(_NONE):
            gradients = backward(residual, dy, needed)
    else:
        gradients = backward(residual, dy, needed)
    if len(gradients) != len(needed):
        raise ValueError(f"gradient of {node.name}: expected {len(needed)} gradients, received {len(gradients)}")
    if not outer:
        return gradients
    parents = _parents([*node.parents, *(getattr(d, "_node", None) for d in _flatten(dy))], "")
    if not any(p is not None for p in parents):
        return gradients
    return [
        g
        if g is None or isinstance(g, _Item)
        else _attach(plain(g), node.name, parents, _no_second_derivative, node.name)
        for g in gradients
    ]


def _pull_again(node: Node, dy: Any) -> Any:
    """Gradients of a NumPy function, recorded by the outer tapes as a function of dy and args."""
    function, args, traced = node.source
    argnum = tuple(range(len(traced)))

    def gradients(dy: Any, *values: Any) -> Any:
        return make_vjp(lambda *boxes: function(*_fill(args, boxes)), argnum)(*values)[0](dy)

    followed: list[Tensor] = []
    values = _split((dy, *traced), node.name, followed)
    try:
        return _differentiate(node.name, gradients, values, followed)
    except _Independent:
        return gradients(*_fill(values, [plain(t) for t in followed]))


def _no_second_derivative(name: str, dy: Any, needed: Any) -> Any:
    raise NotImplementedError(f"{name} has no second derivative")


def _accumulate(gradients: dict[Node, Any], node: Node, gradient: Any, name: str) -> None:
    if isinstance(gradient, _Item):
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
            out = gradient if _alone(gradient) else before if _alone(before) else None
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
            if _in_variable(x):
                continue
            while isinstance(x.base, np.ndarray):
                x = x.base
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, np.ndarray):
            total += x.nbytes
        elif isinstance(x, _Later):
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
