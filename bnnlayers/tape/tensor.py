"""The array that a tape follows, and how NumPy's functions are dispatched and differentiated."""

from __future__ import annotations

import functools
import math
import operator
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.extend import Box
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from .nodes import Lost, Node, observed, pull_item, recorded, state

# HIPS numbers its traces with one global counter, so an inner trace is only sure to get the
# higher number while no other thread starts or ends one.
_tracing = threading.RLock()

_FLOAT = np.dtype(np.float32)

# What is neither read nor traced, told without a search for attributes.
ATOMS = {np.ndarray, float, int, bool, str, type(None)}
# Classes that are values themselves. Others join as they are met: it takes Python long to find out what a class lacks.
operands: set[type] = {*ATOMS}


def attach(
    value: Any,
    name: str,
    parents: tuple[Any, ...],
    backward: Any,
    residual: Any,
    recompute: Any = None,
    source: Any = None,
    integers: bool = False,
) -> Any:
    """The value of an operation as Tensor (or BitArray, or tuple of them) with its node.

    If `integers`, an array of integers stands for one in float32.
    """
    tapes = state.tapes
    if len(tapes) > 1:
        tapes = tapes & frozenset().union(*[p.tapes for p in parents if p is not None])
    if type(value) is np.ndarray and (value.dtype.kind in "fc" or integers):
        tensor = value.view(Tensor)
        tensor._node = node = Node(name, tapes, value, parents, backward, residual, recompute, source)
        if value.dtype.kind == "i":
            node.dtype = _FLOAT
        return tensor
    if hasattr(value, "_with_node"):
        return value._with_node(Node(name, tapes, value, parents, backward, residual, recompute, source))
    if isinstance(value, (tuple, list)):
        value = type(value)(wrap(v) for v in value)
        whole = Node(name, tapes, value, parents, backward, residual, recompute, source)
        return type(value)(_carry(v, Node("item", tapes, v, (whole,), pull_item, i)) for i, v in enumerate(value))
    value = np.asarray(value)
    if value.dtype.kind not in "fc":
        return value.view(Tensor)
    return _carry(value, Node(name, tapes, value, parents, backward, residual, recompute, source))


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


def read(x: Any) -> Any:
    """The current Tensor of whatever has `_read_()`, a Variable say; anything else unchanged."""
    while type(x) not in operands and type(x) is not Tensor and hasattr(type(x), "_read_"):
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
    return bool(state.tapes) or state.reads is not None


def is_traced(x: Any) -> bool:
    """Whether an operation on `x` would now be recorded by a tape of this thread."""
    if not state.tapes:
        return False
    node = getattr(read(x), "_node", None)
    return node is not None and not state.tapes.isdisjoint(node.tapes)


def wrap(x: Any) -> Any:
    """NumPy's results as Tensors: arrays, scalars (0-d), and tuples or lists of them."""
    if type(x) is np.ndarray:
        return x.view(Tensor)
    if isinstance(x, np.generic):
        return np.asarray(x).view(Tensor)
    if isinstance(x, (tuple, list)):
        return getattr(x, "_make", type(x))(wrap(v) for v in x)
    return x


def plain_tree(x: Any) -> Any:
    x = read(x)
    if isinstance(x, Tensor):
        return x.view(np.ndarray)
    if type(x) in (tuple, list):
        return type(x)(map(plain_tree, x))
    return x


_NO_DERIVATIVE = "{} has no derivative for these arguments; use custom_gradient to give it one"
_WRITES = "{}: cannot write in place from or into a traced Tensor"


class _Slot:
    """Marks the place of a traced Tensor in the arguments of a NumPy function."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


def fill_slots(x: Any, values: Any) -> Any:
    if type(x) is _Slot:
        return values[x.index]
    if type(x) in (tuple, list):
        return type(x)(fill_slots(v, values) for v in x)
    return x


def take_traced(x: Any, name: str, traced: list[Tensor]) -> Any:
    """Arguments with every Tensor made plain, and a `_Slot` where it is traced."""
    x = read(x)
    if type(x) in (tuple, list):
        return type(x)(take_traced(v, name, traced) for v in x)
    node = getattr(x, "_node", None)
    if node is not None and recorded(node, name) is not None:
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


class Independent(Exception):
    """autograd returned a value that does not depend on the traced arguments, or lost them."""


def differentiate(name: str, function: Callable[..., Any], args: Any, traced: list[Tensor]) -> Any:
    """Run `function` of autograd's NumPy on `args`, whose slots stand for `traced`, and record."""

    def on_boxes(*boxes: Box) -> Box:
        value = function(*fill_slots(args, boxes))
        if not isinstance(value, Box):
            raise Independent(name)
        return value

    argnum = 0 if len(traced) == 1 else tuple(range(len(traced)))
    with _tracing:
        forward = observed("forward", name, make_vjp(on_boxes, argnum))
        vjp, value = forward(*[t.view(np.ndarray) for t in traced])
    again = (function, args, traced) if len(state.tapes) > 1 else None
    parents = tuple(t._node for t in traced)
    return attach(value, name, parents, _pull_numpy, (name, vjp), source=again)


@functools.cache
def _twin(function: Callable[..., Any]) -> tuple[str, Callable[..., Any] | None]:
    """The name of a NumPy function, and the function of autograd.numpy that is its twin."""
    short = getattr(function, "__name__", repr(function))
    for prefix, numpy, twin in (("np", np, anp), ("np.linalg", np.linalg, anp.linalg), ("np.fft", np.fft, anp.fft)):
        if getattr(numpy, short, None) is function:
            return f"{prefix}.{short}", getattr(twin, short, None)
    return short, None


def call_numpy(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """A NumPy function on Tensors and whatever can be read: recorded if one of them is traced."""
    if not state.tapes or function in _CONSTANT:
        args = [x if type(x) in ATOMS else plain_tree(x) for x in args]
        return wrap(function(*args, **{k: plain_tree(v) for k, v in kwargs.items()} if kwargs else kwargs))
    name, twin = _twin(function)
    traced: list[Tensor] = []
    args = take_traced(args, name, traced)
    by_position = len(traced)
    kwargs = {k: take_traced(v, name, traced) for k, v in kwargs.items()}
    if not traced:
        return wrap(function(*args, **kwargs))
    if function in _IN_PLACE or kwargs.get("out") is not None:
        raise TypeError(_WRITES.format(name))
    kwargs.pop("out", None)
    wrong = next((k for k in ("where", "initial") if kwargs.get(k, True) is not True), None)
    if wrong is not None:
        raise NotImplementedError(f"{name}: argument {wrong!r} is not differentiated")
    if function in OURS:
        kwargs = {k: fill_slots(v, traced) for k, v in kwargs.items()}
        return OURS[function](*fill_slots(args, traced), **kwargs)
    if len(traced) > by_position:
        raise NotImplementedError(f"{name}: pass the traced Tensor by position, not by keyword")
    if twin is None:
        raise NotImplementedError(f"{name} has no derivative; use custom_gradient to give it one")
    try:
        return differentiate(name, lambda *a: twin(*a, **kwargs), args, traced)
    except Exception as error:
        cause = error
    # What is wrong with the arguments NumPy says better itself.
    function(*fill_slots(args, [t.view(np.ndarray) for t in traced]), **kwargs)
    raise NotImplementedError(_NO_DERIVATIVE.format(name)) from cause


def _array_ufunc(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    for x in inputs:
        if not isinstance(x, (np.ndarray, np.generic, Readable)) and hasattr(x, "__array_ufunc__"):
            return NotImplemented
    if method == "__call__" and not kwargs and not state.tapes:
        return wrap(ufunc(*[x.view(np.ndarray) if isinstance(x, Tensor) else read(x) for x in inputs]))
    out = kwargs.get("out", ())
    for x in out:
        if isinstance(x, Readable):
            raise TypeError(
                f"np.{ufunc.__name__}: a {type(x).__name__} cannot be written in place; "
                "use assign, assign_add or assign_sub"
            )
    if method == "__call__" and not out:
        return call_numpy(ufunc, inputs, kwargs)
    if state.tapes and any(is_traced(x) for x in (*out, *inputs)):
        if out:
            raise TypeError(_WRITES.format(f"np.{ufunc.__name__}"))
        if ufunc not in _CONSTANT:
            raise NotImplementedError(f"np.{ufunc.__name__}.{method} has no derivative")
    kwargs = {k: plain_tree(v) for k, v in kwargs.items()}
    result = getattr(ufunc, method)(*plain_tree(inputs), **kwargs)
    return wrap(result) if not out else out[0] if len(out) == 1 else out


def _array_function(self: Any, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
    for kind in kinds:
        if not issubclass(kind, (np.ndarray, Readable)):
            return NotImplemented
    out = kwargs.get("out")
    result = call_numpy(function, args, kwargs)
    return result if out is None else out


# NumPy's functions, and indexing, that are operations of ours when something is traced.
OURS: dict[Any, Callable[..., Any]] = {}

# Their derivative is zero or they have none: the result is a constant.
_NAMES = """all allclose any argmax argmin argpartition argsort argwhere around array_equal array_equiv array_repr
    array_str bincount ceil count_nonzero digitize empty_like equal fix flatnonzero floor floor_divide full_like
    greater greater_equal histogram isclose isfinite isin isinf isnan isneginf isposinf iscomplex iscomplexobj isreal
    isrealobj less less_equal logical_and logical_not logical_or logical_xor may_share_memory ndim nonzero not_equal
    ones_like result_type rint round searchsorted shape shares_memory sign signbit size trunc unique zeros_like"""
_CONSTANT = {getattr(np, name) for name in _NAMES.split() if hasattr(np, name)}
_IN_PLACE = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}


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
            self._node = Lost(template._node.tapes)

    def numpy(self) -> Any:
        """A copy as plain array, or NumPy scalar if 0-d."""
        return self.view(np.ndarray).copy()[()]

    def __getitem__(self, index: Any) -> Any:
        if self._node is not None and is_traced(self):
            return OURS[operator.getitem](self, index=plain_tree(index))
        return wrap(self.view(np.ndarray)[plain_tree(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if is_traced(self) or is_traced(value):
            raise TypeError(_WRITES.format("Tensor"))
        self.view(np.ndarray)[plain_tree(index)] = plain_tree(value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    @property
    def T(self) -> Tensor:
        return call_numpy(np.transpose, (self,), {})

    @property
    def mT(self) -> Tensor:
        return call_numpy(np.swapaxes, (self, -1, -2), {})

    @property
    def flat(self) -> Any:
        _refuse(self, "flat")
        return self.view(np.ndarray).flat

    def reshape(self, *shape: Any, order: str = "C") -> Tensor:  # type: ignore[override]
        return call_numpy(np.reshape, (self, shape[0] if len(shape) == 1 else shape, order), {})

    def transpose(self, *axes: Any) -> Tensor:
        grouped = len(axes) == 1 and not isinstance(axes[0], int)
        return call_numpy(np.transpose, (self, axes[0] if grouped else axes or None), {})

    def astype(self, dtype: DTypeLike, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        options = dict(zip(("order", "casting", "subok", "copy"), args, strict=False)) | kwargs
        return OURS[np.astype](self, dtype, **options)

    def flatten(self, order: str = "C") -> Tensor:  # type: ignore[override]
        return OURS[np.copy](call_numpy(np.ravel, (self, order), {}))

    def copy(self, order: str = "C") -> Tensor:  # type: ignore[override]
        return OURS[np.copy](self)

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
        return call_numpy(function, (self, *args), kwargs)

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


def as_array(value: Any, dtype: DTypeLike | None) -> np.ndarray:
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
    array = np.array(as_array(value, dtype))
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
    return as_array(value, dtype).view(Tensor)


def stop_gradient(x: Any) -> Tensor:
    """The value of `x` as a Tensor through which no gradient flows."""
    return plain(x).view(Tensor)
