"""Each quantised layer against the same layer with float operands, and against `np.matmul` of the equivalent product.

A row is forward, and forward with both gradients: packed (both quantizers "ste_sign") beside its float twin (no
quantizer), in alternation, as medians. Results of the packed layer are checked before they are timed: a twin that
quantises by a function of floats must give the same numbers.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import bnnlayers as lq

SIGN, CLIP = "ste_sign", "weight_clip"


def one_kernel(name, *args, **kwargs):
    def make(packed):
        quantizers = {"input_quantizer": SIGN, "kernel_quantizer": SIGN, "kernel_constraint": CLIP} if packed else {}
        return getattr(lq.layers, name)(*args, use_bias=False, **quantizers, **kwargs)

    return make


def depthwise(packed):
    binary = {"input_quantizer": SIGN, "depthwise_quantizer": SIGN, "depthwise_constraint": CLIP}
    quantizers = binary if packed else {}
    return lq.layers.QuantDepthwiseConv2D(3, padding="same", use_bias=False, **quantizers)


def separable(name, filters):
    def make(packed):
        names = ("input_quantizer", "depthwise_quantizer", "pointwise_quantizer") if packed else ()
        quantizers = dict.fromkeys(names, SIGN) | {n.replace("quantizer", "constraint"): CLIP for n in names[1:]}
        return getattr(lq.layers, name)(filters, 3, padding="same", use_bias=False, **quantizers)

    return make


# name, layer, shape of the input, (rows, depth, columns) of the equivalent product or None
CASES = [
    ("QuantDense", one_kernel("QuantDense", 1024), (64, 1024), (64, 1024, 1024)),
    ("QuantConv1D", one_kernel("QuantConv1D", 256, 3, padding="same"), (16, 128, 256), (2048, 768, 256)),
    ("QuantConv2D", one_kernel("QuantConv2D", 128, 3, padding="same"), (16, 28, 28, 128), (12544, 1152, 128)),
    ("QuantConv3D", one_kernel("QuantConv3D", 64, 3, padding="same"), (2, 8, 14, 14, 64), (3136, 1728, 64)),
    ("QuantDepthwiseConv2D", depthwise, (16, 28, 28, 256), None),
    ("QuantSeparableConv1D", separable("QuantSeparableConv1D", 256), (16, 128, 256), (2048, 256, 256)),
    ("QuantSeparableConv2D", separable("QuantSeparableConv2D", 128), (16, 28, 28, 128), (12544, 128, 128)),
    (
        "QuantConv2DTranspose",
        one_kernel("QuantConv2DTranspose", 128, 4, strides=2, padding="same"),
        (16, 14, 14, 256),
        (3136, 256, 2048),
    ),
    (
        "QuantConv3DTranspose",
        one_kernel("QuantConv3DTranspose", 32, 2, strides=2),
        (2, 4, 8, 8, 64),
        (512, 64, 256),
    ),
    ("QuantLocallyConnected1D", one_kernel("QuantLocallyConnected1D", 64, 3), (16, 64, 64), (992, 192, 64)),
    ("QuantLocallyConnected2D", one_kernel("QuantLocallyConnected2D", 64, 3), (16, 14, 14, 64), (2304, 576, 64)),
]


def by_function(x):
    return lq.quantizers.ste_sign(x)


def check(make, packed, x):
    """Against a twin whose quantizers are functions of floats."""
    floats = make(True)
    for name in list(vars(floats)):
        if name.endswith("quantizer") and getattr(floats, name) is not None:
            setattr(floats, name, lambda v: by_function(v))
    floats(x[:1])
    floats.set_weights(packed.get_weights())
    np.testing.assert_allclose(floats(x[:1]), packed(x[:1]), rtol=1e-4, atol=1e-3)


def shortest(function, budget):
    best, spent = float("inf"), 0.0
    while spent < budget:
        start = time.perf_counter()
        function()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
    return best


def calls(layer, x, dy):
    """Forward, and forward with both gradients."""

    def forward():
        layer(x)

    def both():
        with lq.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        tape.gradient(y, [x, *layer.trainable_variables], output_gradients=dy)

    return forward, both


def measure(case, rounds, budget, threads):
    name, make, shape, product = case
    rng = np.random.default_rng(0)
    x = lq.constant(rng.standard_normal(shape, dtype=np.float32))
    packed, floats = make(True), make(False)
    dy = rng.standard_normal(packed(x).shape, dtype=np.float32)
    floats(x)
    check(make, packed, x)
    times = {key: [] for key in ("packed", "packed both", "float", "float both", "sgemm")}
    runs = {}
    runs["packed"], runs["packed both"] = calls(packed, x, dy)
    runs["float"], runs["float both"] = calls(floats, x, dy)
    if product:
        rows, depth, columns = product
        left = rng.standard_normal((rows, depth), dtype=np.float32)
        right = rng.standard_normal((depth, columns), dtype=np.float32)
        runs["sgemm"] = lambda: left @ right
    for _ in range(rounds):
        for key, run in runs.items():
            times[key].append(shortest(run, budget))
            if threads > 1:
                time.sleep(0.1)  # BLAS workers spin for tens of milliseconds after a call
    ms = {key: 1e3 * statistics.median(values) for key, values in times.items() if values}
    return {"layer": name, "arithmetic": packed.arithmetic, "milliseconds": ms}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.03, help="seconds per block of calls")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/layers.json"))
    options = parser.parse_args()
    lq.set_num_threads(options.threads)
    rows = []
    heads = ("sgemm ms", "packed ms", "float / packed", "packed both", "float / packed")
    print(f"{'layer':<26}{'arithmetic':<14}" + "".join(f"{head:>16}" for head in heads))
    with threadpool_limits(options.threads, user_api="blas"):
        for case in CASES:
            row = measure(case, options.rounds, options.budget, options.threads)
            rows.append(row)
            ms = row["milliseconds"]
            sgemm = f"{ms['sgemm']:.3f}" if "sgemm" in ms else "-"
            print(
                f"{row['layer']:<26}{'+'.join(row['arithmetic']):<14}{sgemm:>16}{ms['packed']:>16.3f}"
                f"{ms['float'] / ms['packed']:>15.1f}x{ms['packed both']:>16.3f}"
                f"{ms['float both'] / ms['packed both']:>15.2f}x",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"threads": options.threads, "level": lq.ops.level, "rows": rows}, indent=1))
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
