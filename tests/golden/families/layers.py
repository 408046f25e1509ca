"""Forward, losses and all gradients of larq's eleven layers, over configurations drawn at random.

Two out of three cases hold multiples of 1/8 (1/4 upstream), small enough that every sum is exact in
float32 whatever its order: what such a case computes with exact quantizers must be reproduced to
the bit. The others hold arbitrary floats.

What TensorFlow cannot run on a CPU (channels_first, the gradients of grouped convolutions, unequal
strides or dilations), or gets wrong (three-dimensional convolutions with a stride wider than the
kernel, padding "same"), is computed from larq's quantizers and plain stride-1 convolutions instead;
such a case says `"reference": "decomposed"`. That computation is checked here against larq's own
layer wherever TensorFlow can run both.
"""

import math

import larq as lq
import numpy as np
import tensorflow as tf
from archive import resolve

from .quantizers import SPECS, obj
from .registry import Deck, family, generator

keras = tf.keras

FOUNDATION = [
    None,
    "ste_sign",
    obj("SteSign", clip_value=0.5),
    obj("SteSign", clip_value=None),
    "approx_sign",
    obj("SteSign", clip_value=1.0),
    obj("ApproxSign"),
    {"function": "ste_sign"},
]
MASKED = [s for s in SPECS if s not in FOUNDATION and s != obj("DoReFa", k_bit=8, mode="weights")]
EVERY = [None, "ste_sign", "approx_sign", obj("SteSign", clip_value=0.5), *MASKED]

ACTIVATIONS = [None, None, None, None, "relu", "hard_tanh", "tanh", "linear", "sigmoid", "softmax"]
REGULARIZERS = [None] * 6 + [obj("L2", l2=0.25), obj("L1", l1=0.125), obj("L1L2", l1=0.5, l2=0.125)]
ACTIVITY = [None] * 8 + [obj("L2", l2=0.125), obj("L1", l1=0.25)]
CONSTRAINTS = [None, "weight_clip"]
PADS = [0.0, 0.0, 1.0, -1.0, 0.5, -0.3]
CHANNELS = [1, 2, 3, 4, 5, 8, 31, 32, 33, 64, 65]

MAX_ELEMENTS = 4000


# -- drawing ------------------------------------------------------------------------------------


class Draw:
    """Random arguments of one layer; every option of every argument comes up equally often."""

    def __init__(self, name, quantizers):
        self.rng = generator(name)
        self.quantizers = quantizers
        self.decks = {}

    def __call__(self, name, options):
        return self.decks.setdefault((name, str(options)), Deck(self.rng, options)).deal()

    def tuple(self, name, rank, options):
        """One number for all axes, or one each."""
        if self(name + " alike", [True, False]):
            return self(name, options)
        return [self(name, options) for _ in range(rank)]

    def quantized(self, *kernels):
        """Arguments that every layer has, for each of its kernels."""
        kwargs = {
            "input_quantizer": self("input_quantizer", self.quantizers),
            "use_bias": self("use_bias", [True, False]),
            "activation": self("activation", ACTIVATIONS),
            "bias_regularizer": self("bias_regularizer", REGULARIZERS),
            "activity_regularizer": self("activity_regularizer", ACTIVITY),
        }
        for kernel in kernels:
            kwargs[f"{kernel}_quantizer"] = self(f"{kernel}_quantizer", self.quantizers[::-1])
            kwargs[f"{kernel}_regularizer"] = self(f"{kernel}_regularizer", REGULARIZERS)
            kwargs[f"{kernel}_constraint"] = self("constraint", CONSTRAINTS)
        return kwargs

    def strides_or_dilation(self, rank):
        which = self("strides or dilation", ["strides", "dilation_rate", None])
        return {which: self.tuple(which, rank, [1, 2, 3])} if which else {}

    def shape(self, data_format, spatial, channels):
        batch = self("batch", [1, 2, 3])
        last = data_format != "channels_first"
        return [batch, *spatial, channels] if last else [batch, channels, *spatial]

    def spatial(self, rank, channels):
        options = {1: range(4, 14), 2: range(3, 9), 3: range(2, 6)}[rank]
        if channels > 16:
            options = options[: len(options) // 2]
        return [self("size", options) for _ in range(rank)]

    def format(self):
        return self("data_format", ["channels_last", "channels_last", "channels_first", None])


def dense(draw):
    channels = draw("channels", [*CHANNELS, 63, 127, 128, 129])
    lead = draw("lead", [[2], [3], [1], [5], [2, 3], [2, 1, 3]])
    kwargs = {"units": draw("units", [1, 2, 3, 5, 10, 33]), **draw.quantized("kernel")}
    return kwargs, [*lead, channels]


def conv(draw, rank):
    # Keras takes channels_first for a one-dimensional convolution as well.
    data_format = draw.format()
    groups = draw("groups", [1, 1, 1, 2, 3])
    channels = draw("channels", CHANNELS if groups == 1 else [groups, 4 * groups, 33 * groups])
    paddings = ["valid", "same", "same", "causal"] if rank == 1 else ["valid", "same", "same"]
    kwargs = {
        "filters": groups * draw("filters", [1, 2, 3, 5]),
        "kernel_size": draw.tuple("kernel_size", rank, [1, 2, 3, 4] if rank < 3 else [1, 2, 3]),
        "padding": draw("padding", paddings),
        **draw.strides_or_dilation(rank),
        **draw.quantized("kernel"),
    }
    if kwargs["padding"] == "same":
        kwargs["pad_values"] = draw("pad_values", PADS)
    if groups > 1:
        kwargs["groups"] = groups
    if rank > 1 or data_format:
        kwargs["data_format"] = data_format
    return kwargs, draw.shape(data_format, draw.spatial(rank, channels), channels)


def depthwise(draw):
    data_format = draw.format()
    kwargs = {
        "kernel_size": draw.tuple("kernel_size", 2, [1, 2, 3, 4]),
        "padding": draw("padding", ["valid", "same", "same"]),
        "depth_multiplier": draw("depth_multiplier", [1, 1, 2, 3]),
        "data_format": data_format,
        **draw.strides_or_dilation(2),
        **draw.quantized("depthwise"),
    }
    if kwargs["padding"] == "same":
        kwargs["pad_values"] = draw("pad_values", PADS)
    channels = draw("channels", CHANNELS)
    return kwargs, draw.shape(data_format, draw.spatial(2, channels), channels)


def separable(draw, rank):
    data_format = draw.format()
    paddings = ["valid", "same", "same", "causal"] if rank == 1 else ["valid", "same", "same"]
    kwargs = {
        "filters": draw("filters", [1, 2, 3, 5]),
        "kernel_size": draw.tuple("kernel_size", rank, [1, 2, 3, 4]),
        "padding": draw("padding", paddings),
        "depth_multiplier": draw("depth_multiplier", [1, 1, 2, 3]),
        "data_format": data_format,
        **draw.strides_or_dilation(rank),
        **draw.quantized("depthwise", "pointwise"),
    }
    if kwargs["padding"] == "same":
        kwargs["pad_values"] = draw("pad_values", PADS)
    channels = draw("channels", CHANNELS)
    return kwargs, draw.shape(data_format, draw.spatial(rank, channels), channels)


def transposed(draw, rank):
    data_format = draw.format()
    kwargs = {
        "filters": draw("filters", [1, 2, 3, 5]),
        "kernel_size": draw.tuple("kernel_size", rank, [1, 2, 3, 4] if rank == 2 else [1, 2, 3]),
        "padding": draw("padding", ["valid", "same"]),
        "data_format": data_format,
        **draw.strides_or_dilation(rank),
        **draw.quantized("kernel"),
    }
    if "strides" in kwargs and draw("output_padding given", [True, False]):
        kwargs["output_padding"] = draw.tuple("output_padding", rank, [0, 1, 2])
    spatial = [draw("size", range(1, 6) if rank == 2 else range(1, 4)) for _ in range(rank)]
    return kwargs, draw.shape(data_format, spatial, draw("channels", CHANNELS))


def local(draw, rank):
    data_format = draw.format()
    implementation = draw("implementation", [1, 2, 3])
    kwargs = {
        "filters": draw("filters", [1, 2, 3]),
        "kernel_size": draw.tuple("kernel_size", rank, [1, 2, 3]),
        "strides": draw.tuple("strides", rank, [1, 1, 2, 3]),
        "padding": "valid" if implementation == 1 else draw("padding", ["valid", "same"]),
        "data_format": data_format,
        "implementation": implementation,
        **draw.quantized("kernel"),
    }
    spatial = [draw("size", range(3, 8) if rank == 1 else range(2, 6)) for _ in range(rank)]
    return kwargs, draw.shape(data_format, spatial, draw("channels", [1, 2, 3, 4, 5, 31, 32, 33]))


# -- larq's layer, and the same computation in plain convolutions ------------------------------


def build(layer, kwargs):
    spaces = {"quantizer": lq.quantizers, "regularizer": keras.regularizers}
    kwargs = {name: resolve(value, spaces.get(name.rsplit("_", 1)[-1])) for name, value in kwargs.items()}
    return getattr(lq.layers, layer)(**kwargs)


def differentiate(call, x, weights, dy):
    """Gradients of `sum(y * dy) + sum(losses)`, where `call(x, weights)` gives `y` and `losses`."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        tape.watch([w for w in weights if not isinstance(w, tf.Variable)])
        y, losses = call(x, weights)
        target = tf.reduce_sum(y * dy) + sum(losses)
    dx, *dweights = tape.gradient(target, [x, *weights], unconnected_gradients="zero")
    arrays = {"y": y.numpy(), "dy": dy, "dx": dx.numpy()}
    arrays |= {f"dw{i}": tf.convert_to_tensor(dw).numpy() for i, dw in enumerate(dweights)}
    arrays["losses"] = np.array([float(v) for v in losses], np.float32)
    return arrays


def direct(layer, x, dy):
    """What larq computes; None where TensorFlow cannot."""

    def call(x, weights):
        y = layer(x)
        return y, layer.losses

    # An exception inside a quantized layer leaves larq's scope on.
    with lq.context.quantized_scope(False):
        try:
            return differentiate(call, x, layer.trainable_weights, dy)
        except (tf.errors.OpError, ValueError):
            return None


def wrong_in_tensorflow(layer):
    three = getattr(layer, "rank", None) == 3 and layer.padding == "same"
    return three and any(s > k for s, k in zip(layer.strides, layer.kernel_size, strict=True))


def per_axis(value, rank):
    return list(value) if isinstance(value, (list, tuple)) else [value] * rank


def insert_zeros(x, axis, step):
    """`step - 1` zeros between neighbours along `axis`."""
    n = x.shape[axis]
    shape = x.shape.as_list()
    x = tf.expand_dims(x, axis + 1)
    x = tf.pad(x, [[0, 0]] * (axis + 1) + [[0, step - 1]] + [[0, 0]] * (len(shape) - axis - 1))
    x = tf.reshape(x, [*shape[:axis], n * step, *shape[axis + 1 :]])
    return tf.gather(x, range((n - 1) * step + 1), axis=axis)


def plain_conv(x, kernel, groups):
    """Valid, stride 1, channels last: one convolution per group."""
    options = {"padding": "VALID", "data_format": {3: "NWC", 4: "NHWC", 5: "NDHWC"}[len(x.shape)]}
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.convolution(a, k, **options) for a, k in parts], -1)


def same_padding(size, kernel, stride, dilation):
    total = (math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    total = max(total, 0)
    return [total // 2, total - total // 2]


def strided_conv(layer, x, kernel, groups):
    rank = len(x.shape) - 2
    kernel_size, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
    pads = [[0, 0]] * rank
    if layer.padding == "same":
        sizes = x.shape[1:-1]
        pads = [same_padding(*a) for a in zip(sizes, kernel_size, strides, dilation, strict=True)]
    if layer.padding == "causal":
        pads = [[(kernel_size[0] - 1) * dilation[0], 0]]
    x = tf.pad(x, [[0, 0], *pads, [0, 0]], constant_values=layer.pad_values)
    for axis in range(rank):
        kernel = insert_zeros(kernel, axis, dilation[axis])
    y = plain_conv(x, kernel, groups)
    for axis in range(rank):
        y = tf.gather(y, range(0, y.shape[axis + 1], strides[axis]), axis=axis + 1)
    return y


def transposed_conv(layer, x, kernel):
    rank = len(x.shape) - 2
    # Keras takes dilation_rate in three dimensions and does nothing with it.
    dilation = layer.dilation_rate if rank == 2 else [1] * rank
    batch_first = [1, *x.shape[1:]] if layer.data_format == "channels_last" else None
    shape = batch_first or [1, x.shape[-1], *x.shape[1:-1]]
    out = layer.compute_output_shape(shape)[1 : -1 if batch_first else None]
    out = out if batch_first else out[1:]
    crops = []
    for axis in range(rank):
        stride, size = layer.strides[axis], x.shape[axis + 1]
        kernel = insert_zeros(kernel, axis, dilation[axis])
        reach = kernel.shape[axis]
        x = insert_zeros(x, axis + 1, stride)
        low = 0
        if layer.padding == "same":
            low = same_padding(out[axis], layer.kernel_size[axis], stride, dilation[axis])[0]
        full = (size - 1) * stride + reach
        crops.append((low, out[axis], max(0, low + out[axis] - full)))
        widths = [[0, 0] for _ in x.shape]
        widths[axis + 1] = [reach - 1, reach - 1]
        x = tf.pad(x, widths)
    flipped = tf.reverse(kernel, range(rank))
    y = plain_conv(x, tf.linalg.matrix_transpose(flipped), 1)
    for axis, (low, length, missing) in enumerate(crops):
        widths = [[0, 0] for _ in y.shape]
        widths[axis + 1] = [0, missing]
        y = tf.gather(tf.pad(y, widths), range(low, low + length), axis=axis + 1)
    return y


def decomposed(layer, x, dy):
    """The same numbers from larq's quantizers and plain convolutions."""
    name = type(layer).__name__
    variables = layer.trainable_weights
    latent = [tf.constant(v.latent_variable if hasattr(v, "latent_variable") else v) for v in variables]
    names = [v.name.split("/")[-1].split(":")[0] for v in variables]

    def call(x, weights):
        w = dict(zip(names, weights, strict=True))
        quantized = {}
        for key, value in w.items():
            quantizer = getattr(layer, key.replace("_kernel", "") + "_quantizer", None)
            quantized[key] = quantizer(value) if quantizer else value
        losses = []
        for key, value in w.items():
            regularizer = getattr(layer, key.replace("_kernel", "") + "_regularizer")
            if regularizer:
                losses.append(regularizer(value))
        batch = x.shape[0]
        if layer.input_quantizer:
            x = layer.input_quantizer(x)
        rank = len(x.shape) - 2
        first = layer.data_format == "channels_first"
        if first:
            x = tf.transpose(x, [0, *range(2, rank + 2), 1])
        if "depthwise_kernel" in quantized:
            kernel = quantized["depthwise_kernel"]
            # One group per channel: (taps, C, m) becomes (taps, 1, C * m).
            kernel = tf.reshape(kernel, [*kernel.shape[:-2], 1, -1])
            y = strided_conv(layer, x, kernel, x.shape[-1])
            if "pointwise_kernel" in quantized:
                y = plain_conv(y, quantized["pointwise_kernel"], 1)
        elif "Transpose" in name:
            y = transposed_conv(layer, x, quantized["kernel"])
        else:
            y = strided_conv(layer, x, quantized["kernel"], layer.groups)
        if layer.use_bias:
            y = y + quantized["bias"]
        if first:
            y = tf.transpose(y, [0, rank + 1, *range(1, rank + 1)])
        y = layer.activation(y)
        if layer.activity_regularizer:
            losses.insert(0, layer.activity_regularizer(y) / batch)
        return y, losses

    return differentiate(call, x, latent, dy)


# -- cases --------------------------------------------------------------------------------------

INTEGER_VALUES = ("SteSign", "ApproxSign", "SteHeaviside", "SwishSign", "SteTern")
EXACT_GRADIENTS = ("SteSign", "ApproxSign", "SteHeaviside", "SteTern")
CLASS_OF = {
    "ste_sign": "SteSign",
    "approx_sign": "ApproxSign",
    "ste_heaviside": "SteHeaviside",
    "swish_sign": "SwishSign",
    "magnitude_aware_sign": "MagnitudeAwareSign",
    "ste_tern": "SteTern",
    "dorefa_quantizer": "DoReFa",
}


def exactness(spec, on_grid):
    """Whether a quantizer's values, and its gradients, carry no rounding on such inputs."""
    if isinstance(spec, dict) and "function" in spec:
        spec = spec["function"]
    if isinstance(spec, str):
        spec = obj(CLASS_OF[spec])
    if spec is None or spec["class_name"] == "NoOp":
        return on_grid, True
    name = spec["class_name"]
    if name == "DoReFa" and spec["config"].get("k_bit", 2) == 1:
        return True, spec["config"]["mode"] == "activations"
    return name in INTEGER_VALUES, name in EXACT_GRADIENTS


def exact_outputs(kwargs, weight_names, on_grid):
    """Names of the arrays that any order of summation reproduces to the bit."""
    kernels = [n.replace("_kernel", "") for n in weight_names if n != "bias"]
    x_values, x_gradient = exactness(kwargs["input_quantizer"], on_grid)
    k = [exactness(kwargs[f"{kernel}_quantizer"], on_grid) for kernel in kernels]
    padded = kwargs["padding"] == "same" if "padding" in kwargs else False
    values = x_values and all(value for value, _ in k)
    values &= not (padded and kwargs.get("pad_values") == -0.3)
    y = values and (on_grid or not kwargs["use_bias"])
    y &= kwargs["activation"] in (None, "linear", "relu", "hard_tanh")
    exact = {"y"} if y else set()
    slope = kwargs["activation"] in (None, "linear") or y
    if on_grid and slope and not kwargs["activity_regularizer"]:
        if x_gradient and all(value for value, _ in k):
            exact.add("dx")
        for i, name in enumerate(weight_names):
            if name == "bias" or values and k[kernels.index(name.replace("_kernel", ""))][1]:
                exact.add(f"dw{i}")
    return sorted(exact)


def without_kinks(kwargs):
    """Sums that cancel to zero but for rounding must not meet a kink at zero."""
    smooth = {"relu": "tanh", "hard_tanh": "sigmoid"}
    kwargs["activation"] = smooth.get(kwargs["activation"], kwargs["activation"])
    if kwargs["activity_regularizer"]:
        kwargs["activity_regularizer"] = obj("L2", l2=0.125)


def special_points(rng, array, thresholds):
    """Put zeros of both signs, and every threshold, somewhere into `array`."""
    flat = array.reshape(-1)
    points = np.array([0.0, -0.0, *thresholds, *(-t for t in thresholds)], np.float32)
    count = min(len(flat) // 3, len(points))
    flat[rng.choice(len(flat), count, replace=False)] = rng.permutation(points)[:count]


def thresholds(spec):
    config = spec.get("config", {}) if isinstance(spec, dict) else {}
    return [1.0] + [v for k, v in config.items() if k.endswith("_value") and v]


def randoms(rng, shape, on_grid, step, limit):
    if on_grid:
        return (rng.integers(-limit * step, limit * step + 1, shape) / step).astype(np.float32)
    return (rng.normal(size=shape) * limit / 2).astype(np.float32)


def depths(layer, names, x_shape, y_shape):
    """How many products each sum holds, at most: output, input gradient, weight gradients."""
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    channels, filters = x_shape[axis], y_shape[axis]
    taps = math.prod(getattr(layer, "kernel_size", [1]))
    pixels = max(math.prod(x_shape) // channels, math.prod(y_shape) // filters)
    if "Locally" in type(layer).__name__:
        return {"y": taps * channels, "dx": taps * filters} | {f"dw{i}": x_shape[0] for i in range(len(names))}
    multiplier = getattr(layer, "depth_multiplier", 1)
    per_kernel = {
        "kernel": (taps * channels, taps * filters, pixels),
        "depthwise_kernel": (taps, taps * multiplier, pixels * (filters if "pointwise_kernel" in names else 1)),
        "pointwise_kernel": (channels * multiplier, filters, pixels * taps),
        "bias": (1, 1, pixels),
    }
    y, dx, dw = zip(*(per_kernel[name] for name in names), strict=True)
    return {"y": math.prod(y), "dx": math.prod(dx)} | {f"dw{i}": depth for i, depth in enumerate(dw)}


def check(one, other, exact):
    """The two computations agree, to the bit where the sums are exact."""
    for name in one:
        if name in exact:
            np.testing.assert_array_equal(one[name], other[name], name)
        scale = max(1.0, float(np.abs(other[name]).max(initial=0)))
        assert one[name].shape == other[name].shape, name
        assert np.abs(one[name] - other[name]).max(initial=0) < 2e-5 * scale, name


def run(name, kwargs, x_shape, rng, on_grid):
    """One case, or None if Keras refuses the arguments or the tensors are too big."""
    keras.backend.clear_session()
    kernels = [key.removesuffix("_constraint") for key in kwargs if key.endswith("_constraint")]
    quantizers = [kwargs["input_quantizer"], *(kwargs[f"{k}_quantizer"] for k in kernels)]
    if "y" not in exact_outputs(kwargs, kernels, on_grid) and (on_grid or any(quantizers)):
        without_kinks(kwargs)
    try:
        layer = build(name, kwargs)
        with tf.device("cpu"):
            layer.build(x_shape)
            y_shape = layer.compute_output_shape(x_shape)
    except ValueError:
        return None
    if min(y_shape) < 1:
        return None
    sizes = [w.shape.num_elements() for w in layer.trainable_weights]
    if math.prod(x_shape) + math.prod(y_shape) + sum(sizes) > MAX_ELEMENTS:
        return None

    x = randoms(rng, x_shape, on_grid, 8, 2)
    names = [w.name.split("/")[-1].split(":")[0] for w in layer.trainable_weights]
    regular = [kwargs.get(n.replace("_kernel", "") + "_regularizer") for n in names]
    weights = [randoms(rng, w.shape, on_grid, 8, 1) for w in layer.trainable_weights]
    if kwargs["input_quantizer"] is not None or not on_grid:
        special_points(rng, x, thresholds(kwargs["input_quantizer"]))
    for i, key in enumerate(names):
        spec = kwargs.get(key.replace("_kernel", "") + "_quantizer")
        if key != "bias" and spec is not None and not (on_grid and regular[i]):
            special_points(rng, weights[i], thresholds(spec))
    layer.set_weights(weights)

    dy = randoms(rng, y_shape, on_grid, 4, 2)
    exact = exact_outputs(kwargs, names, on_grid)
    outcome = None if wrong_in_tensorflow(layer) else direct(layer, x, dy)
    reference = "direct" if outcome else "decomposed"
    if hasattr(layer, "dilation_rate"):
        layer = build(name, kwargs)
        layer.build(x_shape)
        layer.set_weights(weights)
        other = decomposed(layer, x, dy)
        if outcome:
            check(outcome, other, exact)
        outcome = outcome or other
    meta = {
        "layer": name,
        "kwargs": kwargs,
        "weights": names,
        "reference": reference,
        "exact": exact,
        "depth": depths(layer, names, x_shape, y_shape),
    }
    arrays = {"x": x, **{f"w{i}": w for i, w in enumerate(weights)}, **outcome}
    return meta, arrays


def cases(name, draw_arguments, count, seed, quantizers):
    draw = Draw(seed, quantizers)
    done = 0
    while done < count:
        kwargs, x_shape = draw_arguments(draw)
        case = run(name, kwargs, x_shape, draw.rng, on_grid=done % 3 < 2)
        if case:
            meta, arrays = case
            yield {"id": f"{name}-{done}", **meta}, arrays
            done += 1


LAYERS = {
    "QuantDense": dense,
    "QuantConv1D": lambda draw: conv(draw, 1),
    "QuantConv2D": lambda draw: conv(draw, 2),
    "QuantConv3D": lambda draw: conv(draw, 3),
    "QuantDepthwiseConv2D": depthwise,
    "QuantSeparableConv1D": lambda draw: separable(draw, 1),
    "QuantSeparableConv2D": lambda draw: separable(draw, 2),
    "QuantConv2DTranspose": lambda draw: transposed(draw, 2),
    "QuantConv3DTranspose": lambda draw: transposed(draw, 3),
    "QuantLocallyConnected1D": lambda draw: local(draw, 1),
    "QuantLocallyConnected2D": lambda draw: local(draw, 2),
}


def register(name, file, count, quantizers):
    family(name=file)(lambda: cases(name, LAYERS[name], count, file, quantizers))


for layer_name in LAYERS:
    if layer_name in ("QuantDense", "QuantConv2D"):
        register(layer_name, layer_name, 66, FOUNDATION)
        register(layer_name, layer_name + "_quantizers", 48, EVERY)
    else:
        register(layer_name, layer_name, 48, EVERY)
