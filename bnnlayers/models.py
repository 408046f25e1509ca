"""`summary`: what a network holds, how many multiply-adds it takes, and which arithmetic runs them.

The table is larq's, column for column, with one column more: the kernels that the last call of each layer ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .keras import layers, models
from .utils import memory_as_readable_str

__all__ = ["LayerProfile", "ModelProfile", "summary"]

Cell = str | int | float

_MAC_LAYERS = (layers.Dense, layers.Conv1D, layers.Conv2D)
_FREE_LAYERS = (
    layers.Flatten,
    layers.BatchNormalization,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
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

    def generate_table_row(self, widths: Iterable[int], precisions: Iterable[int]) -> list[Cell]:
        """Name, input precision, outputs, weights per width, kB, MACs per precision, arithmetic."""
        return [
            self.name,
            self.input_precision or "-",
            self.output_shape_str,
            *(self.weight_count(width) for width in widths),
            _kilobytes(self.memory),
            *("?" if (n := self.op_count("mac", p)) is None else n for p in precisions),
            self.arithmetic,
        ]

    # What a layer and a model answer each in its own way.
    input_precision: int | None
    output_shape_str: str
    arithmetic: str

    def op_count(self, op_type: str = "mac", precision: int | None = None) -> int | None:
        raise NotImplementedError


class LayerProfile(_Profile):
    """Sizes and operations of one layer."""

    layer_profiles = ()

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
    def output_pixels(self) -> int | None:
        """Positions at which the weights are applied; 1 for a dense layer on vectors."""
        shape = self.output_shape
        if not shape:
            return None
        first = getattr(self._layer, "data_format", None) == "channels_first"
        return math.prod(shape[2:] if first else shape[1:-1])

    @property
    def arithmetic(self) -> str:  # type: ignore[override]
        return " + ".join(getattr(self._layer, "arithmetic", ())) or "-"

    def _macs(self) -> list[tuple[int, int]]:
        """(precision, multiply-adds) of each kernel."""
        pixels = self.output_pixels
        if not isinstance(self._layer, _MAC_LAYERS) or not pixels:
            return []
        inputs = self.input_precision or 32
        return [(max(inputs, p.bitwidth), p.count * pixels) for p in self.weight_profiles if not p.is_bias]

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
    """

    def __init__(self, model: Any) -> None:
        self.name = model.name
        self.layer_profiles = [
            ModelProfile(layer) if isinstance(layer, models.Model) else LayerProfile(layer) for layer in model.layers
        ]

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
            "Arithmetic",
        ]
        rows = [p.generate_table_row(widths, precisions) for p in self.layer_profiles]
        total = self.generate_table_row(widths, precisions)
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
        return rows


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
    return f"{num / 1000**power:#.3g}".rstrip(".") + ("", " k", " M", " B", " T")[power]


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


def summary(model: Any, print_fn: Callable[[str], Any] | None = None, include_macs: bool = True) -> None:
    """Print a network's layers with their precision, shapes, weights, memory, multiply-adds and arithmetic.

    Parameters
    ----------
    model : keras.Model
    print_fn : callable, optional
        Takes a string; default `print`.
    include_macs : bool
        Whether to count multiply-adds.

    Raises
    ------
    ValueError
        If the model has not been built.

    Notes
    -----
    The precision of a multiply-add is the greater of its operands' precisions. The last column names the kernels that
    the layer's last call ran: "xnor" on bits, "signed" on bits and floats, "float" on floats, "-" before any call.
    """
    if not model.built:
        raise ValueError(
            "summary(): argument 'model' has not been built; call it on data, call its `build`, or give its first layer "
            "an `input_shape`"
        )
    print_fn = print_fn or print
    profile = ModelProfile(model)
    print_fn(_boxed(profile.generate_table(include_macs), f"{model.name} stats", header=True))
    print_fn(_boxed(profile.generate_summary(include_macs), f"{model.name} summary", header=False))
