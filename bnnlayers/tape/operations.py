"""Operations of ours: a forward with its backward below it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .again import without_arguments
from .nodes import Linear, Node, observers, recorded, state
from .spare import Sparing
from .tensor import ATOMS, Tensor, attach, convert_to_tensor, is_traced, operands, plain, read, wrap
from .variable import in_variable

# In the place of a residual: the gradient of the value, a BitArray, is that of the only argument.
THROUGH: Any = object()

# Classes that are parameters as they are.
_parameters: set[type] = {*ATOMS}


class Operation:
    """A differentiable operation; made by `operation`."""

    __name__: str

    # ``part(images, args, params)``: the arguments that compute only a range of the first axis of the value.
    part: Callable[..., Any] | None = None

    def __init__(
        self, forward: Callable[..., Any], recompute: int, linear: bool, joins: bool, parts: bool, integers: bool
    ) -> None:
        functools.update_wrapper(self, forward)
        self._forward = forward
        self._backward: Callable[..., Any] | None = None
        self.effort = int(recompute)
        self._linear = linear
        self._joins = joins
        self._parts = parts
        self._integers = integers
        signature = inspect.signature(forward)
        kept = [p for p in signature.parameters.values() if p.name != "traced"]
        self._wants_traced = len(kept) < len(signature.parameters)
        self.__signature__ = signature.replace(parameters=kept)

    def backward(self, function: Callable[..., Any]) -> Operation:
        """Decorate ``backward(residual, dy, needed)``, which must not write into `dy`.

        One that names a fourth parameter, `spare`, gets a `Spare`.
        """
        self._backward = Linear(function) if self._linear else function
        if len(inspect.signature(function).parameters) == 4:
            self._backward = Sparing(function, self._parts)
        return self

    def __call__(self, *args: Any, **params: Any) -> Any:
        values: list[Any] = []
        parents: list[Any] = []
        traced, tapes = False, state.tapes
        for x in args:
            node = None
            if type(x) is Tensor:
                node, x = x._node, x.view(np.ndarray)
            elif type(x) not in ATOMS:
                if type(x) not in operands:
                    x = convert_to_tensor(x) if type(x) in (list, tuple) else read(x)
                    if not isinstance(x, np.ndarray):
                        if hasattr(type(x), "_record_"):
                            return x._record_(self, args, params)  # a tensor that is yet to come
                        operands.add(type(x))
                node = getattr(x, "_node", None)
                if isinstance(x, Tensor):
                    x = x.view(np.ndarray)
            if node is not None:
                if type(node) is not Node or tapes.isdisjoint(node.tapes):
                    node = recorded(node, self.__name__)
                traced = traced or node is not None
            values.append(x)
            parents.append(node)
        if not _parameters.issuperset(map(type, params.values())):
            for key, x in params.items():
                if type(x) not in _parameters:
                    params[key] = self._parameter(key, x)
        forward = self._forward if not observers else observers[0]("forward", self.__name__, self._forward)
        if self._wants_traced:
            params["traced"] = (*map(bool, parents),) if traced else (False,) * len(parents)
        value, residual = forward(*values, **params)
        if not traced:
            return wrap(value)
        if residual is THROUGH:
            return value._with_node(parents[0])
        if self._backward is None:
            raise NotImplementedError(f"{self.__name__} has no derivative")
        if residual is not None:
            residual = without_arguments(residual, values, parents)
        again = self._again(values, parents, params) if self.effort else None
        return attach(value, self.__name__, tuple(parents), self._backward, residual, again, integers=self._integers)

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
            if not isinstance(x, np.ndarray) or in_variable(x):
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


def operation(
    forward: Callable[..., Any] | None = None,
    *,
    recompute: int = False,
    linear: bool = False,
    joins: bool = False,
    parts: bool = False,
    integers: bool = False,
) -> Any:
    """Make a forward function a differentiable operation.

    Parameters
    ----------
    forward : callable
        ``forward(*args, **params)`` returns ``(value, residual)``. Positional arguments may be
        differentiated, keywords are parameters. It gets plain arrays in the place of Tensors and
        of whatever has `_read_()`, and `traced` (one bool per positional argument) if its
        signature names that. The value is an array, a BitArray, or a tuple of them. Of a BitArray
        the residual may be `THROUGH`, if there is one argument, whose gradient is that of the value.
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
    integers : bool, optional
        Whether a value of integers stands for one in float32, whose gradient it has.

    Returns
    -------
    Operation
        Whose `backward` decorates ``backward(residual, dy, needed)``: one gradient per positional
        argument, None where `needed` is false. The tape sums it over broadcast axes and casts it.
        Where the operation has several values, `dy` is a tuple.
    """
    if forward is None:
        return functools.partial(
            operation, recompute=recompute, linear=linear, joins=joins, parts=parts, integers=integers
        )
    return Operation(forward, recompute, linear, joins, parts, integers)
