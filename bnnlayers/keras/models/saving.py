"""Whole models in HDF5 files: architecture, weights, how they were compiled, and the optimizer."""

from __future__ import annotations

import json
import os
import warnings

import h5py
import numpy as np

from .. import losses, metrics, optimizers
from ..saving import (
    atomic_write,
    load_weights_h5,
    open_h5,
    read_names,
    save_weights_h5,
    write_names,
)
from ..structure import is_nested
from ..utils import CustomObjectScope
from .functional import jsonable, model_from_config


def save_model(model, filepath, overwrite=True, include_optimizer=True, save_format=None):
    """Write a functional or `Sequential` model to one HDF5 file, in the layout of Keras 2.

    Parameters
    ----------
    model : Model
    filepath : str or path
        The file is replaced atomically.
    overwrite : bool
        Whether an existing file may be replaced.
    include_optimizer : bool
        Whether to write how the model was compiled, and the state of the optimizer: training then
        goes on after `load_model` as if it had not stopped.
    save_format : {"h5"}, optional

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is False.
    NotImplementedError
        For a subclassed model, whose architecture is code.
    ValueError
        For any other format.
    """
    filepath = os.fspath(filepath)
    if save_format not in (None, "h5", "hdf5") or filepath.endswith(".keras"):
        raise ValueError(
            f"save_model: models are saved in HDF5 files. Received: filepath={filepath}, save_format={save_format}"
        )
    if not overwrite and os.path.exists(filepath):
        raise FileExistsError(f"save_model: {filepath} exists already.")
    if "layers" not in (config := model.get_config()):
        raise NotImplementedError(
            "Saving a model to HDF5 requires it to be a Functional or a Sequential model. It does "
            f"not work for subclassed models like {type(model).__name__}, whose architecture is "
            "code: save its weights."
        )
    described = {"class_name": type(model).__name__, "config": config}
    attributes = {"model_config": json.dumps(described, default=jsonable)}
    with_optimizer = include_optimizer and model._is_compiled
    if with_optimizer:
        attributes["training_config"] = json.dumps(_training_config(model), default=jsonable)
    with atomic_write(filepath) as temporary, h5py.File(temporary, "w") as file:
        weights = file.create_group("model_weights")
        save_weights_h5(weights, model.layers, model._top_level_weights())
        for name in ("backend", "keras_version"):
            file.attrs[name] = weights.attrs[name]
        for name, text in attributes.items():
            file.attrs[name] = text.encode()
        if with_optimizer:
            _write_optimizer(file, model.optimizer)


def load_model(filepath, custom_objects=None, compile=True):
    """Read a model that `save_model` or tf_keras wrote to an HDF5 file.

    Parameters
    ----------
    filepath : str or path
    custom_objects : dict of str to class or function, optional
    compile : bool
        Whether to compile the model as it was and to restore the state of its optimizer.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If it is damaged, holds weights only, or names something unknown.
    """
    with open_h5(filepath) as file, CustomObjectScope(custom_objects or {}):
        described = _read_json(file, "model_config")
        if described is None:
            raise ValueError(
                f"{os.fspath(filepath)}: no model config found in the file. Files of "
                "`save_weights` hold no architecture: build the model and `load_weights`."
            )
        model = model_from_config(described)
        load_weights_h5(file["model_weights"], model.layers, top_level_weights=model._top_level_weights())
        training = _read_json(file, "training_config")
        if not compile:
            return model
        if training is None:
            warnings.warn(
                "No training configuration found in the save file, so the model was *not* "
                "compiled. Compile it manually.",
                stacklevel=2,
            )
            return model
        model.compile(**_compile_arguments(training))
        if "optimizer_weights" in file:
            _read_optimizer(file["optimizer_weights"], model)
    return model


def _read_json(file, name):
    text = file.attrs.get(name)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file.filename}: {name} is no valid JSON ({error})") from error


def _map(function, value):
    """`function` of every leaf, where a serialized object is a leaf too."""
    if isinstance(value, dict) and "class_name" not in value:
        return {k: _map(function, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map(function, v) for v in value]
    return None if value is None else function(value)


def _written(serialize):
    return lambda leaf: leaf if isinstance(leaf, (str, int, float)) else serialize(leaf)


def _training_config(model):
    given = model._compile_arguments
    compiled = model.compiled_metrics.by_output or (given["metrics"], given["weighted_metrics"])
    return {
        "loss": _map(_written(losses.serialize), given["loss"]),
        "metrics": _map(_written(metrics.serialize), compiled[0]),
        "weighted_metrics": _map(_written(metrics.serialize), compiled[1]),
        "loss_weights": given["loss_weights"],
        "optimizer_config": optimizers.serialize(model.optimizer),
    }


def _compile_arguments(config):
    def read(deserialize, value):
        return _map(lambda leaf: deserialize(leaf) if is_nested(leaf) else leaf, value)

    optimizer = config["optimizer_config"]
    # tf_keras registers its own optimizers as custom objects.
    name = optimizer["class_name"].removeprefix("Custom>")
    compiled = config.get("metrics"), config.get("weighted_metrics")
    return {
        "optimizer": optimizers.deserialize({**optimizer, "class_name": name}),
        "loss": read(losses.deserialize, config.get("loss")),
        "metrics": read(metrics.deserialize, compiled[0]),
        "weighted_metrics": read(metrics.deserialize, compiled[1]),
        "loss_weights": config.get("loss_weights"),
        # Metrics that had seen data were written with the names they had got by then.
        "from_serialized": not any(isinstance(leaf, str) for leaf in _leaves(compiled)),
    }


def _leaves(value):
    """The leaves of nested lists and dictionaries, a serialized object being one leaf."""
    found = []
    _map(found.append, value)
    return found


def _write_optimizer(file, optimizer):
    names = [weight.name for weight in optimizer.weights]
    group = file.create_group("optimizer_weights")
    write_names(group, "weight_names", names)
    for name, value in zip(names, optimizer.get_weights(), strict=True):
        group.create_dataset(name, data=value)


def _read_optimizer(group, model):
    names = read_names(group, "weight_names") or []
    # Before the first step there is no state but their number.
    if len(names) > len(model.optimizer.weights):
        model.optimizer.build(model.trainable_variables)
    try:
        model.optimizer.set_weights([np.asarray(group[name]) for name in names])
    except ValueError as error:
        warnings.warn(
            f"The saved state of the optimizer does not fit, it starts afresh: {error}",
            stacklevel=3,
        )
