"""`Layer`: weights, losses and metrics of one step of a network, and how it is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import threading

import numpy as np

from ..tape import Tensor, Variable, constant, plain, read
from ..tape.tensor import ATOMS
from . import backend, constraints, initializers, regularizers
from .structure import (
    TensorShape,
    flatten,
    is_nested,
    is_shape,
    map_shapes,
    map_structure,
    pack_as,
)
from .symbolic import KerasTensor, Node, is_symbolic
from .utils import to_snake_case

# A step asks every layer for these.
_LOSSES, _METRICS = operator.attrgetter("_losses"), operator.attrgetter("_metrics")
_ALL_LOSSES = operator.attrgetter("_losses", "_callable_losses")


class InputSpec:
    """What a layer demands of one input; `Layer.__call__` checks it.

    Parameters
    ----------
    dtype : str, optional
    shape : sequence of int or None, optional
        Full shape; a None dimension is free.
    ndim, max_ndim, min_ndim : int, optional
    axes : dict of int to int, optional
        Demanded sizes of single axes.
    allow_last_axis_squeeze : bool
        A last axis of size one may be present or absent.
    name : str, optional
    """

    def __init__(
        self,
        dtype=None,
        shape=None,
        ndim=None,
        max_ndim=None,
        min_ndim=None,
        axes=None,
        allow_last_axis_squeeze=False,
        name=None,
    ):
        self.dtype = None if dtype is None else np.dtype(dtype).name
        self.shape = None if shape is None else TensorShape(shape)
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name = name
        limit = self.ndim if self.ndim is not None else max_ndim
        if limit is not None and self.axes and max(self.axes) >= limit:
            raise ValueError(f"InputSpec: axis {max(self.axes)} in `axes` is beyond the maximum of {limit - 1}.")

    def __repr__(self):
        fields = {k: v for k, v in vars(self).items() if v not in (None, False, {})}
        return f"InputSpec({', '.join(f'{k}={v}' for k, v in fields.items())})"

    def get_config(self):
        return {k: v for k, v in vars(self).items() if k not in ("allow_last_axis_squeeze", "name")}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def mismatch(self, shape, dtype):
        """What is wrong with an input of this shape and dtype, or None."""
        ndim = len(shape)
        full = "Full shape received:"
        if self.ndim is not None and ndim != self.ndim and not self.allow_last_axis_squeeze:
            return f"expected ndim={self.ndim}, found ndim={ndim}. {full} {tuple(shape)}"
        if self.max_ndim is not None and ndim > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={ndim}. {full} {tuple(shape)}"
        if self.min_ndim is not None and ndim < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={ndim}. {full} {tuple(shape)}"
        if self.dtype is not None and np.dtype(dtype).name != self.dtype:
            return f"expected dtype={self.dtype}, found dtype={np.dtype(dtype).name}"
        for axis, size in self.axes.items():
            if size is not None and shape[axis] not in (size, None):
                return (
                    f"expected axis {axis} of input shape to have value {size}, "
                    f"but received input with shape {tuple(shape)}"
                )
        if self.shape is not None:
            wanted, found = self.shape, shape
            if self.allow_last_axis_squeeze:
                wanted = wanted[:-1] if wanted and wanted[-1] == 1 else wanted
                found = found[:-1] if found and found[-1] == 1 else found
            for want, got in zip(wanted, found, strict=False):
                if want is not None and got is not None and want != got:
                    return f"expected shape={tuple(self.shape)}, found shape={tuple(shape)}"
        return None


def check_inputs(specs, inputs, layer_name):
    """Raise ValueError unless `inputs` satisfy the `InputSpec` or specs of a layer."""
    if type(inputs) is Tensor and isinstance(specs, InputSpec):
        specs, inputs = [specs], [inputs]
    else:
        specs, inputs = _in_order(specs, inputs, layer_name)
    for i, (x, spec) in enumerate(zip(inputs, specs, strict=True)):
        if not hasattr(x, "shape"):
            raise TypeError(
                f"Inputs to a layer should be tensors. Got '{x}' (of type {type(x)}) as input for layer '{layer_name}'."
            )
        wrong = spec.mismatch(x.shape, x.dtype) if spec is not None else None
        if wrong:
            raise ValueError(f'Input {i} of layer "{layer_name}" is incompatible with the layer: {wrong}')


def _in_order(specs, inputs, layer_name):
    """Specs and the inputs that they are for, as two lists of one length."""
    specs = flatten(specs)
    if isinstance(inputs, dict) and all(spec.name for spec in specs):
        missing = [spec.name for spec in specs if spec.name not in inputs]
        if missing:
            raise ValueError(
                f'Missing data for input "{missing[0]}". You passed a data dictionary with keys '
                f"{list(inputs)}. Expected the following keys: {[s.name for s in specs]}"
            )
        inputs = [inputs[spec.name] for spec in specs]
    inputs = flatten(inputs)
    if len(inputs) != len(specs):
        raise ValueError(
            f'Layer "{layer_name}" expects {len(specs)} input(s), but it received '
            f"{len(inputs)} input tensors. Inputs received: {inputs}"
        )
    return specs, inputs


class _Context(threading.local):
    """What the layers that are being called in this thread know of each other.

    Attributes
    ----------
    call : tuple or None
        The innermost call: the layer's name, whether it trains, and the call around it.
    inferring : bool
        Whether layers run on zeros, to find shapes.
    """

    call: tuple | None = None
    inferring = False

    @property
    def scope(self):
        """The names of the layers being called, outermost first."""
        names, call = [], self.call
        while call is not None:
            name, _, call = call
            names.append(name)
        return "/".join(filter(None, reversed(names)))

    @contextlib.contextmanager
    def symbolic(self, name):
        """Inside this ``with`` block a layer of that name is called, as if nobody called it."""
        outer = self.call, self.inferring
        self.call = (name, False, None)
        try:
            yield
        finally:
            self.call, self.inferring = outer


context = _Context()


class _CallSpec:
    """What the signature of a layer's `call` says; made once per class."""

    def __init__(self, cls):
        parameters = list(inspect.signature(cls.call).parameters.values())[1:]
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.first = names[0] if names else None
        self.training_index = names.index("training") if "training" in names else None
        self.expects_training = _expects(cls, "training")
        self.expects_later = _expects(cls, "later")
        default = next((p.default for p in parameters if p.name == "training"), None)
        self.training_default = False if default in (None, inspect.Parameter.empty) else default


def _expects(cls, name):
    """Whether `call` takes an argument; one that takes any keyword passes it on to the next class."""
    for base in cls.__mro__:
        call = vars(base).get("call")
        if call is not None:
            parameters = inspect.signature(call).parameters
            if name in parameters:
                return True
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                return False
    return True


_spec_of = functools.cache(_CallSpec)
_dtype_called = functools.cache(np.dtype)


def _dtype_name(dtype):
    """The name of a dtype given as a string, a dtype, or a serialized or real policy."""
    if dtype is None:
        return backend.floatx()
    if isinstance(dtype, dict):
        dtype = dtype["config"]["name"]
    return np.dtype(getattr(dtype, "variable_dtype", dtype)).name


def is_metric(value):
    return hasattr(value, "update_state") and hasattr(value, "result")


def _may_hold_layers(value):
    """Whether an attribute is a layer or a container that holds, or may come to hold, layers."""
    if isinstance(value, Layer):
        return True
    if not is_nested(value):
        return False
    harmless = (int, float, str, type(None), TensorShape)
    return not value or not all(isinstance(leaf, harmless) for leaf in flatten(value))


def _is_structure(value):
    """Whether a list or dictionary holds tensors, rather than being one written as numbers."""
    return isinstance(value, dict) or any(hasattr(leaf, "shape") or leaf is None for leaf in flatten(value))


def to_tensor(x, dtype=None):
    """A tensor from anything array-like; floats become `dtype`.

    What knows how to read itself (a variable, a quantized operand) is left as it is.
    """
    if not isinstance(x, np.ndarray):
        if hasattr(x, "_read_") or x is None or (dtype is None and isinstance(x, (int, float))):
            return x
        if isinstance(x, (str, bytes)) or callable(x):
            raise TypeError(f"Inputs to a layer should be tensors. Received: {x!r} ({type(x)})")
        x = np.asarray(x)
    if x.dtype.kind == "O":
        raise TypeError(
            f"Inputs to a layer should be tensors of one numeric type. Received: an array of dtype {x.dtype}."
        )
    if dtype is not None and x.dtype.kind == "f" and x.dtype != dtype:
        x = x.astype(dtype)
    return x if isinstance(x, Tensor) else x.view(Tensor)


def as_shapes(shapes):
    """A structure of shapes with every shape a `TensorShape`."""
    return map_shapes(lambda s: None if s is None else TensorShape(s), shapes)


def default_config(function):
    """Mark a `get_config` that finds out by itself what an inheriting constructor was given."""
    function._is_default = True
    return function


_LAYER_KEYWORDS = {
    "input_dim",
    "input_shape",
    "batch_input_shape",
    "batch_size",
    "weights",
    "activity_regularizer",
    "autocast",
}


class Layer:
    """The base of everything that a model is made of.

    Subclasses write `build(input_shape)`, which creates weights by `add_weight`, and
    ``call(inputs, training=None)``; layers, variables and metrics that are assigned to attributes
    (also within lists and dictionaries) belong to the layer from then on.

    Parameters
    ----------
    trainable : bool
        Whether the weights are given to the optimizer.
    name : str, optional
        By default the class name in snake case, numbered.
    dtype : str, optional
        Of the weights; floating inputs are cast to it. By default `keras.backend.floatx()`.
    input_shape, batch_input_shape, input_dim, batch_size
        Shape of the input without or with the batch axis, for the first layer of a `Sequential`.
    weights : list of arrays, optional
        Values to start from.
    activity_regularizer : callable, optional
        Function of the output, added to the losses.
    autocast : bool
        Whether floating inputs are cast to `dtype`.

    Raises
    ------
    TypeError
        For a keyword that is none of these.
    """

    def __new__(cls, *args, **kwargs):
        layer = super().__new__(cls)
        names = inspect.getfullargspec(cls.__init__).args[1:] if args else ()
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        simple = all(isinstance(v, (str, int, float, bool, type(None))) for v in flatten(list(given.values())))
        # Here and not in __init__, so that a subclass may assign layers before it calls that.
        layer.__dict__.update(
            _auto_config=given if simple else None,
            _tracked={},
            _known_children=None,
            _known_layers=(None, []),
            _trainable_weights=[],
            _non_trainable_weights=[],
            _losses=[],
            _callable_losses=[],
            _metrics=[],
            _inbound_nodes=[],
            _outbound_nodes=[],
            _input_spec=None,
            _build_input_shape=None,
            _fitted=None,
        )
        return layer

    def __init__(self, trainable=True, name=None, dtype=None, dynamic=False, **kwargs):
        unknown = set(kwargs) - _LAYER_KEYWORDS
        if unknown:
            raise TypeError(f"{type(self).__name__}: keyword argument not understood: {sorted(unknown)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"Expected `name` argument to be a string, but got: {name!r}")
        if not isinstance(trainable, (bool, np.bool_)) and trainable not in (0, 1):
            raise TypeError(f"Expected `trainable` argument to be a boolean, but got: {trainable!r}")
        self._trainable = bool(trainable)
        self._dtype = _dtype_name(dtype)
        self._autocast = kwargs.get("autocast", True)
        self._name = name or backend.unique_object_name(to_snake_case(type(self).__name__), zero_based=True)
        self._activity_regularizer = regularizers.get(kwargs.get("activity_regularizer"))
        self.__dict__["_initial_weights"] = kwargs.get("weights")
        self.built = False

        if "input_dim" in kwargs and "input_shape" not in kwargs:
            kwargs["input_shape"] = (kwargs["input_dim"],)
        if "batch_input_shape" in kwargs:
            self._batch_input_shape = tuple(kwargs["batch_input_shape"])
        elif "input_shape" in kwargs:
            self._batch_input_shape = (kwargs.get("batch_size"), *kwargs["input_shape"])

    # Whether a configuration tells one input from a list of one.
    _keeps_structure = False

    def _can_wait(self, readers):
        """Whether ``call(inputs, later=count)`` may return a Readable that computes the output when it is read, if
        these layers, so many, are all that read it.
        """
        return _spec_of(type(self)).expects_later and self._activity_regularizer is None and self._waits(readers)

    def _waits(self, readers):
        """Whether it would, if that is how it is called."""
        return False

    def _knows(self, kind):
        """Whether `call` can make use of an input that is of this class of `Later`."""
        return False

    # Another object after every change of what belongs to what, anywhere: what was found while it
    # was the same still holds.
    _structure = object()

    # Calling

    def build(self, input_shape):
        """Create the weights; called once, before the first `call`."""
        self._build_input_shape = input_shape
        self.built = True

    def call(self, inputs, *args, **kwargs):
        """The computation; subclasses override it."""
        return inputs

    def __call__(self, *args, **kwargs):
        if "built" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: you must call `super().__init__()` in the constructor.")
        spec = _spec_of(type(self))
        if args:
            inputs, args = args[0], args[1:]
        elif spec.first in kwargs:
            inputs = kwargs.pop(spec.first)
        else:
            raise ValueError(f"The first argument to `{type(self).__name__}.call` must be passed.")
        more = args or not ATOMS.issuperset(map(type, kwargs.values()))
        if (type(inputs) is not Tensor and is_symbolic(inputs)) or (more and is_symbolic([*args, *kwargs.values()])):
            return self._call_symbolic(inputs, args, kwargs)

        outer = context.call
        training = None if outer is None else outer[1]
        if spec.expects_training or args or "training" in kwargs:
            training, args, kwargs = self._resolve_training(spec, args, kwargs, training)
        if outer is None:
            self._clear_losses()
        context.call = (self._name, training, outer)
        try:
            dtype = _dtype_called(self._dtype) if self._autocast else None
            if (type(inputs) is Tensor and inputs.dtype is dtype) or hasattr(type(inputs), "_read_"):
                pass  # what it mostly is
            elif isinstance(inputs, np.ndarray) or not is_nested(inputs):
                inputs = to_tensor(inputs, dtype)
            elif _is_structure(inputs):
                inputs = map_structure(lambda x: to_tensor(x, dtype), inputs)
            else:
                inputs = to_tensor(np.asarray(inputs), dtype)
            if self._input_spec is not None:
                # What fitted fits again.
                what = (self._input_spec, inputs.shape, inputs.dtype) if hasattr(inputs, "shape") else None
                if what is None or what != self._fitted:
                    check_inputs(self._input_spec, inputs, self._name)
                    self.__dict__["_fitted"] = what
            if not self.built:
                self._maybe_build(inputs)
                if self._input_spec is not None:
                    check_inputs(self._input_spec, inputs, self._name)
            outputs = self.call(inputs, *args, **kwargs)
            if self._activity_regularizer is not None:
                self._regularize_activity(inputs, outputs)
            return outputs
        finally:
            context.call = outer

    def _resolve_training(self, spec, args, kwargs, outer):
        """An explicit argument wins, then the enclosing call, then the default of `call`."""
        at = spec.training_index
        positional = at is not None and len(args) >= at
        training = args[at - 1] if positional else kwargs.pop("training", None)
        if training is None:
            training = outer
        if spec.expects_training:
            if training is None:
                training = backend.learning_phase() or spec.training_default
            if positional:
                args = (*args[: at - 1], training, *args[at:])
            else:
                kwargs["training"] = training
        return training, args, kwargs

    def _maybe_build(self, inputs):
        self._build(map_structure(lambda x: TensorShape(x.shape), inputs))

    def _build(self, shapes):
        """`build`, undone if it raises."""
        own = ("_tracked", "_trainable_weights", "_non_trainable_weights", "_callable_losses")
        before = {k: self.__dict__[k].copy() for k in own}
        before["_known_children"] = None
        spec = self._input_spec
        try:
            self.build(shapes)
            self.__dict__["_build_input_shape"] = shapes
            self.built = True
            if self._initial_weights is not None:
                self.set_weights(self._initial_weights)
                self.__dict__["_initial_weights"] = None
        except BaseException:
            self.__dict__.update(before)
            self._structure_changed()
            self.__dict__["_input_spec"] = spec
            self.built = False
            raise

    def _call_symbolic(self, inputs, args, kwargs):
        if kwargs.get("training", 0) is None:
            del kwargs["training"]
        if isinstance(inputs, (list, tuple, dict)):
            inputs = map_structure(lambda x: x if isinstance(x, KerasTensor) else to_tensor(x, self._dtype), inputs)
        if self._input_spec is not None:
            check_inputs(self._input_spec, inputs, self._name)
        with context.symbolic(self._name):
            if not self.built:
                self._build(map_structure(lambda x: TensorShape(getattr(x, "shape", ())), inputs))
                if self._input_spec is not None:
                    check_inputs(self._input_spec, inputs, self._name)
            outputs = self._infer_outputs(inputs, args, kwargs)
        Node(self, (inputs, *args), kwargs, outputs)
        return outputs

    def _infer_outputs(self, inputs, args, kwargs):
        """New symbolic tensors of the shapes that `call` gives."""
        if type(self).compute_output_shape is not Layer.compute_output_shape:
            shapes = self.compute_output_shape(map_structure(lambda x: x.shape, inputs))
            dtypes = {np.dtype(x.dtype) for x in flatten(inputs)}
            dtype = self._dtype
            if not self.weights and len(dtypes) == 1 and (only := dtypes.pop()).kind != "f":
                dtype = only
            return map_shapes(lambda s: KerasTensor(s, dtype, self._name), shapes)
        return self._infer_by_running(inputs, args, kwargs)

    def _infer_by_running(self, inputs, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = self._run_on_zeros(0, inputs, args, kwargs)
        leaves = flatten(first)
        shapes = [leaf.shape for leaf in leaves]
        if any(None in t.shape for t in flatten((inputs, args, kwargs)) if is_symbolic(t)):
            others = [leaf.shape for leaf in flatten(self._run_on_zeros(1, inputs, args, kwargs))]
            shapes = [
                tuple(a if a == b else None for a, b in zip(one, two, strict=True))
                for one, two in zip(shapes, others, strict=True)
            ]
        return pack_as(
            first,
            [KerasTensor(shape, leaf.dtype, self._name) for shape, leaf in zip(shapes, leaves, strict=True)],
        )

    def _run_on_zeros(self, turn, inputs, args, kwargs):
        """`call` on zeros; unknown dimensions take another size in each turn."""
        batch, size = ((1, 32), (2, 64))[turn]

        def zeros(x):
            if not isinstance(x, KerasTensor):
                return x
            shape = [(size if i else batch) if d is None else d for i, d in enumerate(x.shape)]
            return constant(np.zeros(shape, x.dtype))

        spec = _spec_of(type(self))
        inputs, args, kwargs = map_structure(zeros, (inputs, tuple(args), kwargs))
        _, args, kwargs = self._resolve_training(spec, args, kwargs, context.call[1])
        if spec.training_index is not None and "training" in kwargs:
            kwargs["training"] = False
        context.inferring = True
        with np.errstate(all="ignore"):
            outputs = self.call(inputs, *args, **kwargs)
        self._clear_losses()
        if any(leaf is None for leaf in flatten(outputs)):
            raise ValueError(f"The `call` of layer '{self._name}' must return a tensor. Received: {outputs}")
        return map_structure(lambda y: y if hasattr(y, "shape") else np.asarray(y), outputs)

    def compute_output_shape(self, input_shape):
        """Shape of the output for a shape, or structure of shapes, of the input."""
        inputs = map_shapes(lambda s: KerasTensor(s, self._dtype), as_shapes(input_shape))
        with context.symbolic(self._name):
            if not self.built:
                self._build(as_shapes(input_shape))
            outputs = self._infer_by_running(inputs)
        return map_structure(lambda y: y.shape, outputs)

    # Weights

    def add_weight(
        self,
        name=None,
        shape=None,
        dtype=None,
        initializer=None,
        regularizer=None,
        trainable=None,
        constraint=None,
        **kwargs,
    ):
        """Create a variable that belongs to this layer.

        Parameters
        ----------
        name : str
        shape : tuple of int
            A scalar by default.
        dtype : str, optional
            The layer's by default.
        initializer : str or callable
            Glorot uniform by default for floats, zeros for integers.
        regularizer : str or callable, optional
            Function of the variable, added to the losses.
        trainable : bool
        constraint : str or callable, optional
            Applied by the optimizer after each update.

        Returns
        -------
        Variable
        """
        unknown = set(kwargs) - {"synchronization", "aggregation", "use_resource", "autocast"}
        if unknown:
            raise TypeError(f"add_weight: unknown keyword argument: {sorted(unknown)}")
        shape = () if shape is None else tuple(shape)
        if any(d is None or d < 0 for d in shape):
            raise ValueError(
                f"add_weight: weight '{name}' of layer '{self._name}' needs known, non-negative "
                f"dimensions. Received: shape={shape}"
            )
        dtype = np.dtype(dtype or self._dtype)
        if initializer is None:
            initializer = "glorot_uniform" if dtype.kind == "f" else "zeros"
        regularizer = regularizers.get(regularizer)
        trainable = True if trainable is None else bool(trainable)
        scope = context.scope
        variable = self._make_variable(
            name or "Variable",
            value=plain(initializers.get(initializer)(shape, dtype=dtype.name)),
            full_name=f"{scope}{'/' if scope else ''}{name or 'Variable'}:0",
            trainable=trainable,
            constraint=constraints.get(constraint),
        )
        (self._trainable_weights if trainable else self._non_trainable_weights).append(variable)
        if regularizer is not None:
            self._callable_losses.append(functools.partial(regularizer, variable))
        return variable

    def _make_variable(self, name, *, value, full_name, trainable, constraint):
        """The variable behind `add_weight`; a subclass may wrap what this returns by `name`."""
        return Variable(value, trainable=trainable, name=full_name, constraint=constraint)

    def __setattr__(self, name, value):
        tracked = self._tracked
        if not hasattr(type(self), name):
            if _may_hold_layers(value) and not is_metric(value):
                tracked.pop(name, None)
                tracked[name] = value
                self._structure_changed()
                if not isinstance(value, Layer):
                    for leaf in flatten(value):
                        self._track_leaf(leaf)
            else:
                if tracked.pop(name, None) is not None:
                    self._structure_changed()
                if isinstance(value, Variable):
                    old = self.__dict__.get(name)
                    self._track_variable(value, old if isinstance(old, Variable) else None)
                elif is_metric(value):
                    self._track_leaf(value)
        object.__setattr__(self, name, value)

    def __delattr__(self, name):
        value = self.__dict__.get(name)
        self._tracked.pop(name, None)
        self._structure_changed()
        for owned in (self._trainable_weights, self._non_trainable_weights, self._metrics):
            owned[:] = [item for item in owned if item is not value]
        object.__delattr__(self, name)

    def _track_leaf(self, leaf):
        if isinstance(leaf, Variable):
            self._track_variable(leaf)
        elif is_metric(leaf) and not any(leaf is m for m in self._metrics):
            self._metrics.append(leaf)

    def _track_variable(self, variable, replaces=None):
        """Take over a variable that was assigned to an attribute."""
        lists = self._trainable_weights, self._non_trainable_weights
        if any(variable is v for owned in lists for v in owned):
            return
        owned = lists[0] if variable.trainable else lists[1]
        for i, old in enumerate(owned):
            if old is replaces:
                owned[i] = variable
                return
        owned.append(variable)

    def _children(self):
        """The layers directly below, each once, in the order of assignment."""
        known = self._known_children
        if known is None:
            known, fixed = self._find_children()
            self.__dict__["_known_children"] = known if fixed else None
        return known

    def _find_children(self):
        """The layers directly below, and whether they can only change by an assignment."""
        found, fixed = [], True
        pending = list(reversed(self._tracked.values()))
        while pending:
            item = pending.pop()
            if isinstance(item, Layer):
                found.append(item)
            elif isinstance(item, (list, tuple, dict)):
                # Lists may grow without notice, so what they hold is looked up every time.
                fixed = fixed and isinstance(item, tuple)
                pending.extend(reversed(item.values() if isinstance(item, dict) else item))
            elif not isinstance(item, (str, int, float, type(None))):
                self._track_leaf(item)
        return unique(found), fixed

    def _structure_changed(self):
        self.__dict__["_known_children"] = None
        Layer._structure = object()

    def _flatten_layers(self, recursive=True, include_self=True):
        """This layer and all below it, parents first."""
        if not recursive:
            return [self, *self._children()] if include_self else list(self._children())
        structure = Layer._structure
        known, layers = self._known_layers
        if known is not structure:
            layers = [self]
            for child in self._children():
                layers.extend(child._flatten_layers())
            if all(layer._known_children is not None for layer in layers):
                self.__dict__["_known_layers"] = structure, layers
        return layers if include_self else layers[1:]

    @property
    def submodules(self):
        return tuple(self._flatten_layers(include_self=False))

    @property
    def trainable_weights(self):
        """Variables that the optimizer may change; none while `trainable` is False."""
        if not self._trainable:
            return []
        children = self._known_children
        if children is None:
            children = self._children()
        below = [w for c in children for w in c.trainable_weights] if children else None
        return unique(self._trainable_weights, below) if below else list(self._trainable_weights)

    @property
    def non_trainable_weights(self):
        children = self._children()
        if self._trainable:
            return unique(self._non_trainable_weights, *[c.non_trainable_weights for c in children])
        return unique(self._trainable_weights, self._non_trainable_weights, *[c.weights for c in children])

    @property
    def weights(self):
        """All variables, trainable ones first."""
        return unique(self.trainable_weights, self.non_trainable_weights)

    trainable_variables = property(lambda self: self.trainable_weights)
    non_trainable_variables = property(lambda self: self.non_trainable_weights)
    variables = property(lambda self: self.weights)

    @property
    def trainable(self):
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        for layer in self._flatten_layers():
            layer._trainable = bool(value)

    def get_weights(self):
        """Values of `weights`, as a list of arrays."""
        return [np.array(variable.numpy()) for variable in self.weights]

    def set_weights(self, weights):
        """Assign a list of arrays to `weights`; nothing is assigned if one does not fit.

        Raises
        ------
        ValueError
            If the number of arrays or one of their shapes differs.
        """
        variables = self.weights
        weights = list(weights)
        if len(weights) != len(variables):
            raise ValueError(
                f'You called `set_weights(weights)` on layer "{self._name}" with a weight list of '
                f"length {len(weights)}, but the layer was expecting {len(variables)} weights."
            )
        arrays = [np.asarray(plain(w)) for w in weights]
        for variable, array in zip(variables, arrays, strict=True):
            if tuple(variable.shape) != array.shape:
                raise ValueError(
                    f"Layer {self._name} weight shape {tuple(variable.shape)} is not compatible "
                    f"with provided weight shape {array.shape}."
                )
            if array.dtype.kind not in "fiub":
                raise TypeError(
                    f"set_weights: layer {self._name} expects numeric arrays. Received dtype {array.dtype}."
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array.astype(variable.dtype, copy=False))

    def count_params(self):
        """Number of scalars in the weights."""
        if not self.built:
            raise ValueError(
                f"You tried to call `count_params` on layer {self._name}, but the layer isn't "
                "built. You can build it manually via: "
                f"`{self._name}.build(batch_input_shape)`."
            )
        return int(sum(np.prod(w.shape, dtype=np.int64) for w in self.weights))

    # Losses and metrics

    def add_loss(self, losses, **kwargs):
        """Add to the training loss a tensor of this call, or a function of no argument."""
        if kwargs.keys() - {"inputs"}:
            raise TypeError(f"add_loss: unknown keyword arguments: {sorted(kwargs)}")
        for loss in flatten(losses):
            if loss is None:
                continue
            if callable(loss):
                self._callable_losses.append(loss)
            else:
                self._losses.append(loss)

    def _clear_losses(self):
        known, layers = self._known_layers
        for losses in filter(None, map(_LOSSES, layers if known is Layer._structure else self._flatten_layers())):
            losses.clear()

    @property
    def losses(self):
        """Losses of the last call and of the regularizers, of this layer and all below it."""
        found = []
        for losses, functions in filter(any, map(_ALL_LOSSES, self._flatten_layers())):
            found += [*losses, *[loss() for loss in functions]]
        return found

    def _regularize_activity(self, inputs, outputs):
        first = flatten(inputs)[0]
        batch = np.float32(first.shape[0] if len(first.shape) else 1)
        for output in flatten(outputs):
            self.add_loss(self._activity_regularizer(output) / batch)

    def add_metric(self, value, name=None, **kwargs):
        """Record the mean of a tensor under `name` beside the compiled metrics."""
        from . import metrics

        if name is None:
            name = getattr(value, "name", None)
        if not isinstance(name, str):
            raise TypeError(f"add_metric: `name` must be a string. Received: {name!r}")
        metric = next((m for m in self._metrics if m.name == name), None)
        if metric is None:
            metric = metrics.Mean(name=name, dtype=kwargs.get("dtype"))
            self._metrics.append(metric)
        if not context.inferring:
            metric.update_state(plain(read(value)))

    @property
    def metrics(self):
        """Metrics that this layer and those below it own."""
        return unique(*filter(None, map(_METRICS, self._flatten_layers())))

    @property
    def activity_regularizer(self):
        return self._activity_regularizer

    @activity_regularizer.setter
    def activity_regularizer(self, value):
        self._activity_regularizer = regularizers.get(value)

    # Description

    name = property(lambda self: self._name, doc="Name, unique within a model.")
    dtype = property(lambda self: self._dtype, doc="Name of the dtype of the weights.")
    compute_dtype = variable_dtype = dtype
    dynamic = property(lambda self: True)

    @property
    def input_spec(self):
        return self._input_spec

    @input_spec.setter
    def input_spec(self, value):
        for spec in flatten(value):
            if spec is not None and not isinstance(spec, InputSpec):
                raise TypeError(f"Layer input_spec must be an instance of InputSpec. Got: {spec!r}")
        self.__dict__["_input_spec"] = value

    @property
    def inbound_nodes(self):
        return self._inbound_nodes

    @property
    def outbound_nodes(self):
        return self._outbound_nodes

    def _node_attribute(self, index, attribute):
        if not self._inbound_nodes:
            raise AttributeError(f"Layer {self._name} is not connected, no {attribute.partition('_')[0]} to return.")
        if index >= len(self._inbound_nodes):
            raise ValueError(
                f"Asked to get {attribute} at node {index}, but layer {self._name} has only "
                f"{len(self._inbound_nodes)} inbound nodes."
            )
        return getattr(self._inbound_nodes[index], attribute)

    def get_input_at(self, node_index):
        return self._node_attribute(node_index, "input_tensors")

    def get_output_at(self, node_index):
        return self._node_attribute(node_index, "output_tensors")

    def get_input_shape_at(self, node_index):
        return map_structure(lambda t: tuple(t.shape), self.get_input_at(node_index))

    def get_output_shape_at(self, node_index):
        return map_structure(lambda t: tuple(t.shape), self.get_output_at(node_index))

    @property
    def input(self):
        """Symbolic input of the layer's only call."""
        if len(self._inbound_nodes) > 1:
            raise AttributeError(
                f"Layer {self._name} has multiple inbound nodes, hence the notion of 'layer "
                "input' is ill-defined. Use `get_input_at(node_index)` instead."
            )
        return self.get_input_at(0)

    @property
    def output(self):
        """Symbolic output of the layer's only call."""
        if len(self._inbound_nodes) > 1:
            raise AttributeError(
                f"Layer {self._name} has multiple inbound nodes, hence the notion of 'layer "
                "output' is ill-defined. Use `get_output_at(node_index)` instead."
            )
        return self.get_output_at(0)

    def _common_shape(self, get, what):
        if not self._inbound_nodes:
            raise AttributeError(
                f'The layer "{self._name}" has never been called and thus has no defined {what} shape.'
            )
        shapes = [get(i) for i in range(len(self._inbound_nodes))]
        if any(shape != shapes[0] for shape in shapes):
            raise AttributeError(
                f'The layer "{self._name}" has multiple inbound nodes, with different {what} '
                f"shapes. Use `get_{what}_shape_at(node_index)` instead."
            )
        return shapes[0]

    @property
    def input_shape(self):
        return self._common_shape(self.get_input_shape_at, "input")

    @property
    def output_shape(self):
        return self._common_shape(self.get_output_shape_at, "output")

    @default_config
    def get_config(self):
        """A dictionary from which `from_config` makes the layer anew, without its weights."""
        config = {"name": self._name, "trainable": self._trainable, "dtype": self._dtype}
        if "_batch_input_shape" in self.__dict__:
            config["batch_input_shape"] = self._batch_input_shape
        if not hasattr(type(self).get_config, "_is_default"):
            return config
        parameters = inspect.getfullargspec(type(self).__init__)
        if len(parameters.args) <= 1 or type(self).__init__ is Layer.__init__:
            return config
        if self._auto_config is None:
            raise NotImplementedError(
                f"Layer {type(self).__name__} was created by passing non-serializable argument "
                "values in `__init__()`, and therefore the layer must override `get_config()` in "
                "order to be serializable."
            )
        if parameters.varkw is None:
            config = {k: v for k, v in config.items() if k in parameters.args}
        return {**config, **self._auto_config}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__qualname__} '{self._name}'>"


def unique(*lists):
    """Concatenation of lists, every object once."""
    return list({id(item): item for items in lists for item in items}.values())


__all__ = ["InputSpec", "Layer", "is_shape"]
