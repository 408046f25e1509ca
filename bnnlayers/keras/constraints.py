"""Projections applied to a weight after each update."""

import numpy as np

from . import backend
from .utils import Configurable, Family


class Constraint(Configurable):
    """Base class: a callable from a weight to its projection."""

    def __call__(self, w):
        return w


def _norms(w, axis):
    return np.sqrt(np.sum(np.square(w), axis=axis, keepdims=True))


def _axis(axis):
    return tuple(axis) if isinstance(axis, list) else axis


class MaxNorm(Constraint):
    """Scales vectors along `axis` down to a norm of at most `max_value`."""

    def __init__(self, max_value=2, axis=0):
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w):
        norms = _norms(w, _axis(self.axis))
        return w * (np.clip(norms, 0, self.max_value) / (backend.epsilon() + norms))

    def get_config(self):
        return {"max_value": self.max_value, "axis": self.axis}


class NonNeg(Constraint):
    """Sets negative values to zero."""

    def __call__(self, w):
        return w * np.greater_equal(w, 0)


class UnitNorm(Constraint):
    """Scales vectors along `axis` to norm one."""

    def __init__(self, axis=0):
        self.axis = axis

    def __call__(self, w):
        return w / (backend.epsilon() + _norms(w, _axis(self.axis)))

    def get_config(self):
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Moves the norm of vectors along `axis` towards ``[min_value, max_value]`` by a `rate`."""

    def __init__(self, min_value=0.0, max_value=1.0, rate=1.0, axis=0):
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w):
        norms = _norms(w, _axis(self.axis))
        clipped = np.clip(norms, self.min_value, self.max_value)
        desired = self.rate * clipped + (1 - self.rate) * norms
        return w * (desired / (backend.epsilon() + norms))

    def get_config(self):
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "rate": self.rate,
            "axis": self.axis,
        }


maxnorm = max_norm = MaxNorm
nonneg = non_neg = NonNeg
unitnorm = unit_norm = UnitNorm
min_max_norm = MinMaxNorm

_family = Family(
    "constraint",
    (MaxNorm, NonNeg, UnitNorm, MinMaxNorm),
    {"maxnorm": MaxNorm, "nonneg": NonNeg, "unitnorm": UnitNorm},
)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
