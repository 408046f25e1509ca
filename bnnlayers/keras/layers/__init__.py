"""The layers of Keras that larq's scripts use."""

from ..base_layer import InputSpec, Layer
from ..utils import deserialize_keras_object, serialize_keras_object
from . import (
    convolutional,
    convolutional_transpose,
    core,
    depthwise,
    locally_connected,
    merging,
    normalization,
    pooling,
    reshaping,
)
from .convolutional import *  # noqa: F403
from .convolutional_transpose import *  # noqa: F403
from .core import *  # noqa: F403
from .depthwise import *  # noqa: F403
from .locally_connected import *  # noqa: F403
from .merging import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .reshaping import *  # noqa: F403

_MODULES = (
    convolutional,
    convolutional_transpose,
    core,
    depthwise,
    locally_connected,
    merging,
    normalization,
    pooling,
    reshaping,
)
__all__ = [
    "InputSpec",
    "Layer",
    "deserialize",
    "serialize",
    *convolutional.__all__,
    *core.__all__,
    *merging.__all__,
    *normalization.__all__,
    *pooling.__all__,
    *reshaping.__all__,
]

# What `deserialize` finds by name: the classes here, and the models, which join when they are defined.
known_classes = {
    name: value
    for module in _MODULES
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Layer)
}


def serialize(layer):
    """``{"class_name", "config"}`` of a layer."""
    return serialize_keras_object(layer)


def deserialize(config, custom_objects=None):
    """The layer that `serialize` wrote, from a dictionary or the name of a class."""
    return deserialize_keras_object(config, known_classes, custom_objects, "layer")
