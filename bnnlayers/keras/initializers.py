"""Initial values of weights."""

import math
from typing import Any

import numpy as np

from . import backend
from .utils import Configurable, Family

# Standard deviation of the unit normal distribution cut off at two.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer(Configurable):
    """Base class: a callable from a shape and a dtype to an array."""

    def __call__(self, shape, dtype=None):
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(shape, dtype)")

    @classmethod
    def from_config(cls, config):
        """Make an object from what `get_config` returned; old files also hold a dtype."""
        return cls(**{key: value for key, value in config.items() if key != "dtype"})


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape, dtype=None):
        return np.zeros(shape, dtype or backend.floatx())


class Ones(Initializer):
    """All ones."""

    def __call__(self, shape, dtype=None):
        return np.ones(shape, dtype or backend.floatx())


class Constant(Initializer):
    """All the same value.

    Parameters
    ----------
    value : scalar or array_like
        What the array is filled with; an array is broadcast.
    """

    def __init__(self, value=0):
        self.value = value

    def __call__(self, shape, dtype=None):
        return np.full(shape, self.value, dtype or backend.floatx())

    def get_config(self):
        return {"value": self.value}


class _Random(Initializer):
    """What draws: anew on every call, or the same values each time if it has a seed.

    tf_keras gives the same values on every call of one unseeded object and warns about it; here
    they differ.
    """

    seed: int | None = None

    def _generator(self) -> np.random.Generator:
        return backend.random_generator() if self.seed is None else np.random.default_rng(self.seed)

    def _dtype(self, dtype) -> np.dtype:
        dtype = np.dtype(dtype or backend.floatx())
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(
                f"{type(self).__name__}: dtype: expected a floating point type, received {dtype}"
            )
        return dtype

    def _uniform(self, shape, low, high, dtype):
        dtype = self._dtype(dtype)
        values = self._generator().random(tuple(shape), dtype=_drawn(dtype))
        return (low + (high - low) * values).astype(dtype, copy=False)

    def _normal(self, shape, mean, stddev, dtype, truncated=False):
        dtype = self._dtype(dtype)
        generator = self._generator()
        values = generator.standard_normal(tuple(shape), dtype=_drawn(dtype))
        while truncated and (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(np.count_nonzero(outside), values.dtype)
        return (mean + stddev * values).astype(dtype, copy=False)


def _drawn(dtype: np.dtype) -> Any:
    # NumPy's generators draw float32 and float64 only.
    return np.float64 if dtype == np.float64 else np.float32


class RandomUniform(_Random):
    """Uniform in ``[minval, maxval)``."""

    def __init__(self, minval=-0.05, maxval=0.05, seed=None):
        self.minval = minval
        self.maxval = maxval
        self.seed = seed

    def __call__(self, shape, dtype=None):
        return self._uniform(shape, self.minval, self.maxval, dtype)

    def get_config(self):
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class RandomNormal(_Random):
    """Normal with a mean and a standard deviation."""

    _truncated = False

    def __init__(self, mean=0.0, stddev=0.05, seed=None):
        self.mean = mean
        self.stddev = stddev
        self.seed = seed

    def __call__(self, shape, dtype=None):
        return self._normal(shape, self.mean, self.stddev, dtype, self._truncated)

    def get_config(self):
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomNormal):
    """Normal, with values more than two standard deviations from the mean drawn again."""

    _truncated = True


class VarianceScaling(_Random):
    """Draws whose variance is ``scale`` divided by a fan of the kernel.

    Parameters
    ----------
    scale : float
        Positive.
    mode : {"fan_in", "fan_out", "fan_avg"}
        A convolution kernel ``(..., in, out)`` has fans ``taps * in`` and ``taps * out``.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        ``"normal"`` is the truncated one.
    seed : int, optional
        Makes every call give the same values.
    """

    def __init__(self, scale=1.0, mode="fan_in", distribution="truncated_normal", seed=None):
        if scale <= 0.0:
            raise ValueError(
                f"VarianceScaling: scale: expected a positive number, received {scale}"
            )
        modes = ("fan_in", "fan_out", "fan_avg")
        if mode not in modes:
            raise ValueError(f"VarianceScaling: mode: expected one of {modes}, received {mode!r}")
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        distributions = ("uniform", "truncated_normal", "untruncated_normal")
        if distribution not in distributions:
            raise ValueError(
                f"VarianceScaling: distribution: expected one of {distributions}, "
                f"received {distribution!r}"
            )
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.seed = seed

    def __call__(self, shape, dtype=None):
        fan_in, fan_out = _fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return self._uniform(shape, -limit, limit, dtype)
        truncated = self.distribution == "truncated_normal"
        stddev = math.sqrt(variance) / (_TRUNCATED_STDDEV if truncated else 1.0)
        return self._normal(shape, 0.0, stddev, dtype, truncated)

    def get_config(self):
        return {
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "seed": self.seed,
        }


def _fans(shape) -> tuple[int, int]:
    if len(shape) < 1:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    taps = math.prod(shape[:-2])
    return shape[-2] * taps, shape[-1] * taps


class _Scaled(VarianceScaling):
    _arguments: tuple[float, str, str]

    def __init__(self, seed=None):
        super().__init__(*self._arguments, seed=seed)

    def get_config(self):
        return {"seed": self.seed}


class GlorotUniform(_Scaled):
    """Uniform with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010)."""

    _arguments = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal with variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010)."""

    _arguments = (1.0, "fan_avg", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform with variance ``1 / fan_in`` (LeCun et al., 1998)."""

    _arguments = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal with variance ``1 / fan_in`` (LeCun et al., 1998)."""

    _arguments = (1.0, "fan_in", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform with variance ``2 / fan_in`` (He et al., 2015)."""

    _arguments = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal with variance ``2 / fan_in`` (He et al., 2015)."""

    _arguments = (2.0, "fan_in", "truncated_normal")


class Orthogonal(_Random):
    """A random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    All axes but the last are rows.
    """

    def __init__(self, gain=1.0, seed=None):
        self.gain = gain
        self.seed = seed

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                f"Orthogonal: shape: expected at least two axes, received {tuple(shape)}"
            )
        dtype = self._dtype(dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(
            self._normal((max(rows, columns), min(rows, columns)), 0, 1, np.float64)
        )
        # The decomposition with a positive diagonal is unique, which makes q uniform.
        q *= np.sign(np.diag(r))
        return (self.gain * (q.T if rows < columns else q)).reshape(shape).astype(dtype)

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


class Identity(Initializer):
    """The identity matrix times a gain; for two axes only."""

    def __init__(self, gain=1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        if len(shape) != 2:
            raise ValueError(f"Identity: shape: expected two axes, received {tuple(shape)}")
        return self.gain * np.eye(*shape, dtype=np.dtype(dtype or backend.floatx()))

    def get_config(self):
        return {"gain": self.gain}


zero = zeros = Zeros
one = ones = Ones
constant = Constant
uniform = random_uniform = RandomUniform
normal = random_normal = RandomNormal
truncated_normal = TruncatedNormal
variance_scaling = VarianceScaling
glorot_uniform = GlorotUniform
glorot_normal = GlorotNormal
lecun_uniform = LecunUniform
lecun_normal = LecunNormal
he_uniform = HeUniform
he_normal = HeNormal
orthogonal = Orthogonal
identity = Identity

_family = Family(
    "initializer",
    (
        Zeros,
        Ones,
        Constant,
        RandomUniform,
        RandomNormal,
        TruncatedNormal,
        VarianceScaling,
        GlorotUniform,
        GlorotNormal,
        LecunUniform,
        LecunNormal,
        HeUniform,
        HeNormal,
        Orthogonal,
        Identity,
    ),
    {"zero": Zeros, "one": Ones, "uniform": RandomUniform, "normal": RandomNormal},
)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
