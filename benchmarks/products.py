"""Every product as a fraction of what this machine can add up, and as a multiple of `np.matmul` of the same product.

One table, printed and written as JSON. The yardsticks are measured between the products, in the same process: the step
of the level's own kernels on registers, with carry-save adders where it has some (`peak.h`, made with the C compiler on
demand), the copying of the same floats for packing, and NumPy's BLAS. Every result is checked before it is timed. What
is compared runs in alternation, and what is printed are medians of the ratios of one round; on a shared machine a
single run means nothing. Memory is held as while a model trains: `np.matmul`, too, finds the array of its result there.
One thread is timed by its own clock, several by the wall's. Where a neighbour on the same core halves its rate for
moments, `--quiet` lets each block of calls begin in another moment, if one comes within a second.

    python benchmarks/products.py                      # the table
    python benchmarks/products.py --plot roofline.png  # and a picture of it
    python benchmarks/products.py --isa                # the levels of the instruction set instead, on one thread
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import bnnlayers as lq
from bnnlayers import _core
from bnnlayers import geometry as geo
from bnnlayers.bits import pack_bits
from bnnlayers.ops import memory, product

HERE = Path(__file__).parent
ISA = HERE.parent / "csrc" / "isa"
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}
SQUARES = ((56, 64), (28, 128), (14, 256), (7, 512))


# ---- what the machine allows -----------------------------------------------------------------------------------------


class Peaks:
    """Multiply-adds of one core, by functions that return how many they did."""

    def __init__(self):
        self.compiler = shutil.which(os.environ.get("CC", "cc").split()[-1])
        self.libraries = {}

    def xnor(self, level):
        """The step that counts bits on a level, or None where it cannot be made."""
        return self._function(level, "peak_xnor", 2000)

    def fma(self, level):
        return self._function(level, "peak_fma", 20000)

    def amx(self):
        """int8 tiles, or None."""
        if platform.machine() != "x86_64" or platform.system() != "Linux":
            return None
        library = self._library("peak_amx", lambda: (HERE / "peak_amx.c").read_text())
        flags = Path("/proc/cpuinfo").read_text()
        if not library or "amx_int8" not in flags or not library.peak_amx_begin():
            return None
        return self._function("peak_amx", "peak_amx", 2000)

    def _function(self, level, name, rounds):
        # The source of a level, with the loop that is measured in place of the kernels.
        library = self._library(level, lambda: (ISA / f"{level}.c").read_text().replace("../kernels/table.h", "peak.h"))
        if not library:
            return None
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64]
        return lambda: function(rounds)

    def _library(self, key, source):
        if key not in self.libraries:
            self.libraries[key] = self._compiled(source()) if self.compiler else None
        return self.libraries[key]

    def _compiled(self, text):
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
            source.write_text(text)
            command = [self.compiler, "-std=gnu11", "-O3", "-shared", "-fPIC", f"-I{ISA}", f"-I{HERE}"]
            done = subprocess.run([*command, "-o", library, source], capture_output=True)
            return ctypes.CDLL(str(library)) if done.returncode == 0 else None


# ---- clocks ----------------------------------------------------------------------------------------------------------


def seconds(function, budget, clock):
    """Of one call: the shortest of as many as fit the budget. Short calls are repeated between looks at the clock."""
    best, spent, repeats = float("inf"), 0.0, 1
    while not spent or spent < budget:
        start = clock()
        for _ in range(repeats):
            function()
        taken = (clock() - start) / 1e9
        best, spent = min(best, taken / repeats), spent + taken
        if taken < 1e-4 and taken < budget / 4:
            repeats *= 2
    return best


class Quiet:
    """Waits for a moment when a core is as fast as it was at its best."""

    def __init__(self, probe):
        self.probe = probe
        self.best = self._look(200)
        self.found = self.asked = 0

    def _look(self, times):
        return min(seconds(self.probe, 0.0, time.thread_time_ns) for _ in range(times))

    def __call__(self):
        self.asked += 1
        for _ in range(50):
            if self._look(3) < 1.1 * self.best:
                self.found += 1
                return
            time.sleep(0.02)


@dataclass
class Case:
    """What one line of the table measures."""

    group: str
    name: str
    run: Callable[[], object]
    macs: float = 0  # multiply-adds that `run` has to do
    sgemm: tuple[int, int, int] | None = None  # the same product for BLAS: rows, depth, columns
    peak: Callable[[], int] | None = None
    others: dict[str, tuple[Callable[[], object], float]] = field(default_factory=dict)  # name: function, its MACs
    moved: float = 0  # bytes of operands and results
    notes: dict[str, float] = field(default_factory=dict)


@memory.held()
def measure(case, threads, rounds, budget, wait=lambda: None):
    """Times in seconds and ratios, medians over the rounds; `wait` is called before a block on one thread."""
    rng = np.random.default_rng(1)
    functions = {"run": case.run} | {name: function for name, (function, _) in case.others.items()}
    if case.peak:
        functions["peak"] = case.peak
    if case.sgemm:
        rows, depth, columns = case.sgemm
        left = rng.standard_normal((rows, depth), dtype=np.float32)
        right = rng.standard_normal((depth, columns), dtype=np.float32)
        out = np.empty((rows, columns), np.float32)
        functions["sgemm"] = lambda: np.matmul(left, right, out=out)
    times = {name: [] for name in functions} | {f"run on {count}": [] for count in threads[1:]}
    wall = []
    for _ in range(rounds):
        lq.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"):
            for name, function in functions.items():
                wait()
                times[name].append(seconds(function, budget, time.thread_time_ns))
        if len(threads) > 1:
            wall.append(seconds(case.run, budget, time.perf_counter_ns))
            for count in threads[1:]:
                lq.set_num_threads(count)
                times[f"run on {count}"].append(seconds(case.run, budget, time.perf_counter_ns))
    lq.set_num_threads(threads[0])
    row = {"group": case.group, "case": case.name, **case.notes}
    row["ms"] = 1e3 * statistics.median(times["run"])
    if case.macs:
        row["GMAC/s"] = 1e-9 * case.macs / statistics.median(times["run"])

    def ratio(name, scale=1.0):
        return scale * statistics.median(b / a for a, b in zip(times["run"], times[name], strict=True))

    if case.sgemm:
        row["x sgemm"] = ratio("sgemm")
        row["in sgemms"] = 1 / row["x sgemm"]
    if case.peak:
        row["peak GMAC/s"] = 1e-9 * case.peak() / statistics.median(times["peak"])
        row["% of peak"] = 100 * ratio("peak", case.macs / case.peak())
    for name, (_, macs) in case.others.items():
        row[name] = ratio(name, case.macs / macs if macs else 1.0)
    for count in threads[1:]:
        row[f"x on {count} threads"] = statistics.median(
            b / a for a, b in zip(times[f"run on {count}"], wall, strict=True)
        )
    if case.moved:
        row["MAC/byte"] = case.macs / case.moved
    return row


# ---- packed operands -------------------------------------------------------------------------------------------------


def signs(rng, *shape):
    return np.where(rng.standard_normal(shape, dtype=np.float32) < 0, np.float32(-1), np.float32(1))


def conv_geometry(batch, size, channels, filters=None, kernel=3, stride=1, dilation=1, groups=1):
    pair = ((kernel, kernel), filters or channels)
    more = dict(strides=(stride, stride), padding="same", dilation=(dilation, dilation), groups=groups)
    return geo.convolution(batch, (size, size), channels, *pair, **more)


def valid_taps(geometry):
    """Taps inside of the image, over all output pixels of one image."""
    taps = 1
    g = geometry
    axes = zip(g.inputs, g.outputs, g.kernel, g.strides, g.dilation, g.pad, strict=True)
    for size, out, kernel, stride, dilation, pad in axes:
        at = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - pad
        taps *= int(((at >= 0) & (at < size)).sum())
    return taps


def useful(geometry):
    """Multiply-adds of a product, without those of padding."""
    g = geometry
    return float(g.batch * valid_taps(g) * (g.channels // g.groups) * g.filters)


def rows_of(geometry):
    """The product that BLAS would run after an im2col: rows, depth, columns."""
    pixels = geometry.batch * int(np.prod(geometry.outputs))
    return pixels, int(np.prod(geometry.kernel)) * geometry.channels, geometry.filters


def direct(x, w, geometry):
    """A 2-D convolution or a product, in float64; x (batch, rows, columns, C), w (taps, C, F)."""
    g = geometry
    (_, height, width), (_, stride, _), (_, top, left) = g.outputs, g.strides, g.pad
    (_, rows, columns), (_, step, _) = g.kernel, g.dilation
    x = x.reshape(len(x), *g.inputs[1:], g.channels).astype(np.float64)
    x = np.pad(x, ((0, 0), (top, rows * step + stride), (left, columns * step + stride), (0, 0)))
    w = w.reshape(rows, columns, g.channels // g.groups, g.filters).astype(np.float64)
    total = np.zeros((len(x), height, width, g.filters))
    depth, filters = g.channels // g.groups, g.filters // g.groups
    for i in range(rows):
        for j in range(columns):
            part = x[:, i * step :, j * step :][:, : height * stride : stride, : width * stride : stride]
            for group in range(g.groups):
                c, f = slice(group * depth, (group + 1) * depth), slice(group * filters, (group + 1) * filters)
                total[..., f] += part[..., c] @ w[i, j, :, f]
    return total.reshape(len(x), -1, g.filters)


def moved_bytes(geometry, left=4.0, right=0.125):
    """Operands of so many bytes a value, and float results, each once."""
    g = geometry
    inputs = g.batch * int(np.prod(g.inputs)) * g.channels
    weights = int(np.prod(g.kernel)) * g.channels // g.groups * g.filters
    return left * inputs + right * weights + 4 * g.batch * int(np.prod(g.outputs)) * g.filters


def first_image(x, geometry):
    """The first image, or the first rows of a dense product."""
    if geometry.batch == 1:
        return x, geometry
    return x[:1], geometry._replace(batch=1)


def packed(name, geometry, peak, group="packed operands", core=_core):
    rng = np.random.default_rng(0)
    x = signs(rng, geometry.batch, *geometry.inputs, geometry.channels)
    depth = geometry.channels // geometry.groups
    w = signs(rng, int(np.prod(geometry.kernel)), depth, geometry.filters)
    words, kernel = pack_bits(x, -1).words, pack_bits(w, 1)
    right = core.prepare(kernel.words, geometry.groups, geometry.channels, False)

    def run():
        return core.xnor(words, right, geometry, 0.0, False, np.float32)

    image, one = first_image(x, geometry)
    np.testing.assert_array_equal(run()[:1], direct(image[:, 0], w, one))
    return Case(group, name, run, useful(geometry), rows_of(geometry), peak, moved=moved_bytes(geometry, 0.125))


def conv_name(batch, size, channels):
    return f"conv 3x3 {size}x{size}x{channels}, batch {batch}"


def packed_cases(peak, core=_core):
    sizes = [(1024, 256, 256), (1024, 1024, 1024), (4096, 256, 256), (4096, 1024, 4096)]
    for depth, rows, columns in sizes:
        yield packed(f"GEMM {rows}x{depth}x{columns}", geo.dense(rows, depth, columns), peak, core=core)
    for batch in (1, 16):
        for size, channels in SQUARES:
            yield packed(conv_name(batch, size, channels), conv_geometry(batch, size, channels), peak, core=core)


# ---- layers from float32 ---------------------------------------------------------------------------------------------


def layer_case(name, layer, shape, geometry, group="from float32", arithmetic="xnor"):
    rng = np.random.default_rng(0)
    x = lq.constant(rng.standard_normal(shape, dtype=np.float32))
    image, one = (x[:1], geometry) if geometry.batch == 1 and len(shape) == 4 else first_image(x, geometry)
    y = np.asarray(layer(image))
    quantized = np.where(np.asarray(image) < 0, -1, 1) if layer.input_quantizer else np.asarray(image)
    kernel = np.where(np.asarray(layer.get_weights()[0]) < 0, -1, 1)
    image_of = quantized.reshape(len(image), *one.inputs[1:], -1) if len(shape) == 4 else quantized[None, None]
    expected = direct(image_of, kernel.reshape(-1, *kernel.shape[-2:]), one)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, atol=0 if arithmetic == "xnor" else 1e-2)
    if arithmetic != layer.arithmetic[0]:
        raise AssertionError(f"{name} runs {layer.arithmetic}")
    return Case(group, name, lambda: layer(x), useful(geometry), rows_of(geometry), moved=moved_bytes(geometry))


def layer_cases():
    for batch in (1, 64, 256):
        layer = lq.layers.QuantDense(4096, **BINARY)
        geometry = geo.dense(batch, 4096, 4096)
        yield layer_case(f"dense 4096x4096, batch {batch}", layer, (batch, 4096), geometry)
    for batch in (1, 16):
        for size, channels in SQUARES:
            layer = lq.layers.QuantConv2D(channels, 3, padding="same", **BINARY)
            shape = (batch, size, size, channels)
            yield layer_case(conv_name(batch, size, channels), layer, shape, conv_geometry(batch, size, channels))


# ---- floats times bits -----------------------------------------------------------------------------------------------


def relative_error(y, expected):
    return float(np.abs(y - expected).max() / np.abs(expected).max())


def signed_cases(batch=16):
    """The three products of a binary layer that have a float operand, and all that training does of the layer."""
    for size, channels in SQUARES:
        rng = np.random.default_rng(0)
        g, name = conv_geometry(batch, size, channels), conv_name(batch, size, channels)
        x, dy = (rng.standard_normal((batch, size * size, channels), dtype=np.float32) for _ in range(2))
        w = signs(rng, 9, channels, channels)
        bits = pack_bits(signs(rng, batch, size * size, channels), -1)
        forward_w, back_w = pack_bits(w, 1), pack_bits(w, 1)
        rows, depth, columns = rows_of(g)

        def product_of(transposed, x=x, dy=dy, g=g, w=(forward_w, back_w)):
            return product.times(dy if transposed else x, w[transposed], g, 0.0, transposed)

        def kernel_gradient(bits=bits, dy=dy, g=g):
            return product.reduce(bits, dy, g, 0.0, False)

        one = g._replace(batch=1)
        image = x[:1].reshape(1, size, size, channels)
        expected = direct(image, w, one)
        im2col = _core.im2col(x[:1], one, 0.0)[0]
        floor = relative_error(im2col @ w.reshape(depth, columns), expected[0])
        errors = {"forward": relative_error(product_of(False)[:1], expected) / floor}
        turned = np.ascontiguousarray(np.swapaxes(w[::-1], 1, 2))
        expected = direct(dy[:1].reshape(1, size, size, channels), turned, one)
        im2col = _core.im2col(dy[:1], one, 0.0)[0]
        floor = relative_error(im2col @ turned.reshape(depth, columns), expected[0])
        errors["input gradient"] = relative_error(product_of(True)[:1], expected) / floor
        im2col = _core.im2col(bits.numpy(), g, 0.0)[0]
        expected = im2col.T.astype(np.float64) @ dy.reshape(rows, columns)
        floor = relative_error(im2col.T @ dy.reshape(rows, columns), expected)
        errors["kernel gradient"] = relative_error(kernel_gradient().reshape(expected.shape), expected) / floor
        runs = {
            "forward": lambda f=product_of: f(False),
            "input gradient": lambda f=product_of: f(True),
            "kernel gradient": kernel_gradient,
        }
        for which, run in runs.items():
            if errors[which] > 4:
                raise AssertionError(f"{name}, {which}: {errors[which]:.1f} times the error of sgemm")
            moved = moved_bytes(g, 0.125, 4.0) if which == "kernel gradient" else moved_bytes(g)
            case = Case("float x bits", f"{name}, {which}", run, useful(g), (rows, depth, columns), moved=moved)
            case.notes["error / sgemm's"] = errors[which]
            yield case
        yield training_case(name, size, channels, batch, g)


def training_case(name, size, channels, batch, geometry):
    layer = lq.layers.QuantConv2D(channels, 3, padding="same", **BINARY)
    rng = np.random.default_rng(0)
    x = lq.constant(rng.standard_normal((batch, size, size, channels), dtype=np.float32))
    dy = rng.standard_normal(layer(x).shape, dtype=np.float32)

    def run():
        with lq.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, [x, *layer.trainable_variables], output_gradients=dy)

    if not all(np.isfinite(gradient).all() for gradient in run()):
        raise AssertionError(f"{name}: a gradient is not finite")
    return Case("float x bits", f"{name}, forward + backward", run, 3 * useful(geometry), rows_of(geometry))


# ---- small and awkward -----------------------------------------------------------------------------------------------


@dataclass
class Shape:
    """A layer of a network: dense where `size` is none, else a square image."""

    batch: int
    channels: int
    filters: int
    size: int | None = None
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    depthwise: bool = False

    def layer(self, binary):
        more = BINARY if binary else {"use_bias": False}
        if self.size is None:
            return lq.layers.QuantDense(self.filters, **more)
        more = dict(more, padding="same", strides=self.stride, dilation_rate=self.dilation)
        if self.depthwise:
            names = {"kernel_quantizer": "depthwise_quantizer", "kernel_constraint": "depthwise_constraint"}
            more = {names.get(key, key): value for key, value in more.items()}
            return lq.layers.QuantDepthwiseConv2D(self.kernel, **more)
        return lq.layers.QuantConv2D(self.filters, self.kernel, groups=self.groups, **more)

    def input(self):
        shape = (self.batch, self.channels) if self.size is None else (self.batch, self.size, self.size, self.channels)
        return lq.constant(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))

    def geometry(self):
        if self.size is None:
            return geo.dense(self.batch, self.channels, self.filters)
        groups = self.channels if self.depthwise else self.groups
        more = (self.filters, self.kernel, self.stride, self.dilation, groups)
        return conv_geometry(self.batch, self.size, self.channels, *more)


SMALL = (  # name, shape, the nearest round one
    ("C = 3, conv 3x3 32x32 -> 64", Shape(16, 3, 64, 32), Shape(16, 32, 64, 32)),
    ("C = 16, conv 3x3 32x32 -> 64", Shape(16, 16, 64, 32), Shape(16, 32, 64, 32)),
    ("C = 33, conv 3x3 32x32 -> 64", Shape(16, 33, 64, 32), Shape(16, 32, 64, 32)),
    ("C = 96, conv 3x3 32x32 -> 96", Shape(16, 96, 96, 32), Shape(16, 128, 128, 32)),
    ("K = 27, dense 16384 -> 64", Shape(16384, 27, 64), Shape(16384, 32, 64)),
    ("M = 1, dense 1024x1024", Shape(1, 1024, 1024), Shape(64, 1024, 1024)),
    ("M = 2, dense 1024x1024", Shape(2, 1024, 1024), Shape(64, 1024, 1024)),
    ("M = 7, dense 1024x1024", Shape(7, 1024, 1024), Shape(64, 1024, 1024)),
    ("N = 10, dense 1024, batch 64", Shape(64, 1024, 10), Shape(64, 1024, 32)),
    ("N = 1000, dense 1024, batch 64", Shape(64, 1024, 1000), Shape(64, 1024, 1024)),
    ("depthwise 3x3 28x28x256", Shape(16, 256, 256, 28, depthwise=True), None),
    ("grouped by 4, conv 3x3 28x28x128", Shape(16, 128, 128, 28, groups=4), Shape(16, 128, 128, 28)),
    ("1x1, 28x28x128", Shape(16, 128, 128, 28, kernel=1), Shape(16, 128, 128, 28)),
    ("stride 2, conv 3x3 56x56x64 -> 128", Shape(16, 64, 128, 56, stride=2), Shape(16, 64, 128, 28)),
    ("dilation 2, conv 3x3 28x28x128", Shape(16, 128, 128, 28, dilation=2), Shape(16, 128, 128, 28)),
)


def small_cases():
    for name, shape, near in SMALL:
        layer, twin, x = shape.layer(True), shape.layer(False), shape.input()
        geometry = shape.geometry()
        y = np.asarray(layer(x))
        kernel = np.where(np.asarray(layer.get_weights()[0]) < 0, -1, 1)
        if shape.depthwise:
            kernel = np.moveaxis(kernel, -1, -2)
        bits = np.where(np.asarray(x) < 0, -1, 1)
        image = bits[None, None] if shape.size is None else bits[:1]
        expected = direct(image, kernel.reshape(-1, *kernel.shape[-2:]), geometry._replace(batch=1))
        np.testing.assert_array_equal((y if shape.size is None else y[:1]).reshape(expected.shape), expected)
        twin(x)
        others = {"x float twin": (lambda f=twin, x=x: f(x), 0.0)}
        if near:
            round_layer, round_x = near.layer(True), near.input()
            round_layer(round_x)
            others["x round shape"] = (lambda f=round_layer, x=round_x: f(x), useful(near.geometry()))
        moved = moved_bytes(geometry)
        yield Case("small and awkward", name, lambda f=layer, x=x: f(x), useful(geometry), others=others, moved=moved)


# ---- packing ---------------------------------------------------------------------------------------------------------


def packing_cases():
    """Bytes that a packing reads and writes in a second, against those of a copy of the same floats."""
    rng = np.random.default_rng(0)
    for shape, axis in (
        ((1, 56, 56, 64), -1),
        ((16, 56, 56, 64), -1),
        ((4096, 4096), -1),
        ((4096, 4096), 0),
        ((3, 3, 256, 256), 2),
    ):
        x = rng.standard_normal(shape, dtype=np.float32)
        words, copy = _core.pack(x, axis, None)[0], np.empty_like(x)
        np.testing.assert_array_equal(_core.unpack(words[0], shape[axis], axis), np.where(x < 0, -1, 1))
        moved = x.nbytes + words.nbytes
        along = "" if axis == -1 else ", along a strided axis"
        name = f"{'x'.join(map(str, shape))} ({x.nbytes / 2**20:.1f} MiB){along}"
        case = Case("packing", name, lambda x=x, a=axis: _core.pack(x, a, None), moved)
        case.others["% of copy"] = (lambda x=x, copy=copy: np.copyto(copy, x), 2.0 * x.nbytes / 100)
        yield case


# ---- tables ----------------------------------------------------------------------------------------------------------

GROUPS = {
    "packed operands": lambda peak: packed_cases(peak),
    "from float32": lambda peak: layer_cases(),
    "float x bits": lambda peak: signed_cases(),
    "small and awkward": lambda peak: small_cases(),
    "packing": lambda peak: packing_cases(),
}


def print_row(row, columns):
    print(f"{row['case']:<50}" + "".join(f"{cell(row.get(c), c):>{len(c) + 2}}" for c in columns), flush=True)


def cell(value, column):
    return "" if value is None else f"{value:.{3 if column == 'ms' else 2 if column.startswith(('x ', 'in ')) else 1}f}"


def print_heads(title, columns):
    print(f"\n{title:<50}" + "".join(f"{c:>{len(c) + 2}}" for c in columns))


def table(options, peaks, wait):
    level = lq.ops.level
    rows = []
    for group in options.groups:
        columns = ["ms", "GB/s" if group == "packing" else "GMAC/s"]
        columns += ["% of peak"] if group == "packed operands" and peaks.xnor(level) else []
        columns += ["x sgemm"] if group in ("packed operands", "from float32", "float x bits") else []
        columns += {"float x bits": ["in sgemms", "error / sgemm's"], "packing": ["% of copy"]}.get(group, [])
        columns += ["x round shape", "x float twin"] if group == "small and awkward" else []
        columns += [f"x on {count} threads" for count in options.threads[1:]]
        print_heads(group, columns)
        for case in GROUPS[group](peaks.xnor(level)):
            row = measure(case, options.threads, options.rounds, options.budget, wait)
            if group == "packing":
                row["GB/s"] = row.pop("GMAC/s")
            print_row(row, columns)
            rows.append(row)
    return rows


def compare_levels(options, peaks, wait):
    """Every level of the instruction set on the same products: the same bits, in its own share of its own peak."""
    levels = list(_core.variants)
    columns = [column for level in levels for column in (f"{level} GMAC/s", f"{level} %")]
    print_heads("packed operands", columns)
    rows = []
    for cases in zip(*(packed_cases(peaks.xnor(level), _core.variants[level]) for level in levels), strict=True):
        expected = cases[0].run()
        for case in cases[1:]:
            np.testing.assert_array_equal(case.run(), expected)
        row = {"case": cases[0].name}
        for level, case in zip(levels, cases, strict=True):
            measured = measure(case, [1], options.rounds, options.budget, wait)
            row[f"{level} GMAC/s"] = measured["GMAC/s"]
            if "% of peak" in measured:
                row[f"{level} %"] = measured["% of peak"]
        print_row(row, columns)
        rows.append(row)
    return rows


def copy_bandwidth():
    """Bytes read and written in a second by a copy that no cache holds."""
    x = np.ones(1 << 24, np.float32)
    y = np.empty_like(x)
    return 2 * x.nbytes / seconds(lambda: np.copyto(y, x), 0.2, time.thread_time_ns)


def machine(peaks):
    blas = [f"{i['internal_api']} {i['version']} {i.get('architecture', '')}".strip() for i in threadpool_info()]
    limits = {"copy GB/s": 1e-9 * copy_bandwidth()}
    level = lq.ops.level
    functions = {"bits x bits": peaks.xnor(level), "float32 FMA": peaks.fma(level), "AMX int8": peaks.amx()}
    for name, function in functions.items():
        if function:
            limits[f"{name} GMAC/s"] = 1e-9 * function() / seconds(function, 0.1, time.thread_time_ns)
    return {
        "processor": processor(),
        "system": platform.platform(),
        "level": level,
        "numpy": np.__version__,
        "blas": blas,
        "limits of one core": limits,
    }


def processor():
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def plot(rows, limits, path):
    """Rates over the multiply-adds that a byte of operands and results allows."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if "MAC/byte" in row]
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    ends = min(row["MAC/byte"] for row in rows) / 2, max(row["MAC/byte"] for row in rows) * 2
    intensity = np.geomspace(*ends, 200)
    for name, limit in limits.items():
        if name != "copy GB/s":
            label = f"{name.removesuffix(' GMAC/s')}, {limit:.0f} GMAC/s"
            axes.plot(intensity, np.minimum(limits["copy GB/s"] * intensity, limit), label=label)
    for mark, group in zip("os^v", dict.fromkeys(row["group"] for row in rows), strict=False):
        points = [row for row in rows if row["group"] == group]
        axes.plot([p["MAC/byte"] for p in points], [p["GMAC/s"] for p in points], mark, label=group, alpha=0.7)
        for point in points:
            axes.annotate(point["case"], (point["MAC/byte"], point["GMAC/s"]), fontsize=5, rotation=20)
    title = f"slope: {limits['copy GB/s']:.1f} GB/s, what a copy reads and writes"
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds per byte", ylabel="GMAC/s on one core", title=title)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="alternations per case")
    parser.add_argument("--budget", type=float, default=0.02, help="seconds per block of calls")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="beginning with 1")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    parser.add_argument("--isa", action="store_true", help="compare the levels of the instruction set")
    parser.add_argument("--quiet", action="store_true", help="wait for moments when a core is as fast as ever")
    parser.add_argument("--plot", type=Path, help="write a roofline of all products")
    parser.add_argument("--out", type=Path, default=Path("out/products.json"))
    options = parser.parse_args()
    if options.isa and options.plot:
        parser.error("--plot is of the table, not of --isa")
    if options.threads[0] != 1:
        parser.error("--threads begins with 1, what the others are compared with")

    peaks = Peaks()
    with threadpool_limits(1, user_api="blas"):
        about = machine(peaks)
    for name, value in about.items():
        print(f"{name}: {', '.join(f'{k} {v:.1f}' for k, v in value.items()) if isinstance(value, dict) else value}")
    probe = peaks.amx() or peaks.xnor(lq.ops.level)  # tiles tell a neighbour from none best
    if options.quiet and not probe:
        parser.error("--quiet needs a C compiler, for what it looks at")
    wait = Quiet(probe) if options.quiet else lambda: None
    rows = (compare_levels if options.isa else table)(options, peaks, wait)
    if options.quiet:
        about["quiet"] = f"{wait.found} of {wait.asked} blocks"
        print(f"\nquiet at the beginning of {about['quiet']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1))
    print(f"\nwrote {options.out}")
    if options.plot:
        plot(rows, about["limits of one core"], options.plot)


if __name__ == "__main__":
    main()
