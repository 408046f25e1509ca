"""Optimizers, their learning rate schedules, and their registry."""

from collections.abc import Mapping
from typing import Any

from ..utils import Family
from . import legacy, schedules
from .optimizer import SGD, Adam, Optimizer, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "legacy",
    "schedules",
    "serialize",
]

_family = Family("optimizer", (SGD, Adam, RMSprop), {"rmsprop": RMSprop}, base=Optimizer)
_legacy_family = Family(
    "optimizer", (legacy.SGD, legacy.Adam, legacy.RMSprop), {"rmsprop": legacy.RMSprop}
)

serialize = _family.serialize


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return the optimizer that a name or a configuration describes.

    As in Keras, a configuration that does not say ``is_legacy_optimizer: False`` means the legacy
    class.
    """
    family = _family
    if isinstance(config, Mapping) and config.get("config"):
        family = _legacy_family if config["config"].get("is_legacy_optimizer", True) else _family
    return family.deserialize(config, custom_objects)


def get(identifier: Any) -> Any:
    """Return the optimizer that a name, a configuration, a class or an object stands for."""
    return deserialize(identifier) if isinstance(identifier, Mapping) else _family.get(identifier)
