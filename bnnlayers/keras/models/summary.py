"""The table that `Model.summary` prints."""

from __future__ import annotations

import html
import itertools
import re

import numpy as np

from ..base_layer import unique
from ..structure import flatten


def print_summary(model, line_length, positions, print_fn, expand_nested, show_trainable, layer_range):
    """Print a line per layer; the arguments are those of `Model.summary`."""
    write = print_fn or print
    chain = _is_chain(model)
    width = line_length or (65 if chain else 98)
    ends = list(positions or ((0.45, 0.85, 1.0) if chain else (0.3, 0.6, 0.70, 1.0)))
    if ends[-1] <= 1:
        ends = [int(width * end) for end in ends]
    titles = ["Layer (type)", "Output Shape", "Param #"]
    if not chain:
        titles.append("Connected to")
    if show_trainable:
        width += 11
        ends.append(width)
        titles.append("Trainable")

    def row(cells, depth=0):
        for line in _wrap(cells, ends, depth):
            write(line)

    def rows(layers, depth=0):
        for layer in layers:
            cells = [f"{layer.name} ({type(layer).__name__})", _shape(layer), _count(layer)]
            if not chain:
                cells.append(_sources(layer, model) if not depth else "")
            if show_trainable:
                cells.append("Y" if layer.trainable else "N")
            row(cells, depth)
            nested = getattr(layer, "layers", None)
            if expand_nested and nested:
                write(f" {'|' * (depth + 1)}{'¯' * (width - 2 * depth - 2)}|")
                rows(nested, depth + 1)
                write(f" {'|' * depth}{'¯' * (width - 2 * depth)}")

    write(f'Model: "{model.name}"')
    write("_" * width)
    row(titles)
    write("=" * width)
    rows(_selected(model, layer_range))
    write("=" * width)
    for line in _totals(model):
        write(line)
    write("_" * width)


def html_summary(model):
    """The same table for a notebook."""
    titles = ["Layer (type)", "Output Shape", "Param #"]
    rows = []
    if model.built:
        chain = _is_chain(model)
        titles += [] if chain else ["Connected to"]
        rows = [
            [f"{layer.name} ({type(layer).__name__})", _shape(layer), _count(layer)]
            + ([] if chain else [_sources(layer, model)])
            for layer in model.layers
        ]
    lines = [f"<b>{html.escape(type(model).__name__)}: {html.escape(model.name)}</b>", "<table>"]
    for tag, cells in [("th", titles), *(("td", row) for row in rows)]:
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>", "<br>".join(_totals(model) if model.built else ["not built yet"])])


def _totals(model):
    trainable, frozen = model.trainable_weights, model.non_trainable_weights
    for what, weights in (
        ("Total", [*trainable, *frozen]),
        ("Trainable", trainable),
        ("Non-trainable", frozen),
    ):
        weights = unique(weights)
        numbers = sum(int(np.prod(w.shape)) for w in weights)
        size = sum(int(np.prod(w.shape)) * np.dtype(w.dtype).itemsize for w in weights)
        yield f"{what} params: {numbers} ({_readable(size)})"


def _is_chain(model):
    graph = model._graph
    if graph is None:
        return True
    return all(len(node.keras_inputs) <= 1 for node in graph.nodes) and all(
        sum(node in graph.nodes for node in layer._outbound_nodes) <= 1
        and sum(node in graph.nodes for node in layer._inbound_nodes) <= 1
        for layer in graph.layers
    )


def _selected(model, layer_range):
    layers = model.layers
    if layer_range is None:
        return layers
    first, last = layer_range
    found = [[i for i, x in enumerate(layers) if re.match(end, x.name)] for end in (first, last)]
    if not all(found):
        raise ValueError(f"Passed layer_names do not match the layer names in the model. Received: {layer_range}")
    low, high = sorted((min(found[0]), max(found[1])))
    return layers[low : high + 1]


def _shape(layer):
    try:
        return str(layer.output_shape)
    except AttributeError:
        return "multiple"


def _count(layer):
    return str(layer.count_params()) if layer.built else "0 (unused)"


def _sources(layer, model):
    names = [
        f"{t._keras_history.layer.name}[{t._keras_history.node_index}][{t._keras_history.tensor_index}]"
        for node in layer._inbound_nodes
        if node in model._graph.nodes
        for t in flatten(node.keras_inputs)
    ]
    return f"[{', '.join(map(repr, names))}]"


def _wrap(cells, ends, depth):
    """One row as lines: a cell that is too long for its column goes on in the next line."""
    columns = []
    for cell, (start, end) in zip(cells, itertools.pairwise([0, *ends]), strict=True):
        space = max(end - start - 2 - (2 * depth + 1 if start == 0 else 0), 8)
        parts, rest = [], cell
        while len(rest) > space:
            cut = rest.rfind(" ", 1, space) + 1 or space
            parts.append(rest[:cut])
            rest = rest[cut:]
        columns.append([*parts, rest])
    for parts in itertools.zip_longest(*columns, fillvalue=""):
        line = " " + "|" * depth + (" " if depth else "")
        for part, end in zip(parts, ends, strict=True):
            line = (line + part)[: end - 1].ljust(end)
        yield line + "|" * depth


def _readable(size):
    for unit in ("Byte", "KB", "MB", "GB", "TB"):
        if size < 1024 or unit == "TB":
            return f"{size:.2f} {unit}"
        size /= 1024
