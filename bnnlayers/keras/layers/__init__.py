"""The layers of Keras that larq's scripts use."""

from ..base_layer import InputSpec, Layer
from . import convolutional, core, merging, normalization, pooling, reshaping
from .convolutional import *  # noqa: F403
from .core import *  # noqa: F403
from .merging import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pooling import *  # noqa: F403
from .reshaping import *  # noqa: F403

_MODULES = (convolutional, core, merging, normalization, pooling, reshaping)
__all__ = ["InputSpec", "Layer", *(name for module in _MODULES for name in module.__all__)]


def serialize(layer):
    """``{"class_name", "config"}`` of a layer."""
    from ..utils import serialize_keras_object

    return serialize_keras_object(layer)


def deserialize(config, custom_objects=None):
    """The layer that `serialize` wrote, from a dictionary or the name of a class."""
    from .. import models
    from ..utils import deserialize_keras_object

    known = {name: value for name, value in globals().items() if isinstance(value, type)}
    known |= {"Functional": models.Functional, "Model": models.Functional}
    known |= {"Sequential": models.Sequential}
    return deserialize_keras_object(config, known, custom_objects, "layer")
