"""Dense layers, activations, and layers that only move or select values."""

from __future__ import annotations

import math
import numbers
import sys

import numpy as np

from ...ops import elementwise, merge, product
from ...ops import shape as shape_ops
from ...ops.elementwise import Rectified
from ...ops.norm import Normalized
from ...tape import Operation
from .. import activations, backend, utils
from ..base_layer import InputSpec, Layer, as_shapes
from ..structure import TensorShape, flatten, is_shape
from ..symbolic import KerasTensor, Node
from .arguments import ConfiguredLayer, data_format_of


class InputLayer(Layer):
    """Where data enters a functional model.

    Parameters
    ----------
    input_shape : sequence of int or None, optional
        Without the batch axis.
    batch_size : int, optional
    dtype : str, optional
    input_tensor : KerasTensor, optional
        Taken as it is instead of a new one.
    name : str, optional
    batch_input_shape : sequence of int or None, optional
        With the batch axis.
    """

    def __init__(
        self,
        input_shape=None,
        batch_size=None,
        dtype=None,
        input_tensor=None,
        sparse=None,
        name=None,
        ragged=None,
        batch_input_shape=None,
        **kwargs,
    ):
        if kwargs.keys() - {"trainable"}:
            raise TypeError(f"InputLayer: unrecognized keyword arguments: {sorted(kwargs)}")
        if sparse or ragged:
            raise ValueError("InputLayer: sparse and ragged inputs are not supported.")
        if input_tensor is not None:
            batch_input_shape = tuple(input_tensor.shape)
            dtype = dtype or input_tensor.dtype
        elif batch_input_shape is None:
            if input_shape is None:
                raise ValueError("InputLayer: expected `input_shape` or `batch_input_shape`.")
            if isinstance(input_shape, numbers.Integral):
                input_shape = (input_shape,)
            batch_input_shape = (batch_size, *input_shape)
        name = name or f"input_{backend.get_uid('input')}"
        super().__init__(name=name, dtype=dtype, batch_input_shape=batch_input_shape)
        self.built = True
        tensor = input_tensor
        if tensor is None or hasattr(tensor, "_keras_history"):
            tensor = KerasTensor(batch_input_shape, self._dtype, name)
        Node(self, (), {}, tensor)

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return TensorShape(input_shape)

    def get_config(self):
        return {
            "batch_input_shape": self._batch_input_shape,
            "dtype": self._dtype,
            "sparse": False,
            "ragged": False,
            "name": self._name,
        }


def Input(
    shape=None,
    batch_size=None,
    name=None,
    dtype=None,
    sparse=None,
    tensor=None,
    ragged=None,
    batch_shape=None,
    **kwargs,
):
    """A symbolic tensor to call layers on.

    Parameters
    ----------
    shape : sequence of int or None
        Without the batch axis; None where a dimension is not known.
    batch_size : int, optional
    name : str, optional
    dtype : str, optional
    tensor : KerasTensor, optional
    batch_shape : sequence of int or None, optional
        With the batch axis, instead of `shape`.

    Returns
    -------
    KerasTensor
    """
    batch_shape = kwargs.pop("batch_input_shape", batch_shape)
    if (shape is None) == (batch_shape is None) and tensor is None:
        raise ValueError(
            "Input: exactly one of `shape` and `batch_shape` must be given. "
            f"Received: shape={shape}, batch_shape={batch_shape}"
        )
    layer = InputLayer(shape, batch_size, dtype, tensor, sparse, name, ragged, batch_shape, **kwargs)
    return layer.output


class Dense(ConfiguredLayer):
    """``activation(inputs @ kernel + bias)`` over the last axis.

    Parameters
    ----------
    units : int
        Size of the last axis of the output.
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or callable
    kernel_regularizer, bias_regularizer, activity_regularizer : str or callable, optional
    kernel_constraint, bias_constraint : str or callable, optional
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if int(units) <= 0:
            raise ValueError(
                f"Received an invalid value for `units`, expected a positive integer. Received: units={units}"
            )
        self._configure(
            units=int(units),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self.input_spec = InputSpec(min_ndim=2)

    def build(self, input_shape):
        depth = input_shape[-1]
        if depth is None:
            raise ValueError(
                "The last dimension of the inputs to a Dense layer should be defined. Found None. "
                f"Full input shape received: {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            "kernel",
            shape=(depth, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(min_ndim=2, axes={-1: depth})
        super().build(input_shape)

    def call(self, inputs, later=0):
        if isinstance(inputs, np.ndarray) and inputs.dtype.kind != "f":
            inputs = inputs.astype(self._dtype)
        outputs = product.matmul(inputs, self.kernel)
        if self.use_bias:
            outputs = merge.add(outputs, self.bias)
        return activate(self.activation, outputs, later)

    def _waits(self, readers):
        return waits_to_rectify(self.activation, readers)

    def compute_output_shape(self, input_shape):
        return TensorShape((*input_shape[:-1], self.units))


def activate(activation, outputs, later=0):
    """The activation of `outputs`; none costs nothing."""
    if activation is None or activation is activations.linear:
        return outputs
    if later and activation is activations.relu and outputs.dtype == np.float32:
        return Rectified(outputs)
    return activation(outputs)


def waits_to_rectify(activation, readers):
    """Whether the only reader may make the activation."""
    return activation is activations.relu and len(readers) == 1 and readers[0]._knows(Rectified)


class _Elementwise(ConfiguredLayer):
    """A layer whose output has the shape of its input."""

    def compute_output_shape(self, input_shape):
        return input_shape


class Activation(_Elementwise):
    """An activation function as a layer.

    Parameters
    ----------
    activation : str or callable
    """

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self._configure(activation=activation)

    def call(self, inputs, later=0):
        return activate(self.activation, inputs, later)

    def _waits(self, readers):
        return waits_to_rectify(self.activation, readers)


class ReLU(_Elementwise):
    """Rectified linear unit.

    ``max_value`` at most, ``x`` above ``threshold``, ``negative_slope * (x - threshold)`` below.

    Parameters
    ----------
    max_value : float, optional
    negative_slope, threshold : float
    """

    def __init__(self, max_value=None, negative_slope=0.0, threshold=0.0, **kwargs):
        super().__init__(**kwargs)
        for name, value in (
            ("max_value", 0.0 if max_value is None else max_value),
            ("negative_slope", negative_slope),
            ("threshold", threshold),
        ):
            if value is None or value < 0:
                raise ValueError(f"{name} of a ReLU layer cannot be negative. Received: {value}")
        self._configure(
            max_value=None if max_value is None else float(max_value),
            negative_slope=float(negative_slope),
            threshold=float(threshold),
        )

    def call(self, inputs, later=0):
        if later and self._plain():
            return activate(activations.relu, inputs, later)
        return activations.relu(inputs, alpha=self.negative_slope, max_value=self.max_value, threshold=self.threshold)

    def _plain(self):
        return self.max_value is None and not self.negative_slope and not self.threshold

    def _waits(self, readers):
        return self._plain() and waits_to_rectify(activations.relu, readers)


class LeakyReLU(_Elementwise):
    """``x`` where positive, ``alpha * x`` elsewhere."""

    def __init__(self, alpha=0.3, **kwargs):
        super().__init__(**kwargs)
        if alpha is None:
            raise ValueError("The alpha value of a Leaky ReLU layer cannot be None.")
        self._configure(alpha=float(alpha))

    def call(self, inputs):
        return activations.relu(inputs, alpha=self.alpha)


class PReLU(_Elementwise):
    """``x`` where positive, ``alpha * x`` elsewhere, with a learned `alpha`.

    Parameters
    ----------
    alpha_initializer, alpha_regularizer, alpha_constraint : str or callable
    shared_axes : list of int, optional
        Axes along which one `alpha` is shared, such as ``[1, 2]`` for the pixels of an image.

    References
    ----------
    He et al., "Delving Deep into Rectifiers", 2015.
    """

    def __init__(
        self,
        alpha_initializer="zeros",
        alpha_regularizer=None,
        alpha_constraint=None,
        shared_axes=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if shared_axes is not None and not isinstance(shared_axes, (list, tuple)):
            shared_axes = [shared_axes]
        self._configure(
            alpha_initializer=alpha_initializer,
            alpha_regularizer=alpha_regularizer,
            alpha_constraint=alpha_constraint,
            shared_axes=None if shared_axes is None else list(shared_axes),
        )

    def build(self, input_shape):
        shared = [axis % len(input_shape) for axis in self.shared_axes or ()]
        shape = [1 if i in shared else d for i, d in enumerate(input_shape)][1:]
        self.alpha = self.add_weight(
            "alpha",
            shape=shape,
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )
        axes = {i: d for i, d in enumerate(input_shape) if i and i not in shared}
        self.input_spec = InputSpec(ndim=len(input_shape), axes=axes)
        super().build(input_shape)

    def call(self, inputs):
        return activations.relu(inputs) - self.alpha * activations.relu(-inputs)


class Softmax(_Elementwise):
    """Normalized exponentials along `axis` (an integer or a list of them)."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self._configure(axis=axis)

    def call(self, inputs):
        if isinstance(self.axis, (list, tuple)):
            axis = tuple(self.axis)
            powers = np.exp(inputs - np.max(inputs, axis=axis, keepdims=True))
            return powers / np.sum(powers, axis=axis, keepdims=True)
        return activations.softmax(inputs, axis=self.axis)


class Dropout(_Elementwise):
    """In training, zeros with probability `rate` and the rest scaled up to keep the mean.

    Parameters
    ----------
    rate : float
        In [0, 1).
    noise_shape : sequence of int or None, optional
        Shape of the mask; axes of size one are shared, None takes the size of the input.
    seed : int, optional

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(rate, numbers.Real) or not 0 <= rate <= 1:
            raise ValueError(f"Dropout: invalid value {rate!r} for `rate`. Expected a scalar in [0, 1].")
        self._configure(rate=rate, noise_shape=noise_shape, seed=seed)
        self._generator = None if seed is None else np.random.default_rng(seed)

    def call(self, inputs, training=None):
        if not training or self.rate == 0:
            return inputs
        shape = inputs.shape
        if self.noise_shape is not None:
            shape = [size if n is None else n for n, size in zip(self.noise_shape, shape, strict=True)]
        if self.rate == 1:
            return inputs * np.zeros(shape, inputs.dtype)
        generator = self._generator or backend.random_generator()
        kept = generator.random(shape, dtype=np.float32) >= self.rate
        return inputs * (kept * inputs.dtype.type(1 / (1 - self.rate)))


class Flatten(ConfiguredLayer):
    """All axes but the first as one, in channels_last order."""

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self._configure(data_format=data_format_of(data_format))
        self.input_spec = InputSpec(min_ndim=1)

    def call(self, inputs):
        rank = len(inputs.shape)
        if self.data_format == "channels_first" and rank > 1:
            inputs = shape_ops.transpose(inputs, axes=(0, *range(2, rank), 1))
        size = math.prod(inputs.shape[1:])
        return shape_ops.reshape(inputs, shape=(inputs.shape[0], size))

    def compute_output_shape(self, input_shape):
        return TensorShape((input_shape[0], TensorShape(input_shape[1:]).num_elements()))


class Reshape(ConfiguredLayer):
    """Another shape of as many elements; one entry of `target_shape` may be -1."""

    def __init__(self, target_shape, **kwargs):
        super().__init__(**kwargs)
        self._configure(target_shape=tuple(target_shape))

    def _resolve(self, shape):
        target = TensorShape(self.target_shape)
        size = TensorShape(shape).num_elements()
        unknown = [i for i, d in enumerate(target) if d < 0]
        known = int(np.prod([d for d in target if d >= 0], dtype=np.int64))
        if len(unknown) > 1:
            raise ValueError(
                "There must be at most one unknown dimension in `target_shape`. "
                f"Received: target_shape={tuple(target)}."
            )
        if size is None:
            return TensorShape(None if d < 0 else d for d in target)
        if (size != known) if not unknown else (known == 0 or size % known):
            raise ValueError(
                "The total size of the tensor must be unchanged. "
                f"Received: input_shape={tuple(shape)}, target_shape={tuple(target)}"
            )
        return TensorShape(size // known if d < 0 else d for d in target)

    def call(self, inputs):
        return shape_ops.reshape(inputs, shape=(inputs.shape[0], *self._resolve(inputs.shape[1:])))

    def compute_output_shape(self, input_shape):
        return TensorShape((input_shape[0], *self._resolve(input_shape[1:])))


class Permute(ConfiguredLayer):
    """The axes after the first in another order; `dims` counts them from one."""

    def __init__(self, dims, **kwargs):
        super().__init__(**kwargs)
        dims = tuple(dims)
        if sorted(dims) != list(range(1, len(dims) + 1)):
            raise ValueError(
                "Invalid permutation argument `dims` for Permute Layer. The set of indices in "
                f"`dims` must be consecutive and start from 1. Received dims={dims}"
            )
        self._configure(dims=dims)
        self.input_spec = InputSpec(ndim=len(dims) + 1)

    def call(self, inputs):
        return shape_ops.transpose(inputs, axes=(0, *self.dims))

    def compute_output_shape(self, input_shape):
        return TensorShape((input_shape[0], *(input_shape[d] for d in self.dims)))


class Lambda(Layer):
    """Any function of tensors as a layer.

    Parameters
    ----------
    function : callable
    output_shape : tuple or callable, optional
        Shape of the output without the batch axis, or a function of the input's shape; by default
        it is found by running the function on zeros.
    arguments : dict, optional
        Further keyword arguments of the function.

    Notes
    -----
    `get_config` writes a function that is registered as a custom object by its name. Any other is
    kept in the configuration as it is: such a model can be cloned, but not written to JSON.
    """

    def __init__(self, function, output_shape=None, mask=None, arguments=None, **kwargs):
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"Lambda: expected a callable `function`. Received: {function!r}")
        self.function = function
        self.__dict__["arguments"] = dict(arguments or {})
        self.__dict__["_output_shape"] = output_shape
        code = getattr(function, "__code__", None)
        self._wants_training = (
            code is not None and "training" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        )

    def call(self, inputs, training=None):
        extra = {"training": training} if self._wants_training else {}
        return self.function(inputs, **self.arguments, **extra)

    def compute_output_shape(self, input_shape):
        if self._output_shape is None:
            # Layer's own way: run the function on zeros.
            return super().compute_output_shape(input_shape)
        if callable(self._output_shape):
            return as_shapes(self._output_shape(input_shape))
        first = input_shape
        while not is_shape(first):
            first = next(iter(first.values() if isinstance(first, dict) else first))
        return TensorShape((first[0], *self._output_shape))

    def get_config(self):
        name = getattr(self.function, "__name__", "")
        known = utils.get_registered_object(name) is self.function
        return {
            **super().get_config(),
            "function": name if known else self.function,
            "function_type": "function" if known else "raw",
            "module": getattr(self.function, "__module__", None),
            "output_shape": self._output_shape,
            "arguments": self.arguments,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        kind = config.pop("function_type", "raw")
        for key in ("module", "output_shape_type", "output_shape_module"):
            config.pop(key, None)
        given = config["function"]
        if kind == "function":
            name = given["config"] if isinstance(given, dict) else given
            config["function"] = utils.get_registered_object(name)
        if not callable(config["function"]):
            raise ValueError(
                "Lambda: the function of this layer is not known here. Files do not hold code: "
                "register a named function with `keras.utils.get_custom_objects()`. "
                f"Received: {given!r}"
            )
        return cls(**config)


# What an operator between symbolic tensors is called in a file that TensorFlow wrote.
_SYMBOLS = {
    "__operators__.add": np.add,
    "math.subtract": np.subtract,
    "math.multiply": np.multiply,
    "math.truediv": np.true_divide,
    "math.floordiv": np.floor_divide,
    "math.floormod": np.mod,
    "math.pow": np.power,
    "math.negative": np.negative,
    "math.abs": np.abs,
    "math.exp": np.exp,
    "math.log": np.log,
    "math.sqrt": np.sqrt,
    "math.square": np.square,
    "math.tanh": np.tanh,
    "math.sign": np.sign,
    "math.maximum": np.maximum,
    "math.minimum": np.minimum,
    "math.less": np.less,
    "math.less_equal": np.less_equal,
    "math.greater": np.greater,
    "math.greater_equal": np.greater_equal,
    "math.reduce_sum": np.sum,
    "math.reduce_mean": np.mean,
    "math.reduce_max": np.max,
    "math.reduce_min": np.min,
    "math.reduce_prod": np.prod,
    "linalg.matmul": np.matmul,
    "nn.relu": elementwise.relu,
    "math.sigmoid": elementwise.sigmoid,
    "nn.softmax": elementwise.softmax,
}
_NAMES = {function: symbol for symbol, function in _SYMBOLS.items()}


def _symbol_of(function):
    """What a configuration calls a function of tensors."""
    if function in _NAMES:
        return _NAMES[function]
    module = getattr(function, "__module__", None)
    # A ufunc does not say that it is NumPy's.
    return f"{module if isinstance(function, Operation) else 'numpy'}.{function.__name__}"


def _function_of(symbol):
    """The inverse of `_symbol_of`: only NumPy's functions and our own operations are found."""
    library, _, name = symbol.rpartition(".")
    if library == "numpy":
        return getattr(np, name, None)
    found = getattr(sys.modules.get(library), name, None)
    return found if isinstance(found, Operation) else _SYMBOLS.get(symbol)


def _constant(value):
    """An array of the default float type from the list that a file holds for it."""
    if not isinstance(value, list) or any(hasattr(leaf, "shape") for leaf in flatten(value)):
        return value
    array = np.asarray(value)
    return array.astype(backend.floatx()) if array.dtype.kind == "f" else array


class TFOpLambda(Layer):
    """A NumPy function of symbolic tensors; operators between them make one.

    Parameters
    ----------
    function : callable or str
        A function, or its name in a configuration.
    """

    _keeps_structure = True

    def __init__(self, function, name=None, **kwargs):
        symbol = function if isinstance(function, str) else _symbol_of(function)
        if isinstance(function, str):
            function = _function_of(symbol)
            if function is None:
                raise ValueError(f"TFOpLambda: unknown function {symbol!r}.")
        if name is None:
            name = f"tf.{symbol}" if symbol in _SYMBOLS else f"np.{function.__name__}"
            name = backend.unique_object_name(name, zero_based=True)
        kwargs["autocast"] = False
        super().__init__(name=name, **kwargs)
        self.function = function
        self._symbol = symbol
        self.built = True

    def call(self, x, y=None, args=(), training=None, later=0, **arguments):
        # Whatever takes any keyword is given `training`, which is not the function's.
        if self._adds() and y is not None and not arguments:
            return merge.total(x, _constant(y), later)
        others = args if y is None else (y, *args)
        return self.function(*map(_constant, (x, *others)), **arguments)

    def _adds(self):
        return self.function is np.add or self.function is merge.add

    def _waits(self, readers):
        return self._adds() and all(r._knows(Normalized) for r in readers)

    def _knows(self, kind):
        return kind is Normalized and self._adds()

    def __call__(self, x, *args, name=None, **kwargs):
        # Recorded under names, as a configuration of TensorFlow's holds the arguments of a call.
        if args:
            kwargs.update({"y": args[0]} if len(args) == 1 else {"args": list(args)})
        return super().__call__(x, **kwargs)

    def get_config(self):
        return {**super().get_config(), "function": self._symbol}


_ELLIPSIS = {"class_name": "__ellipsis__"}


class SlicingOpLambda(Layer):
    """An index into a symbolic tensor."""

    _keeps_structure = True

    def __init__(self, function="__operators__.getitem", name=None, **kwargs):
        name = name or backend.unique_object_name("tf.__operators__.getitem", zero_based=True)
        kwargs["autocast"] = False
        super().__init__(name=name, **kwargs)
        self.built = True

    def call(self, inputs, slice_spec):
        def index(spec):
            if spec == _ELLIPSIS:
                return Ellipsis
            if isinstance(spec, dict):
                return slice(spec["start"], spec["stop"], spec["step"])
            return spec

        many = isinstance(slice_spec, (list, tuple))
        return inputs[tuple(map(index, slice_spec)) if many else index(slice_spec)]

    def __call__(self, inputs, slice_spec):
        # A file holds slices as dictionaries, so the call is recorded in that form.
        def written(spec):
            if spec is Ellipsis:
                return _ELLIPSIS
            if isinstance(spec, slice):
                return {"start": spec.start, "stop": spec.stop, "step": spec.step}
            return spec

        many = isinstance(slice_spec, (list, tuple))
        spec = [written(s) for s in slice_spec] if many else written(slice_spec)
        return super().__call__(inputs, slice_spec=spec)

    def get_config(self):
        return {**super().get_config(), "function": "__operators__.getitem"}


__all__ = [
    "Activation",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "InputLayer",
    "Lambda",
    "LeakyReLU",
    "PReLU",
    "Permute",
    "ReLU",
    "Reshape",
    "SlicingOpLambda",
    "Softmax",
    "TFOpLambda",
]
