"""What the constructors of layers share: arguments that become attributes and configuration."""

from __future__ import annotations

from .. import activations, backend, constraints, initializers, regularizers
from ..base_layer import Layer

_FAMILIES = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


class ConfiguredLayer(Layer):
    """A layer whose constructor arguments are attributes of the same names.

    An argument that ends in ``activation``, ``initializer``, ``regularizer`` or ``constraint`` may
    be given by name; `get_config` writes it back.
    """

    _config_names = ()

    def _configure(self, **arguments):
        for name, value in arguments.items():
            family = _FAMILIES.get(name.rsplit("_", 1)[-1])
            setattr(self, name, value if family is None else family.get(value))
        self.__dict__["_config_names"] = (*self._config_names, *arguments)

    def get_config(self):
        config = super().get_config()
        for name in self._config_names:
            family = _FAMILIES.get(name.rsplit("_", 1)[-1])
            value = getattr(self, name)
            config[name] = value if family is None else family.serialize(value)
        return config


def arguments(scope, without=()):
    """The keyword arguments of a constructor, from its `locals()`, so that it lists them once."""
    named = {k: v for k, v in scope.items() if k not in ("self", "__class__", "kwargs", *without)}
    return {**named, **scope["kwargs"]}


def integers(value, count, name, allow_zero=False):
    """`count` integers from one integer or a sequence, as a tuple.

    Raises
    ------
    ValueError
        Unless each is positive (or zero, where that is allowed).
    """
    least = 0 if allow_zero else 1
    demand = f"{'>=' if allow_zero else '>'} 0"
    message = f"The `{name}` argument must be a tuple of {count} integers {demand}. Received: {value}"
    if hasattr(value, "__index__"):
        numbers = (value.__index__(),) * count
    else:
        try:
            numbers = tuple(v.__index__() for v in value)
        except (TypeError, AttributeError):
            raise ValueError(message) from None
    if len(numbers) != count or min(numbers) < least:
        raise ValueError(message)
    return numbers


def data_format_of(value):
    """A data format in lower case; the default one for None."""
    value = (value or backend.image_data_format()).lower()
    if value not in ("channels_first", "channels_last"):
        raise ValueError(
            f"The `data_format` argument must be one of 'channels_first', 'channels_last'. Received: {value}"
        )
    return value


def padding_of(value, allowed=("valid", "same", "causal")):
    """A padding mode in lower case."""
    mode = value.lower() if isinstance(value, str) else value
    if mode not in allowed:
        raise ValueError(f"The `padding` argument must be one of {allowed}. Received: {value}")
    return mode
