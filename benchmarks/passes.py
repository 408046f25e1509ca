"""What surrounds the products in a training step, against the copying of memory.

A row is the bytes that a pass has to read and to write in a second, each array counted once, as a share of what a copy
of floats of the same shape does in alternation with it; medians. Two sets of operands take turns, and results lie in
memory that waits for them, as while a model trains. Every result that NumPy has a short form of is checked first.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import bnnlayers as lq
from bnnlayers import _core, geometry
from bnnlayers.ops import memory

SHAPES = [(8, 56, 56, 64), (8, 112, 112, 64), (8, 56, 56, 384)]


def windows(shape, size, padding):
    batch, height, width, channels = shape
    options = {"strides": (2, 2), "padding": padding, "dilation": (1, 1), "groups": channels, "function": "passes"}
    return geometry.convolution(batch, (height, width), channels, (size, size), channels, **options)


def passes(shape):
    """Two sets of operands, and for each pass its name, its function of a set, NumPy's, and its arrays of floats."""
    rng = np.random.default_rng(1)
    batch, height, width, channels = shape
    rows = batch * height * width
    zero, one = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    small, wide = windows(shape, 2, "valid"), windows(shape, 3, "same")

    def operands():
        x, dy = (rng.standard_normal((rows, channels), np.float32) for _ in range(2))
        integers = rng.integers(-500, 500, (rows, channels), np.int16)
        mask = _core.pack(rng.standard_normal((rows, channels), np.float32), 1, None)[0][0]
        return x, dy, integers, mask, np.zeros_like(x)

    sets = operands(), operands()
    winners = {g: _core.max_pool(sets[0][0], g, True)[1] for g in (small, wide)}
    flow = rng.standard_normal((rows // 4, channels), np.float32)

    def masked(dy, mask):
        return np.where(_core.unpack(mask, channels, 1) < 0, dy, 0)

    def pooled(x):
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    return sets, [
        ("mask of a gradient", lambda x, dy, i, m, s: _core.select(dy, m, 1), lambda x, dy, i, m, s: masked(dy, m), 2),
        ("the same, added", lambda x, dy, i, m, s: _core.select(dy, m, 1, s, True), None, 3),
        ("relu", lambda x, *_: _core.rectify(x, np.inf, np.inf, True)[0], lambda x, *_: np.maximum(x, 0), 2),
        ("moments", lambda x, dy, i, *_: _core.moments(i, 1e-3)[0], lambda x, dy, i, *_: i.mean(0), 0.5),
        ("normalize", lambda x, dy, i, *_: _core.normalize(i, zero, one, one), lambda x, dy, i, *_: i + one, 1.5),
        ("signs of it", lambda x, dy, i, *_: _core.normalize_sign(i, zero, one, one, 1.0)[0], None, 0.5),
        (
            "sums of its gradient",
            lambda x, dy, i, m, s: _core.norm_sums(i, dy, zero, one, m)[0],
            lambda x, dy, i, m, s: masked(dy, m).sum(0),
            1.5,
        ),
        (
            "its gradient, added",
            lambda x, dy, i, m, s: _core.normalize_grad(i, dy, zero, one, zero, zero, m, (s,), True),
            None,
            3.5,
        ),
        ("max pool 2x2", lambda x, *_: _core.max_pool(x, small, True)[0], lambda x, *_: pooled(x), 1.25),
        ("its gradient", lambda *_: _core.max_pool_grad(flow, winners[small], small), None, 1.25),
        ("max pool 3x3, stride 2", lambda x, *_: _core.max_pool(x, wide, True)[0], None, 1.25),
        ("its gradient", lambda *_: _core.max_pool_grad(flow, winners[wide], wide), None, 1.25),
    ]


def seconds(function, sets, calls=6):
    taken = []
    for i in range(calls):
        start = time.perf_counter()
        function(*sets[i % 2])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(shape, rounds):
    sets, cases = passes(shape)
    target = np.empty_like(sets[0][0])
    for name, function, plain, arrays in cases:
        if plain:
            actual, expected = (np.asarray(f(*sets[0])) for f in (function, plain))
            np.testing.assert_allclose(actual.reshape(expected.shape), expected, 1e-5, 1e-5 * len(target))
        times = [(seconds(function, sets), seconds(lambda x, *_: np.copyto(target, x), sets)) for _ in range(rounds)]
        yield {
            "shape": shape,
            "pass": name,
            "milliseconds": 1e3 * statistics.median(mine for mine, _ in times),
            "of copy": statistics.median(arrays / 2 * copy / mine for mine, copy in times),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/passes.json"))
    options = parser.parse_args()
    lq.set_num_threads(options.threads)
    rows = []
    with memory.held():
        for shape in SHAPES:
            print("x".join(map(str, shape)) + f"{'ms':>24}{'of a copy':>14}")
            for row in measure(shape, options.rounds):
                rows.append(row)
                print(f"  {row['pass']:<28}{row['milliseconds']:>9.3f}{row['of copy']:>13.0%}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"threads": options.threads, "level": lq.ops.level, "rows": rows}, indent=1))
    print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
