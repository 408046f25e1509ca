"""Learning rates or other hyperparameters as functions of the step, in float32 as in Keras."""

import math

import numpy as np

from ...tape import constant, plain
from ..utils import Configurable, Family


class LearningRateSchedule(Configurable):
    """Base class: ``__call__(step)`` returns a scalar, ``get_config()`` the arguments."""

    def __call__(self, step):
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(step)")

    def get_config(self):
        raise NotImplementedError(f"{type(self).__name__} must implement get_config()")


class _Schedule(LearningRateSchedule):
    # Keeps its arguments under their own names, which is its configuration.
    _arguments: tuple[str, ...]

    def __call__(self, step):
        """Return the value at a step, a scalar tensor."""
        return constant(np.float32(self._value(np.float32(plain(step)))))

    def _value(self, step):
        raise NotImplementedError

    def get_config(self):
        return {name: getattr(self, name) for name in self._arguments}


class ExponentialDecay(_Schedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    With `staircase` the exponent is rounded down.
    """

    _arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name=None):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def _value(self, step):
        p = step / np.float32(self.decay_steps)
        p = np.floor(p) if self.staircase else p
        return np.float32(self.initial_learning_rate) * np.float32(self.decay_rate) ** p


class InverseTimeDecay(_Schedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    With `staircase` the quotient ``step / decay_steps`` is rounded down.
    """

    _arguments = ExponentialDecay._arguments

    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name=None):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def _value(self, step):
        p = step / np.float32(self.decay_steps)
        p = np.floor(p) if self.staircase else p
        return np.float32(self.initial_learning_rate) / (1 + np.float32(self.decay_rate) * p)


class PolynomialDecay(_Schedule):
    """From `initial_learning_rate` to `end_learning_rate` along a power of the steps left.

    With `cycle`, beyond the end `decay_steps` is multiplied until it lies ahead again.
    """

    _arguments = (
        "initial_learning_rate",
        "decay_steps",
        "end_learning_rate",
        "power",
        "cycle",
        "name",
    )

    def __init__(
        self,
        initial_learning_rate,
        decay_steps,
        end_learning_rate=0.0001,
        power=1.0,
        cycle=False,
        name=None,
    ):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def _value(self, step):
        steps = np.float32(self.decay_steps)
        if self.cycle:
            steps *= max(np.ceil(step / steps), np.float32(1))
        else:
            step = min(step, steps)
        start, end = np.float32(self.initial_learning_rate), np.float32(self.end_learning_rate)
        return (start - end) * (1 - step / steps) ** np.float32(self.power) + end


class CosineDecay(_Schedule):
    """Half a cosine from `initial_learning_rate` to `alpha` times it (Loshchilov and Hutter, 2017).

    With `warmup_target`, a line leads there in `warmup_steps` first, and the cosine starts from
    there.
    """

    _arguments = (
        "initial_learning_rate",
        "decay_steps",
        "alpha",
        "name",
        "warmup_target",
        "warmup_steps",
    )

    def __init__(
        self,
        initial_learning_rate,
        decay_steps,
        alpha=0.0,
        name=None,
        warmup_target=None,
        warmup_steps=0,
    ):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def _value(self, step):
        start, steps = np.float32(self.initial_learning_rate), np.float32(self.decay_steps)
        if self.warmup_target is not None:
            target, warmup = np.float32(self.warmup_target), np.float32(self.warmup_steps)
            if step < warmup:
                return (target - start) * (step / warmup) + start
            start, step = target, step - warmup
        return start * _cosine(min(step, steps) / steps, np.float32(1), self.alpha)


class CosineDecayRestarts(_Schedule):
    """Half cosines one after the other, each `t_mul` as long and `m_mul` as high as the one before.

    The method is SGDR (Loshchilov and Hutter, 2017).
    """

    _arguments = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha", "name")

    def __init__(
        self,
        initial_learning_rate,
        first_decay_steps,
        t_mul=2.0,
        m_mul=1.0,
        alpha=0.0,
        name=None,
    ):
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def _value(self, step):
        fraction = step / np.float32(self.first_decay_steps)
        t_mul = np.float32(self.t_mul)
        if t_mul == 1:
            restarts = np.floor(fraction)
            fraction -= restarts
        else:
            restarts = np.floor(np.log(1 - fraction * (1 - t_mul)) / np.log(t_mul))
            before = (1 - t_mul**restarts) / (1 - t_mul)
            fraction = (fraction - before) / t_mul**restarts
        height = np.float32(self.m_mul) ** restarts
        return np.float32(self.initial_learning_rate) * _cosine(fraction, height, self.alpha)


def _cosine(fraction, height, alpha):
    alpha = np.float32(alpha)
    cosine = np.float32(0.5) * height * (1 + np.cos(np.float32(math.pi) * fraction))
    return (1 - alpha) * cosine + alpha


class PiecewiseConstantDecay(_Schedule):
    """``values[i]`` up to and with step ``boundaries[i]``, the last value beyond.

    Raises
    ------
    ValueError
        If there is not one boundary fewer than values.
    """

    _arguments = ("boundaries", "values", "name")

    def __init__(self, boundaries, values, name=None):
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                "PiecewiseConstantDecay: boundaries: expected one fewer than values, received "
                f"{len(boundaries)} and {len(values)}"
            )
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def _value(self, step):
        return self.values[np.searchsorted(np.asarray(self.boundaries), step, side="left")]


_family = Family(
    "decay",
    (
        ExponentialDecay,
        InverseTimeDecay,
        PolynomialDecay,
        CosineDecay,
        CosineDecayRestarts,
        PiecewiseConstantDecay,
    ),
)
serialize = _family.serialize
deserialize = _family.deserialize
