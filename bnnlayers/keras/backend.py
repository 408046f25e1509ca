"""The part of ``keras.backend`` that scripts reach for, and the state that the floor shares."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

_FLOATS = ("float16", "float32", "float64")
_DATA_FORMATS = ("channels_last", "channels_first")


def home() -> Path:
    """Return the folder of Keras's settings and cached files: ``KERAS_HOME``, else ``~/.keras``."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


def _settings() -> dict[str, Any]:
    try:
        settings = json.loads((home() / "keras.json").read_text())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


_floatx = "float32"
_epsilon = 1e-7
_image_data_format = "channels_last"
_learning_phase = 0
_uids: defaultdict[str, int] = defaultdict(int)
_generator = np.random.default_rng()


def floatx() -> str:
    """Return the name of the default float type."""
    return _floatx


def set_floatx(value: str) -> None:
    """Set the default float type.

    Raises
    ------
    ValueError
        If it is not ``"float16"``, ``"float32"`` or ``"float64"``.
    """
    global _floatx
    if value not in _FLOATS:
        raise ValueError(f"set_floatx: value: expected one of {_FLOATS}, received {value!r}")
    _floatx = str(value)


def epsilon() -> float:
    """Return the constant that keeps divisions and logarithms finite."""
    return _epsilon


def set_epsilon(value: float) -> None:
    """Set the constant that keeps divisions and logarithms finite."""
    global _epsilon
    _epsilon = float(value)


def image_data_format() -> str:
    """Return the default data format, ``"channels_last"`` or ``"channels_first"``."""
    return _image_data_format


def set_image_data_format(data_format: str) -> None:
    """Set the default data format.

    Raises
    ------
    ValueError
        If it is neither ``"channels_last"`` nor ``"channels_first"``.
    """
    global _image_data_format
    if data_format not in _DATA_FORMATS:
        raise ValueError(
            f"set_image_data_format: data_format: expected one of {_DATA_FORMATS}, "
            f"received {data_format!r}"
        )
    _image_data_format = str(data_format)


def learning_phase() -> int:
    """Return what ``training=None`` means outside `fit`: 0 for inference, 1 for training."""
    return _learning_phase


def set_learning_phase(value: int) -> None:
    """Set what ``training=None`` means outside `fit`."""
    global _learning_phase
    if value not in (0, 1):
        raise ValueError(f"set_learning_phase: value: expected 0 or 1, received {value!r}")
    _learning_phase = int(value)


def random_generator() -> np.random.Generator:
    """Return the generator from which unseeded initializers, dropout and shuffling draw."""
    return _generator


def seed_random_generator(seed: int | None) -> None:
    """Start the library's generator anew; `keras.utils.set_random_seed` calls it."""
    global _generator
    _generator = np.random.default_rng(seed)


def get_uid(prefix: str = "") -> int:
    """Return how often this prefix has been asked for, this call included."""
    _uids[prefix] += 1
    return _uids[prefix]


def reset_uids() -> None:
    """Start the counters behind automatic names anew."""
    _uids.clear()


def unique_object_name(name: str, zero_based: bool = False) -> str:
    """Return an automatic name: ``dense_1``, ``dense_2``; if `zero_based`, ``dense`` first."""
    number = get_uid(name) - zero_based
    return f"{name}_{number}" if number else name


def clear_session() -> None:
    """Forget the counters behind automatic names and the learning phase."""
    global _learning_phase
    _learning_phase = 0
    reset_uids()


def get_value(x: Any) -> Any:
    """Return the value of a variable or tensor as NumPy's, anything else as it is."""
    return np.asarray(x.numpy())[()] if hasattr(x, "numpy") else x


def set_value(x: Any, value: Any) -> None:
    """Assign a value to a variable, cast to its dtype."""
    x.assign(np.asarray(value, dtype=x.dtype))


def batch_get_value(variables) -> list:
    """Return the values of several variables."""
    return [get_value(variable) for variable in variables]


def batch_set_value(tuples) -> None:
    """Assign ``(variable, value)`` pairs."""
    for variable, value in tuples:
        set_value(variable, value)


def eval(x: Any) -> np.ndarray:
    """Return the value of a variable or tensor as a NumPy array or scalar."""
    return get_value(x)


def int_shape(x: Any) -> tuple:
    """Return the shape as a tuple; unknown dimensions are None."""
    return tuple(np.shape(x) if not hasattr(x, "shape") else x.shape)


def is_keras_tensor(x: Any) -> bool:
    """Return whether a layer made this symbolic tensor."""
    return hasattr(x, "_keras_history")


def count_params(x: Any) -> int:
    """Return the number of values of a variable."""
    return int(np.prod(int_shape(x)))


def ndim(x: Any) -> int:
    """Return the number of axes."""
    return len(int_shape(x))


def dtype(x: Any) -> str:
    """Return the name of the dtype."""
    return np.dtype(x.dtype).name


def cast_to_floatx(x: Any) -> np.ndarray:
    """Return the values as an array of the default float type."""
    return np.asarray(x, dtype=_floatx)


for _name, _setter in (
    ("floatx", set_floatx),
    ("epsilon", set_epsilon),
    ("image_data_format", set_image_data_format),
):
    if (_value := _settings().get(_name)) is not None:
        _setter(_value)
