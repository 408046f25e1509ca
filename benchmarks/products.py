"""Layers from float32 input, everything included, as a multiple of `np.matmul` of the same product in the same run.

Prints a table and writes it as JSON. Every result is checked before it is timed. Float and binary runs alternate, and
what is reported is the median; on a shared machine a single run means nothing.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import bnnlayers as lq

BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def dense(batch, units=4096):
    layer = lq.layers.QuantDense(units, **BINARY)
    return f"dense {units}x{units}, batch {batch}", layer, (batch, units), batch, units, units


def conv(batch, size, channels):
    layer = lq.layers.QuantConv2D(channels, 3, padding="same", **BINARY)
    shape = (batch, size, size, channels)
    name = f"conv 3x3 {size}x{size}x{channels}, batch {batch}"
    return name, layer, shape, batch * size * size, 9 * channels, channels


CASES = [dense(batch) for batch in (1, 64, 256)] + [
    conv(batch, size, channels)
    for batch in (1, 16)
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512))
]


def check(layer, x):
    """The layer's first image or row, against the same sum in integers."""
    y = layer(x[:1]).numpy()
    signs = np.where(x[:1] < 0, -1, 1).astype(np.int64)
    kernel = np.where(layer.get_weights()[0] < 0, -1, 1).astype(np.int64)
    if kernel.ndim == 2:
        expected = signs @ kernel
    else:
        padded = np.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        size = x.shape[1]
        expected = sum(
            padded[:, i : i + size, j : j + size] @ kernel[i, j] for i in range(3) for j in range(3)
        )
    np.testing.assert_array_equal(y, expected)
    assert layer.arithmetic == ("xnor",), layer.arithmetic


def seconds(function, budget):
    """Shortest of a few calls; alternating medians are taken over these."""
    best, spent = float("inf"), 0.0
    while spent < budget:
        start = time.perf_counter()
        function()
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
    return best


def measure(case, threads, rounds, budget):
    name, layer, shape, rows, depth, columns = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, dtype=np.float32)
    check(layer, x)
    left = rng.standard_normal((rows, depth), dtype=np.float32)
    right = rng.standard_normal((depth, columns), dtype=np.float32)
    product = np.empty((rows, columns), np.float32)
    tensor = lq.constant(x)
    dy = rng.standard_normal(layer(x).shape, dtype=np.float32)

    def forward():
        layer(x)

    def both():
        with lq.GradientTape() as tape:
            tape.watch(tensor)
            y = layer(tensor)
        tape.gradient(y, [tensor, *layer.trainable_variables], output_gradients=dy)

    ratios = {"forward": [], "forward+backward": []}
    times = {"sgemm": [], "forward": [], "forward+backward": []}
    with threadpool_limits(threads, user_api="blas"):
        lq.set_num_threads(threads)
        for _ in range(rounds):
            base = seconds(lambda: np.matmul(left, right, out=product), budget)
            times["sgemm"].append(base)
            time.sleep(0.1)  # BLAS workers spin for tens of milliseconds after a call
            for key, function in (("forward", forward), ("forward+backward", both)):
                taken = seconds(function, budget)
                times[key].append(taken)
                ratios[key].append(base / taken if key == "forward" else taken / base)
    return {
        "case": name,
        "threads": threads,
        "milliseconds": {key: 1e3 * statistics.median(values) for key, values in times.items()},
        "sgemm / forward": statistics.median(ratios["forward"]),
        "(forward + backward) / sgemm": statistics.median(ratios["forward+backward"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="alternations per case")
    parser.add_argument("--budget", type=float, default=0.03, help="seconds per block of calls")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("out/products.json"))
    options = parser.parse_args()

    blas = [f"{i['internal_api']} {i['version']} {i.get('architecture', '')}" for i in threadpool_info()]
    print(f"level {lq.ops.level}, NumPy {np.__version__}, BLAS {', '.join(blas)}\n")
    print(f"{'case':<34}{'threads':>8}{'sgemm ms':>10}{'fwd ms':>9}{'speedup':>9}{'fwd+bwd / sgemm':>17}")
    rows = []
    for threads in options.threads:
        for case in CASES:
            row = measure(case, threads, options.rounds, options.budget)
            rows.append(row)
            ms = row["milliseconds"]
            print(
                f"{row['case']:<34}{threads:>8}{ms['sgemm']:>10.3f}{ms['forward']:>9.3f}"
                f"{row['sgemm / forward']:>8.1f}x{row['(forward + backward) / sgemm']:>17.2f}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor(), "level": lq.ops.level, "numpy": np.__version__, "blas": blas}
    options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
