"""Weights in files: HDF5 in the layout of Keras 2, both ways with tf_keras, and safetensors."""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

# An HDF5 object header holds less than 64 KiB; longer lists of names are cut into numbered
# attributes.
_HEADER_LIMIT = 64512
_KERAS_VERSION = "2.19.0"
_TOP_LEVEL = "top_level_model_weights"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[str]:
    """Yield the name of a temporary file that replaces `path` when the block ends without an error.

    A process killed meanwhile leaves the old file. Symbolic links are followed.
    """
    path = os.path.realpath(path)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=os.path.dirname(path)
    )
    os.close(handle)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _mode(path: str) -> int:
    # mkstemp makes a file for its owner only; the result has the rights it would have had without
    # it.
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def open_h5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no HDF5 file, is cut short or is damaged where it is read.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{os.fspath(path)}: expected an HDF5 file, received one that is damaged or of another "
            f"kind ({error})"
        ) from error


def save_weights_h5(
    target: str | os.PathLike | h5py.Group, layers: Sequence[Any], top_level_weights=()
) -> None:
    """Write the weights of layers in the layout of Keras 2.

    Parameters
    ----------
    target : str, path or h5py.Group
        A file is replaced atomically. Its name may end in anything, also in ``.weights.h5``, for
        which tf_keras 2.12 and later writes another layout.
    layers : sequence of Layer
        Each has ``name``, ``trainable_weights`` and ``non_trainable_weights``.
    top_level_weights : sequence of Variable
        Weights that belong to the model and to none of its layers.
    """
    if not isinstance(target, h5py.Group):
        with atomic_write(target) as temporary, h5py.File(temporary, "w") as file:
            save_weights_h5(file, layers, top_level_weights)
        return
    write_names(target, "layer_names", [layer.name for layer in layers])
    target.attrs["backend"] = b"tensorflow"
    target.attrs["keras_version"] = _KERAS_VERSION.encode()
    for layer in sorted(layers, key=lambda layer: layer.name):
        _write_weights(target.create_group(layer.name), _weights(layer))
    _write_weights(target.create_group(_TOP_LEVEL), top_level_weights)


def load_weights_h5(
    source: str | os.PathLike | h5py.Group,
    layers: Sequence[Any],
    by_name: bool = False,
    skip_mismatch: bool = False,
    top_level_weights=(),
) -> None:
    """Read weights in the layout of Keras 2 into layers.

    Everything is checked before anything is assigned.

    Parameters
    ----------
    source : str, path or h5py.Group
        A file of a whole model is read, too.
    layers : sequence of Layer
        In the order of the model, as in the file; or in any order, if `by_name`.
    by_name : bool
        Whether to match layers by name, leaving those without a namesake as they are.
    skip_mismatch : bool
        With `by_name`: whether to leave weights that do not fit as they are, with a warning.
    top_level_weights : sequence of Variable
        Weights that belong to the model and to none of its layers.

    Raises
    ------
    ValueError
        If the file is damaged, or does not fit; the message names file, layer, expected and
        received.
    FileNotFoundError
        If there is no file.
    """
    if not isinstance(source, h5py.Group):
        with open_h5(source) as file:
            load_weights_h5(file, layers, by_name, skip_mismatch, top_level_weights)
        return
    file_name = source.file.filename
    if skip_mismatch and not by_name:
        raise ValueError("load_weights: skip_mismatch=True: expected by_name=True with it")
    if "layer_names" not in source.attrs and "model_weights" in source:
        source = source["model_weights"]
    names = read_names(source, "layer_names")
    if names is None:
        raise ValueError(
            f"{file_name}: expected weights in the layout of Keras 2, "
            f"received a file without layer_names that holds {sorted(source)}"
        )
    assignments: list[tuple[Any, np.ndarray]] = []
    saved = [(name, _read_weights(source, name)) for name in names]
    if by_name:
        for name, values in saved:
            for layer in layers:
                if layer.name == name:
                    where = f"{file_name}: layer {name!r}"
                    assignments += _fit(where, _weights(layer), values, skip_mismatch)
    else:
        saved = [(name, values) for name, values in saved if values]
        wanted = [layer for layer in layers if _weights(layer)]
        if len(saved) != len(wanted):
            raise ValueError(
                f"{file_name}: expected {len(wanted)} layers with weights "
                f"({_shortened([layer.name for layer in wanted])}), received {len(saved)} "
                f"({_shortened([name for name, _ in saved])})"
            )
        for layer, (name, values) in zip(wanted, saved, strict=True):
            where = f"{file_name}: layer {layer.name!r} (saved as {name!r})"
            assignments += _fit(where, _weights(layer), values, False)
    if _TOP_LEVEL in source:
        where = f"{file_name}: weights of the model itself"
        values = _read_weights(source, _TOP_LEVEL)
        assignments += _fit(where, list(top_level_weights), values, skip_mismatch)
    for weight, value in assignments:
        weight.assign(value)


def save_weights_safetensors(path: str | os.PathLike, weights: Sequence[Any]) -> None:
    """Write weights to a safetensors file, atomically; the package `safetensors` must be installed.

    Parameters
    ----------
    path : str or path
    weights : sequence of Variable
        Their names must differ; their order is kept in the metadata.
    """
    from safetensors.numpy import save_file

    names = [weight.name for weight in weights]
    _check_names(os.fspath(path), names)
    arrays = {
        name: np.ascontiguousarray(weight.numpy()).reshape(weight.shape)
        for name, weight in zip(names, weights, strict=True)
    }
    with atomic_write(path) as temporary:
        save_file(arrays, temporary, {"format": "np", "weight_names": json.dumps(names)})


def load_weights_safetensors(path: str | os.PathLike, weights: Sequence[Any]) -> None:
    """Read what `save_weights_safetensors` wrote.

    Weights are matched by name if the names are the same, else by their order. Everything is
    checked before anything is assigned.

    Raises
    ------
    ValueError
        If the file is damaged or does not fit.
    """
    from safetensors import SafetensorError, safe_open

    file_name = os.fspath(path)
    try:
        with safe_open(file_name, framework="np") as file:
            saved = json.loads((file.metadata() or {}).get("weight_names", "null"))
            names = [weight.name for weight in weights]
            known = set(file.keys())
            if set(names) == known or saved is None:
                saved = [name for name in names if name in known]
            values = [file.get_tensor(name) for name in saved]
    except SafetensorError as error:
        raise ValueError(f"{file_name}: expected a safetensors file ({error})") from error
    for weight, value in _fit(file_name, list(weights), values, False):
        weight.assign(value)


def write_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """Write a list of names as an attribute, or as numbered ones if it is too long for one."""
    encoded = np.asarray([name.encode() for name in names])
    if encoded.itemsize > _HEADER_LIMIT:
        raise ValueError(f"{attribute}: a name is longer than {_HEADER_LIMIT} bytes")
    if not names:
        group.attrs[attribute] = []
        return
    chunks = 1
    while any(chunk.nbytes > _HEADER_LIMIT for chunk in np.array_split(encoded, chunks)):
        chunks += 1
    if chunks == 1:
        group.attrs[attribute] = encoded
        return
    for number, chunk in enumerate(np.array_split(encoded, chunks)):
        group.attrs[f"{attribute}{number}"] = chunk


def read_names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Read what `write_names` wrote; None if there is no such attribute."""
    names: list[Any] = []
    if attribute in group.attrs:
        names += list(group.attrs[attribute])
    elif f"{attribute}0" in group.attrs:
        number = 0
        while f"{attribute}{number}" in group.attrs:
            names += list(group.attrs[f"{attribute}{number}"])
            number += 1
    else:
        return None
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _weights(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _check_names(where: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: two weights are named {repeated!r}")


def _write_weights(group: h5py.Group, weights: Sequence[Any]) -> None:
    names = [weight.name for weight in weights]
    _check_names(group.name, names)
    write_names(group, "weight_names", names)
    for name, weight in zip(names, weights, strict=True):
        group.create_dataset(name, data=np.asarray(weight.numpy()))


def _read_weights(group: h5py.Group, layer_name: str) -> list[np.ndarray]:
    file_name = group.file.filename
    layer = group.get(layer_name)
    names = read_names(layer, "weight_names") if isinstance(layer, h5py.Group) else None
    if names is None:
        raise ValueError(f"{file_name}: layer {layer_name!r}: expected its weights, received none")
    values = []
    for name in names:
        dataset = layer.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
            raise ValueError(
                f"{file_name}: layer {layer_name!r}: expected an array {name!r}, received {dataset}"
            )
        values.append(np.asarray(dataset))
    return values


def _fit(where: str, weights: list[Any], values: list[np.ndarray], skip_mismatch: bool):
    """Pair weights with values of their shape, or raise."""
    pairs: list[tuple[Any, np.ndarray]] = []
    if len(weights) != len(values):
        message = f"{where}: expected {len(weights)} weights, received {len(values)}"
        if not skip_mismatch:
            raise ValueError(message)
        warnings.warn(f"{message}; skipped", stacklevel=4)
        return pairs
    for weight, value in zip(weights, values, strict=True):
        if tuple(weight.shape) == value.shape:
            pairs.append((weight, value.astype(weight.dtype)))
            continue
        message = (
            f"{where}: weight {weight.name!r}: expected shape {tuple(weight.shape)}, "
            f"received {value.shape}"
        )
        if not skip_mismatch:
            raise ValueError(message)
        warnings.warn(f"{message}; skipped", stacklevel=4)
    return pairs


def _shortened(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], "..."] if len(names) > 5 else names)
