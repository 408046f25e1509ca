"""Values and pseudo-gradients of every quantizer, sign function and activation of larq."""

from functools import partial

import larq as lq
import numpy as np
import tensorflow as tf
from archive import resolve

from .registry import family, generator


def obj(name, **config):
    return {"class_name": name, "config": config}


SPECS = [
    *({"function": f} for f in ("ste_sign", "approx_sign", "swish_sign", "ste_tern")),
    {"function": "ste_heaviside"},
    *("ste_sign", "approx_sign", "ste_heaviside", "swish_sign"),
    *("magnitude_aware_sign", "ste_tern", "dorefa_quantizer"),
    *(obj("SteSign", clip_value=c) for c in (1.0, 0.3, 1.5, None)),
    obj("ApproxSign"),
    *(obj("SteHeaviside", clip_value=c) for c in (1.0, 0.3, None)),
    *(obj("SwishSign", beta=b) for b in (5.0, 1.0, 10.0)),
    *(obj("MagnitudeAwareSign", clip_value=c) for c in (1.0, 0.3, None)),
    *(obj("SteTern", threshold_value=t) for t in (0.05, 0.3, 0.0)),
    obj("SteTern", threshold_value=0.3, clip_value=1.5),
    obj("SteTern", threshold_value=0.3, clip_value=None),
    obj("SteTern", ternary_weight_networks=True),
    obj("SteTern", ternary_weight_networks=True, clip_value=None),
    *(obj("DoReFa", k_bit=k, mode="activations") for k in (1, 2, 3, 4, 8)),
    *(obj("DoReFa", k_bit=k, mode="weights") for k in (1, 2, 3, 4, 8)),
    obj("NoOp", precision=1),
]

ELEMENTWISE = [
    ("math", {"function": "sign"}, {}),
    ("math", {"function": "heaviside"}, {}),
    ("activations", {"function": "hard_tanh"}, {}),
    ("activations", {"function": "leaky_tanh"}, {}),
    ("activations", {"function": "leaky_tanh"}, {"alpha": 0.5}),
]


def grid(dtype=np.float32):
    """Zeros, every threshold in use with its neighbours, code boundaries, magnitudes."""
    points = [0.0, 0.05, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0, 1.5]
    points += [i / 30 for i in range(31)]
    points = np.array(points, dtype)
    around = [points, np.nextafter(points[1:], dtype(9)), np.nextafter(points[1:], dtype(-9))]
    # Denormals are left out: TensorFlow flushes them.
    wide = np.array([1.2e-38, 1e-30, 1e-7, 2.0, 3.0, 10.0, 50.0, 1e4, 1e30, 3.4e38], dtype)
    positive = np.concatenate([*around, wide])
    positive = positive[(positive == 0) | (positive > 1e-37)]
    return np.concatenate([positive, -positive])


def inputs(rng):
    """`(name, x)`: the grid, the grid with infinities, with a NaN, and random tensors."""
    plain = grid()
    # A mean or a sum over the wide magnitudes would overflow and hide everything else.
    moderate = plain[np.abs(plain) < 5]
    yield "grid", plain
    yield "moderate", moderate[: len(moderate) // 4 * 4].reshape(-1, 4)
    yield "inf", np.concatenate([moderate, np.array([np.inf, -np.inf], np.float32)])
    yield "inf2d", np.array([[np.inf, 0.5, -0.0], [-2, -np.inf, 0.25]], np.float32)
    yield "nan", np.array([np.nan, 0.0, -0.0, 0.5, -0.5, 2, -2], np.float32)
    yield "nan2d", np.array([[np.nan, 0.5, -0.0], [-2, 0.75, 0.25]], np.float32)
    yield "zeros", np.array([[0.0, -0.0], [0.0, 0.0]], np.float32)
    yield "random1d", rng.normal(size=33).astype(np.float32)
    yield "random2d", rng.normal(size=(9, 5)).astype(np.float32)
    yield "random4d", rng.normal(size=(3, 3, 4, 3)).astype(np.float32)
    yield "float64", np.concatenate([grid(np.float64)[::7], rng.normal(size=5)])


def record(function, x, dy):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    dx = tape.gradient(y, x, output_gradients=tf.constant(dy, y.dtype))
    return {"x": x.numpy(), "dy": dy.astype(y.dtype.name), "y": y.numpy()} | ({} if dx is None else {"dx": dx.numpy()})


def label(spec):
    if isinstance(spec, str):
        return spec
    if "function" in spec:
        return spec["function"] + "()"
    config = ",".join(f"{k}={v}" for k, v in spec["config"].items())
    return f"{spec['class_name']}({config})"


@family
def quantizers():
    rng = generator("quantizers")
    data = [(n, x, rng.normal(size=x.shape).astype(x.dtype)) for n, x in inputs(rng)]
    for spec in SPECS:
        for name, x, dy in data:
            quantizer = lq.quantizers.get(resolve(spec, lq.quantizers))
            yield (
                {
                    "id": f"{label(spec)}-{name}",
                    "quantizer": spec,
                    "precision": precision(quantizer),
                },
                record(quantizer, x, dy),
            )


def precision(quantizer):
    return getattr(quantizer, "precision", None)


@family
def elementwise():
    rng = generator("elementwise")
    data = [(n, x, rng.normal(size=x.shape).astype(x.dtype)) for n, x in inputs(rng)]
    for module, spec, kwargs in ELEMENTWISE:
        function = resolve(spec, getattr(lq, module))
        for name, x, dy in data:
            suffix = "".join(f",{k}={v}" for k, v in kwargs.items())
            yield (
                {
                    "id": f"{module}.{spec['function']}{suffix}-{name}",
                    "module": module,
                    "function": spec["function"],
                    "kwargs": kwargs,
                },
                record(partial(function, **kwargs), x, dy),
            )
