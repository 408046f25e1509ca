"""Symbolic tensors: what a layer sees while a functional model is being drawn.

A `KerasTensor` has a shape and a dtype but no values. Calling a layer on it records a `Node`;
operators, slices and NumPy functions record a small layer that will apply them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tape.tensor import ATOMS
from .structure import TensorShape, flatten, is_nested


class KerasHistory(NamedTuple):
    """Where a symbolic tensor comes from."""

    layer: object
    node_index: int
    tensor_index: int


def is_symbolic(value):
    """Whether a `KerasTensor` occurs anywhere in a nested structure."""
    pending = [value]
    while pending:
        value = pending.pop()
        if type(value) in ATOMS:
            continue
        if isinstance(value, KerasTensor):
            return True
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value
    return False


def apply_function(function, args, kwargs=None):
    """Record a NumPy function of symbolic tensors as a layer of its own."""
    from .layers.core import TFOpLambda

    return TFOpLambda(function)(*args, **(kwargs or {}))


def _binary(function, reverse=False):
    if reverse:
        return lambda self, other: apply_function(function, (other, self))
    return lambda self, other: apply_function(function, (self, other))


class KerasTensor:
    """A tensor that is yet to come.

    Parameters
    ----------
    shape : sequence of int or None
        None where the dimension is known only when data arrives.
    dtype : str
    name : str, optional
    """

    _keras_history: KerasHistory

    def __init__(self, shape, dtype="float32", name=None):
        self.shape = TensorShape(shape)
        self.dtype = np.dtype(dtype)
        self.name = name

    @property
    def ndim(self):
        return len(self.shape)

    rank = ndim

    def get_shape(self):
        return self.shape

    @property
    def node(self):
        """The call that produced this tensor."""
        history = self._keras_history
        return history.layer._inbound_nodes[history.node_index]

    def __repr__(self):
        by = getattr(self, "_keras_history", None)
        return (
            f"<KerasTensor: shape={tuple(self.shape)} dtype={self.dtype.name}"
            + (f" (created by layer '{by.layer.name}')" if by else "")
            + ">"
        )

    def __getitem__(self, key):
        from .layers.core import SlicingOpLambda

        return SlicingOpLambda()(self, key)

    def __iter__(self):
        raise TypeError("Cannot iterate over a symbolic tensor: its values are not known yet.")

    def __len__(self):
        raise TypeError("len() of a symbolic tensor is not known; read its `shape` instead.")

    def __bool__(self):
        raise TypeError("A symbolic tensor has no truth value: its values are not known yet.")

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            f"Cannot convert {self!r} to an array: it has no values yet. Wrap the function that "
            "needs them in a layer (`keras.layers.Lambda`, or a subclass of `keras.layers.Layer`)."
        )

    def _record_(self, operation, args, params):
        return apply_function(operation, args, params)

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        if method != "__call__":
            return NotImplemented
        return apply_function(ufunc, args, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return apply_function(function, args, kwargs)

    __add__, __radd__ = _binary(np.add), _binary(np.add, True)
    __sub__, __rsub__ = _binary(np.subtract), _binary(np.subtract, True)
    __mul__, __rmul__ = _binary(np.multiply), _binary(np.multiply, True)
    __truediv__, __rtruediv__ = _binary(np.true_divide), _binary(np.true_divide, True)
    __floordiv__, __rfloordiv__ = _binary(np.floor_divide), _binary(np.floor_divide, True)
    __mod__, __rmod__ = _binary(np.mod), _binary(np.mod, True)
    __pow__, __rpow__ = _binary(np.power), _binary(np.power, True)
    __matmul__, __rmatmul__ = _binary(np.matmul), _binary(np.matmul, True)
    __lt__, __le__ = _binary(np.less), _binary(np.less_equal)
    __gt__, __ge__ = _binary(np.greater), _binary(np.greater_equal)

    def __neg__(self):
        return apply_function(np.negative, (self,))

    def __abs__(self):
        return apply_function(np.abs, (self,))


class Node:
    """One call of a layer on symbolic tensors: an edge of the graph of a functional model.

    Parameters
    ----------
    layer : Layer
    args, kwargs
        What the layer was called with, symbolic tensors included.
    outputs : KerasTensor or nested structure
    """

    def __init__(self, layer, args, kwargs, outputs):
        self.layer = layer
        self.args = args
        self.kwargs = kwargs
        self.outputs = outputs
        self.keras_inputs = [t for t in flatten((args, kwargs)) if isinstance(t, KerasTensor)]
        self.flat_outputs = flatten(outputs)
        index = len(layer._inbound_nodes)
        layer._inbound_nodes.append(self)
        for tensor in self.keras_inputs:
            tensor._keras_history.layer._outbound_nodes.append(self)
        for i, tensor in enumerate(self.flat_outputs):
            tensor._keras_history = KerasHistory(layer, index, i)

    @property
    def is_input(self):
        return not self.keras_inputs

    @property
    def parent_nodes(self):
        return [t.node for t in self.keras_inputs]

    @property
    def input_tensors(self):
        """The first argument; for an input layer its own output."""
        if self.is_input:
            return self.outputs
        first = self.args[0] if self.args else next(iter(self.kwargs.values()))
        found = [t for t in flatten(first) if isinstance(t, KerasTensor)]
        return first if is_nested(first) else (found or self.keras_inputs)[0]

    @property
    def output_tensors(self):
        return self.outputs
