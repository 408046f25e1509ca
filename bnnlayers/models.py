"""`summary`: what a network holds, how many multiply-adds it takes, and which arithmetic runs them.

The table is larq's, column for column, with one column more: the kernels that each layer ran. A further one shows what
training keeps of its activations.
"""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .keras import backend, layers, models
from .keras.base_layer import context as calling
from .keras.structure import flatten, map_structure
from .ops.memory import slack as memory_slack
from .tape import GradientTape, Variable, constant
from .utils import memory_as_readable_str

__all__ = ["LayerProfile", "ModelProfile", "TrainingMemory", "summary"]

Cell = str | int | float

_LOCAL_LAYERS = (layers.LocallyConnected1D, layers.LocallyConnected2D)
_MAC_LAYERS = (layers.Dense, layers.Conv, *_LOCAL_LAYERS)
# Their multiply-adds are none, or part of the layer that they are fused with; those of others are unknown.
_FREE_LAYERS = (
    layers.Flatten,
    layers.BatchNormalization,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)


class WeightProfile:
    """Size of one weight."""

    def __init__(self, weight: Any, trainable: bool = True) -> None:
        self.bitwidth: int = getattr(weight, "precision", None) or 32
        self.count = math.prod(weight.shape)
        self.trainable = trainable
        self.is_bias = "bias" in weight.name

    @property
    def memory(self) -> int:
        """Bits as quantised."""
        return self.bitwidth * self.count

    @property
    def fp_equivalent_memory(self) -> int:
        """Bits as float32."""
        return 32 * self.count

    @property
    def int8_fp_weights_memory(self) -> int:
        """Bits if everything wider than 8 bits were cut down to 8."""
        return min(self.bitwidth, 8) * self.count


class _Profile:
    """Sums over the layers of a layer or model."""

    name: str
    layer_profiles: Sequence[Any]
    weight_profiles: Sequence[WeightProfile] = ()

    @property
    def memory(self) -> int:
        return self._sum("memory")

    @property
    def fp_equivalent_memory(self) -> int:
        return self._sum("fp_equivalent_memory")

    @property
    def int8_fp_weights_memory(self) -> int:
        return self._sum("int8_fp_weights_memory")

    def _sum(self, what: str) -> int:
        parts = [*self.weight_profiles, *self.layer_profiles]
        return sum(getattr(part, what) for part in parts)

    def weight_count(self, bitwidth: int | None = None, trainable: bool | None = None) -> int:
        """Number of weights, of one width or trainability if given."""
        own = sum(
            p.count
            for p in self.weight_profiles
            if bitwidth in (None, p.bitwidth) and trainable in (None, p.trainable)
        )
        return own + sum(p.weight_count(bitwidth, trainable) for p in self.layer_profiles)

    @property
    def unique_param_bidtwidths(self) -> list[int]:
        widths = {p.bitwidth for p in self.weight_profiles}
        return sorted(widths.union(*(p.unique_param_bidtwidths for p in self.layer_profiles)))

    @property
    def kept(self) -> Kept:
        """What a training step keeps of a sample; zero where it was not measured."""
        parts = [p.kept for p in self.layer_profiles]
        return Kept(*(sum(numbers) for numbers in zip(*parts, strict=True))) if parts else Kept()

    def generate_table_row(
        self, widths: Iterable[int], precisions: Iterable[int], training: bool = False
    ) -> list[Cell]:
        """Name, input precision, outputs, weights per width, kB, MACs per precision, what is kept, arithmetic."""
        return [
            self.name,
            self.input_precision or "-",
            self.output_shape_str,
            *(self.weight_count(width) for width in widths),
            _kilobytes(self.memory),
            *("?" if (n := self.op_count("mac", p)) is None else n for p in precisions),
            *([self.kept.bits_per_activation] if training else []),
            self.arithmetic,
        ]

    # What a layer and a model answer each in its own way.
    input_precision: int | None
    output_shape: Any
    output_shape_str: str
    output_pixels: int | None
    arithmetic: str

    def op_count(self, op_type: str = "mac", precision: int | None = None) -> int | None:
        raise NotImplementedError


class Kept(NamedTuple):
    """What a training step keeps for backward of each sample of a batch.

    Attributes
    ----------
    bits : int
    activations : int
        Values that come in.
    """

    bits: int = 0
    activations: int = 0

    @property
    def bits_per_activation(self) -> float:
        """32 where a float is kept, 16 where an integer is, 1 where a mask or a sign is, 0 where nothing is or it is
        computed again."""
        return self.bits / max(self.activations, 1)


class TrainingMemory(NamedTuple):
    """Bytes that a training step takes at its peak, beyond those of the interpreter and the data.

    Attributes
    ----------
    batch_size : int
    weights : int
        Of all weights, and their packed forms.
    optimizer : int
        Its state; zero if the model is not compiled.
    gradients : int
        Of the trainable weights.
    activations : int
        What is kept of them, and what the largest operation takes to compute and differentiate.
    gaps : int
        What may wait between arrays without ever being used again.
    """

    batch_size: int
    weights: int
    optimizer: int
    gradients: int
    activations: int
    gaps: int

    @property
    def total(self) -> int:
        return sum(self[1:])


class LayerProfile(_Profile):
    """Sizes and operations of one layer."""

    layer_profiles = ()
    kept = Kept()

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.name = layer.name
        trainable = {id(w) for w in layer.trainable_weights}
        self.weight_profiles = [WeightProfile(w, id(w) in trainable) for w in _fused_weights(layer)]

    @property
    def input_precision(self) -> int | None:  # type: ignore[override]
        return getattr(getattr(self._layer, "input_quantizer", None), "precision", None)

    @property
    def output_shape(self) -> Any:
        try:
            shape = self._layer.output_shape
        except AttributeError:
            return None
        if isinstance(shape, list):
            return _known(shape[0]) if len(shape) == 1 else [_known(s) for s in shape]
        return _known(shape)

    @property
    def output_shape_str(self) -> str:  # type: ignore[override]
        return str(self.output_shape or "multiple")

    @property
    def output_pixels(self) -> int | None:  # type: ignore[override]
        """Positions at which the weights are applied; 1 for a dense layer on vectors, None for several outputs."""
        shape = self.output_shape
        if not shape or isinstance(shape, list):
            return None
        first = getattr(self._layer, "data_format", None) == "channels_first"
        return math.prod(shape[2:] if first else shape[1:-1])

    @property
    def arithmetic(self) -> str:  # type: ignore[override]
        # A layer that knows nothing of quantization has nothing but floats.
        known = ("float",) if isinstance(self._layer, _MAC_LAYERS) else ()
        return " + ".join(getattr(self._layer, "arithmetic", known)) or "-"

    def _macs(self) -> list[tuple[int, int]]:
        """(precision, multiply-adds) of each kernel."""
        pixels = self.output_pixels
        if not isinstance(self._layer, _MAC_LAYERS) or not pixels:
            return []
        inputs = self.input_precision or 32
        kernels = [p for p in self.weight_profiles if not p.is_bias]
        return [(max(inputs, p.bitwidth), pixels * self._kernel_count(p)) for p in kernels]

    def _kernel_count(self, profile: WeightProfile) -> int:
        """Weights that meet one output pixel."""
        layer = self._layer
        if not isinstance(layer, _LOCAL_LAYERS):
            return profile.count
        # What its kernel holds depends on the implementation, what it computes does not.
        (channels,) = layer.input_spec.axes.values()
        return math.prod(layer.kernel_size) * channels * layer.filters

    @property
    def unique_op_precisions(self) -> list[int]:
        return sorted({precision for precision, _ in self._macs()})

    def op_count(self, op_type: str = "mac", precision: int | None = None) -> int | None:
        """Multiply-adds for one input, or None for a layer whose operations are not counted."""
        if op_type != "mac":
            raise ValueError(f"op_count(): argument 'op_type' must be 'mac', got {op_type!r}")
        if not isinstance(self._layer, _MAC_LAYERS + _FREE_LAYERS) or not self.output_pixels:
            return None
        return sum(count for p, count in self._macs() if precision in (None, p))


class ModelProfile(_Profile):
    """Sizes and operations of a model, layer by layer.

    Parameters
    ----------
    model : keras.Model
        Built.
    training : bool
        Whether to measure what a training step keeps for backward, and the memory that it takes. The model is run for
        it, on zeros; its state stays as it is.
    batch_size : int
        Of that training step.

    Raises
    ------
    ValueError
        If `training` is asked for and the shape of the model's inputs is not known.
    """

    training_memory: TrainingMemory | None = None

    def __init__(self, model: Any, training: bool = False, batch_size: int = 32) -> None:
        self.name = model.name
        self.layer_profiles = [
            ModelProfile(layer) if isinstance(layer, models.Model) else LayerProfile(layer) for layer in model.layers
        ]
        self._training = training
        if training:
            self._measure(model)
            self.training_memory = _training_memory(model, [p._layer for p in self._leaves()], batch_size)

    def _leaves(self) -> Iterator[LayerProfile]:
        for profile in self.layer_profiles:
            yield from profile._leaves() if isinstance(profile, ModelProfile) else [profile]

    def _measure(self, model: Any) -> None:
        leaves = list(self._leaves())
        found = []
        for batch in (1, 2):
            with GradientTape() as tape, _watched([p._layer for p in leaves], tape) as counts:
                _run_on_zeros(model, batch, training=True)
            found.append(counts)
        one, two = found
        for profile in leaves:
            # The difference of two batches has nothing of the weights in it.
            (bits, activations), (bits_of_two, _) = one[id(profile._layer)], two[id(profile._layer)]
            profile.kept = Kept(bits_of_two - bits, activations)

    @property
    def input_precision(self) -> int | None:  # type: ignore[override]
        return self.layer_profiles[0].input_precision

    @property
    def output_shape(self) -> Any:
        return self.layer_profiles[-1].output_shape

    @property
    def output_shape_str(self) -> str:  # type: ignore[override]
        return self.layer_profiles[-1].output_shape_str

    @property
    def output_pixels(self) -> int | None:  # type: ignore[override]
        return self.layer_profiles[-1].output_pixels

    @property
    def arithmetic(self) -> str:  # type: ignore[override]
        ran = {part for p in self.layer_profiles for part in p.arithmetic.split(" + ")} - {"-"}
        return " + ".join(sorted(ran)) or "-"

    @property
    def unique_op_precisions(self) -> list[int]:
        return sorted(set().union(*(p.unique_op_precisions for p in self.layer_profiles)))

    def op_count(self, op_type: str = "mac", precision: int | None = None) -> int:
        """Multiply-adds for one input, of the layers whose operations are counted."""
        return sum(p.op_count(op_type, precision) or 0 for p in self.layer_profiles)

    def generate_table(self, include_macs: bool = True) -> list[list[Cell]]:
        """Header, one row per layer, total."""
        widths = self.unique_param_bidtwidths
        precisions = self.unique_op_precisions if include_macs else []
        header: list[Cell] = [
            "Layer",
            "Input prec.\n(bit)",
            "Outputs",
            *(f"# {width}-bit\nx 1" for width in widths),
            "Memory\n(kB)",
            *(f"{precision}-bit MACs" for precision in precisions),
            *(["Kept\n(bit)"] if self._training else []),
            "Arithmetic",
        ]
        rows = [p.generate_table_row(widths, precisions, self._training) for p in self.layer_profiles]
        total = self.generate_table_row(widths, precisions, self._training)
        return [header, *rows, ["Total", "", "", *total[3:-1], ""]]

    def generate_summary(self, include_macs: bool = True) -> list[list[Cell]]:
        """Totals, each with its name."""
        rows: list[list[Cell]] = [
            ["Total params", _number_as_readable_str(self.weight_count())],
            ["Trainable params", _number_as_readable_str(self.weight_count(trainable=True))],
            ["Non-trainable params", _number_as_readable_str(self.weight_count(trainable=False))],
            ["Model size", memory_as_readable_str(self.memory)],
            ["Model size (8-bit FP weights)", memory_as_readable_str(self.int8_fp_weights_memory)],
            ["Float-32 Equivalent", memory_as_readable_str(self.fp_equivalent_memory)],
            ["Compression Ratio of Memory", self.memory / max(1e-8, self.fp_equivalent_memory)],
        ]
        if include_macs:
            macs = self.op_count("mac")
            rows.append(["Number of MACs", _number_as_readable_str(macs)])
            for precision, word in ((1, "binarized"), (2, "ternarized")):
                ratio = self.op_count("mac", precision) / max(1, macs)
                if ratio > 0:
                    rows.append([f"Ratio of MACs that are {word}", f"{ratio:.4f}"])
        if self.training_memory is not None:
            memory = self.training_memory
            rows += [
                ["Kept for backward, per sample", memory_as_readable_str(self.kept.bits)],
                [f"Training, batch of {memory.batch_size}", memory_as_readable_str(8 * memory.total)],
                ["  weights and gradients", memory_as_readable_str(8 * (memory.weights + memory.gradients))],
                ["  optimizer", memory_as_readable_str(8 * memory.optimizer)],
                ["  activations", memory_as_readable_str(8 * memory.activations)],
                ["  gaps between arrays", memory_as_readable_str(8 * memory.gaps)],
            ]
        return rows


@contextlib.contextmanager
def _watched(watched: Sequence[Any], tape: GradientTape) -> Iterator[dict[int, list[int]]]:
    """Count, by identity of the layer, the bits that a tape keeps of each call, and the values that go in."""
    counts = {id(layer): [0, 0] for layer in watched}

    def bits() -> int:
        return 8 * sum(size for _, size in tape.kept())

    def watching(layer: Any, call: Callable[[], Any], inputs: Any) -> Any:
        before = bits()
        outputs = call()
        counts[id(layer)][0] += bits() - before
        counts[id(layer)][1] += sum(math.prod(x.shape) for x in flatten(inputs))
        return outputs

    with _around_calls(watched, watching):
        yield counts


@contextlib.contextmanager
def _around_calls(watched: Sequence[Any], around: Callable[[Any, Callable[[], Any], Any], Any]) -> Iterator[None]:
    """Inside, a layer's ``call(inputs)`` is ``around(layer, call, inputs)``, where ``call()`` computes the outputs."""

    def watch(layer: Any) -> None:
        call = layer.call

        def watching(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return around(layer, lambda: call(inputs, *args, **kwargs), inputs)

        layer.__dict__["call"] = watching

    for layer in watched:
        watch(layer)
    try:
        yield
    finally:
        for layer in watched:
            layer.__dict__.pop("call", None)


# Bytes of inputs.
_SOON = 1 << 20


def _training_memory(model: Any, leaves: Sequence[Any], batch_size: int) -> TrainingMemory:
    """The peak of a step. Each of its moments takes memory in proportion to the batch, so a few samples tell; as many
    as are soon run, since what is done image by image is proportional only from there on."""
    variables = model.trainable_variables
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for weight in model.weights:
            getattr(weight, "forget_packed", lambda: None)()
        _peaks(model, leaves, variables, 1)
        packed = tracemalloc.get_traced_memory()[0] - before
        sample = sum(math.prod(x.shape[1:]) * np.dtype(x.dtype).itemsize for x in flatten(model.input))
        more = min(batch_size, max(8, _SOON // max(1, sample)))
        few = -(-more // 2)
        one, two = (_peaks(model, leaves, variables, batch) for batch in (few, more))
    finally:
        if not tracing:
            tracemalloc.stop()
    rest = (batch_size - more) / max(1, more - few)
    peak = max(int(b + rest * (b - a)) for a, b in zip(one, two, strict=True))
    gradients = sum(_bytes(v) for v in variables)
    optimizer = 0
    if model.optimizer is not None:
        probe = Variable(0.0)
        fresh = type(model.optimizer).from_config(model.optimizer.get_config())
        fresh.build([probe])
        optimizer = (len(fresh.variables) - 1) * gradients
    weights = sum(_bytes(w) for w in model.weights) + max(0, packed)
    activations = max(0, peak - gradients)
    gaps = memory_slack(weights + optimizer + gradients + activations)
    return TrainingMemory(batch_size, weights, optimizer, gradients, activations, gaps)


def _bytes(variable: Any) -> int:
    return math.prod(variable.shape) * variable.dtype.itemsize


def _peaks(model: Any, leaves: Sequence[Any], variables: Sequence[Any], batch: int) -> list[int]:
    """Bytes at the peak of each moment of a step: of the call of each layer, and of each step back."""
    base, peaks = tracemalloc.get_traced_memory()[0], []

    def moment() -> None:
        peaks.append(tracemalloc.get_traced_memory()[1] - base)
        tracemalloc.reset_peak()

    def calling_layer(layer: Any, call: Callable[[], Any], inputs: Any) -> Any:
        outputs = call()
        moment()
        return outputs

    with GradientTape() as tape, _around_calls(leaves, calling_layer):
        outputs = _run_on_zeros(model, batch, training=True)
    with tape.accounted(moment):
        gradients = tape.gradient(outputs, variables)
    moment()
    del gradients
    return peaks


def _run_on_zeros(model: Any, batch: int, training: bool) -> Any:
    """Call a model of known input shapes, without a trace in its state."""
    tensors = getattr(model, "inputs", None)
    if not tensors or any(None in tensor.shape[1:] for tensor in tensors):
        raise ValueError(f"summary(): the shape of the inputs of model {model.name!r} is not known")
    zeros = map_structure(lambda x: constant(np.zeros((batch, *x.shape[1:]), x.dtype)), model.input)
    random = backend.random_generator().bit_generator
    before, state = calling.inferring, random.state
    calling.inferring = True
    try:
        return model(zeros, training=training)
    finally:
        calling.inferring, random.state = before, state


def _fused_weights(layer: Any) -> list[Any]:
    """The weights that inference needs: a batch norm's offset and scale melt into its moving statistics."""
    weights = list(layer.weights)
    if isinstance(layer, layers.BatchNormalization):
        names = {w.name.split("/")[-1].removesuffix(":0"): w for w in weights}
        for melted, stays in (("beta", "moving_mean"), ("gamma", "moving_variance")):
            if melted in names and stays in names:
                weights = [w for w in weights if w is not names[melted]]
    return weights


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(-1 if dim is None else dim for dim in shape)


def _kilobytes(bits: int) -> Cell:
    return bits / (8 * 1024) if bits else 0


def _bitsize_as_str(bitsize: int) -> str:
    names = {8: "byte", 8 * 1024: "kB"}
    if bitsize not in names:
        raise NotImplementedError(f"no name for a unit of {bitsize} bits; expected one of {sorted(names)}")
    return names[bitsize]


def _number_as_readable_str(num: float) -> str:
    """Three significant figures with a unit, such as ``"96.2 k"``."""
    num = float(f"{num:.3g}")
    if num < 1000:
        return f"{num:g}"
    if num >= 1e15:
        return f"{num:.2E}"
    power = min(int(math.log10(num) + 1e-9) // 3, 4)
    return f"{num / 1000**power:.3g}" + ("", " k", " M", " B", " T")[power]


def _boxed(table: Sequence[Sequence[Cell]], title: str, *, header: bool) -> str:
    """The table in a box of ASCII characters; the first column is left-justified."""
    rows = [[(f"{v:.2f}" if isinstance(v, float) else str(v)).split("\n") for v in row] for row in table]
    widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(rows[0]))]
    inside = sum(widths) + 2 * len(widths)
    rule = "+" + "-" * inside + "+"
    lines = ["+" + title + "-" * (inside - len(title)) + "+"]
    for n, row in enumerate(rows):
        if header and n == len(rows) - 1:
            lines.append(rule)
        for k in range(max(len(cell) for cell in row)):
            cells = [cell[k] if k < len(cell) else "" for cell in row]
            justified = [
                f" {c:<{w}} " if i == 0 or not header else f" {c:>{w}} "
                for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("|" + "".join(justified) + "|")
        if header and n == 0:
            lines.append(rule)
    return "\n".join([*lines, rule])


def summary(
    model: Any,
    print_fn: Callable[[str], Any] | None = None,
    include_macs: bool = True,
    training: bool = False,
    batch_size: int = 32,
) -> None:
    """Print a network's layers with their precision, shapes, weights, memory, multiply-adds and arithmetic.

    Parameters
    ----------
    model : keras.Model
    print_fn : callable, optional
        Takes a string; default `print`.
    include_macs : bool
        Whether to count multiply-adds.
    training : bool
        Whether to show what a training step keeps of its activations for backward: bits per value that comes into a
        layer, and the total of a sample; and the memory that training takes at its peak, beyond that of the
        interpreter and the data. Measured on a few zeros.
    batch_size : int
        Of that training.

    Raises
    ------
    ValueError
        If the model has not been built, or `training` is asked for and the shape of its inputs is not known.

    Notes
    -----
    The precision of a multiply-add is the greater of its operands' precisions. As in larq, every weight of a kernel
    counts for every output pixel: at a padded border, and between the strides of a transposed layer, more than is
    computed.

    The last column names the kernels that the layer's last call ran: "xnor" on bits, "signed" on bits and floats,
    "float" on floats. Where there was no call yet, the model is run on zeros if the shape of its inputs is known.
    """
    if not model.built:
        raise ValueError(
            "summary(): argument 'model' has not been built; call it on data, call its `build`, or give its first "
            "layer an `input_shape`"
        )
    print_fn = print_fn or print
    profile = ModelProfile(model, training, batch_size)
    if not all(getattr(p._layer, "arithmetic", True) for p in profile._leaves()):
        with contextlib.suppress(ValueError):
            _run_on_zeros(model, 1, training=False)
    print_fn(_boxed(profile.generate_table(include_macs), f"{model.name} stats", header=True))
    print_fn(_boxed(profile.generate_summary(include_macs), f"{model.name} summary", header=False))
