"""Fixtures that every test may ask for, and the one rule for float tolerance."""

import numpy as np
import pytest

from bnnlayers import _core


@pytest.fixture
def rng():
    return np.random.default_rng(2024)


@pytest.fixture(params=list(_core.variants), scope="session")
def variant(request):
    """The functions of one instruction-set level: one test for each that this machine has."""
    return _core.variants[request.param]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    """Sets the number of threads for one test."""
    before = _core.get_num_threads()
    _core.set_num_threads(request.param)
    yield request.param
    _core.set_num_threads(before)


def tolerance(depth, magnitude):
    """Largest error of a float32 sum of `depth` terms, whatever the order of summation.

    Each of the `depth` roundings is at most half an eps of a partial sum, and no partial sum
    exceeds `magnitude`, the sum of the terms' absolute values. The other half of the eps covers the
    second-order terms and the rounding of the terms themselves.
    """
    return np.finfo(np.float32).eps * max(depth, 1) * np.asarray(magnitude, np.float64)


def assert_sum(actual, expected, depth, magnitude):
    """`actual` is a float32 sum of `depth` terms whose exact value is `expected`."""
    assert actual.shape == expected.shape
    error = np.abs(actual.astype(np.float64) - expected)
    excess = np.max(error - tolerance(depth, magnitude), initial=-np.inf)
    assert excess <= 0, f"error exceeds the bound by {excess}"
