"""Golden data on disk: many small cases in one compressed npz.

A zip member and an npy header per array would outweigh the arrays, so a file holds one flat buffer
per dtype, equal arrays once, and one JSON index. This module is all that the generator and the
tests share.
"""

import json
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


class Case(dict):
    """One recorded run: `case["key"]` reads what was asked for, `case.arrays` what came out."""

    def __init__(self, meta, arrays):
        super().__init__(meta)
        self.arrays = arrays

    def __repr__(self):
        return self["id"]


def write(family, cases):
    """Store `cases`, pairs of JSON-able dict and `{name: array}`, as `data/<family>.npz`."""
    buffers, lengths, starts, index = {}, {}, {}, []
    for meta, arrays in cases:
        places = {}
        for name, array in arrays.items():
            array = np.asarray(array)
            dtype, content = array.dtype.name, array.tobytes()
            if (dtype, content) not in starts:
                starts[dtype, content] = lengths.get(dtype, 0)
                lengths[dtype] = lengths.get(dtype, 0) + array.size
                buffers.setdefault(dtype, []).append(array.ravel())
            places[name] = [dtype, starts[dtype, content], array.shape]
        index.append({**meta, "arrays": places})
    text = json.dumps(index, separators=(",", ":"))
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(
        DATA / f"{family}.npz",
        index=np.frombuffer(text.encode(), np.uint8),
        **{dtype: np.concatenate(parts) for dtype, parts in buffers.items()},
    )


def read(family):
    """The cases of `data/<family>.npz`, in the order they were written."""
    with np.load(DATA / f"{family}.npz") as file:
        buffers = {name: file[name] for name in file.files}
    for buffer in buffers.values():
        buffer.flags.writeable = False
    cases = []
    for meta in json.loads(buffers.pop("index").tobytes()):
        arrays = {
            name: buffers[dtype][start : start + int(np.prod(shape))].reshape(shape)
            for name, (dtype, start, shape) in meta.pop("arrays").items()
        }
        cases.append(Case(meta, arrays))
    return cases


def resolve(spec, namespace):
    """The object that a JSON description stands for: a name, a function, or a class and config."""
    if isinstance(spec, dict) and "function" in spec:
        return getattr(namespace, spec["function"])
    if isinstance(spec, dict):
        return getattr(namespace, spec["class_name"])(**spec["config"])
    return spec
