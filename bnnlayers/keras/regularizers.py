"""Penalties on weights and activations, differentiable."""

import math

import numpy as np

from .utils import Configurable, Family


class Regularizer(Configurable):
    """Base class: a callable from a tensor to a scalar that is added to the loss."""

    def __call__(self, x):
        return 0.0

    def get_config(self):
        raise NotImplementedError(f"{type(self).__name__} does not implement get_config()")


def _penalty(name, argument, value, default):
    value = default if value is None else value
    if not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{name}: {argument}: expected a finite number, received {value!r}")
    return float(value)


class L1L2(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(x ** 2)``."""

    def __init__(self, l1=0.0, l2=0.0):
        self.l1 = _penalty("L1L2", "l1", l1, 0.0)
        self.l2 = _penalty("L1L2", "l2", l2, 0.0)

    def __call__(self, x):
        penalty = 0.0
        if self.l1:
            penalty = penalty + self.l1 * np.sum(np.abs(x))
        if self.l2:
            penalty = penalty + self.l2 * np.sum(np.square(x))
        return penalty

    def get_config(self):
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """``l1 * sum(abs(x))``; the argument may also be called ``l``."""

    def __init__(self, l1=0.01, *, l=None):  # noqa: E741
        super().__init__(l1=_penalty("L1", "l1", l1 if l is None else l, 0.01))

    def get_config(self):
        return {"l1": self.l1}


class L2(L1L2):
    """``l2 * sum(x ** 2)``; the argument may also be called ``l``."""

    def __init__(self, l2=0.01, *, l=None):  # noqa: E741
        super().__init__(l2=_penalty("L2", "l2", l2 if l is None else l, 0.01))

    def get_config(self):
        return {"l2": self.l2}


def l1_l2(l1=0.01, l2=0.01) -> L1L2:
    """Return an `L1L2` regularizer; its penalties default to 0.01, not 0."""
    return L1L2(l1=l1, l2=l2)


class _Regularizers(Family):
    def deserialize(self, config, custom_objects=None):
        # The string has the defaults of the function, not those of the class.
        return l1_l2() if config == "l1_l2" else super().deserialize(config, custom_objects)


l1 = L1
l2 = L2

_family = _Regularizers("regularizer", (L1, L2, L1L2))
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
