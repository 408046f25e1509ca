"""How close a float result must come to a recorded one."""

import numpy as np

EPS = np.finfo(np.float32).eps


def tolerance(depth, term):
    """Difference allowed between two float32 sums of `depth` terms of magnitude at most `term`.

    A partial sum of terms of random sign has magnitude about `sqrt(depth) * term`; each of the
    `depth` additions rounds it by at most half an eps, and the roundings add in quadrature. So
    each sum is off by about `depth * term * eps / 2`, and eight times that is left for two of
    them, for terms that carry a rounding themselves, and for the tail.
    """
    return 4 * EPS * max(depth, 1) * float(term)


def assert_close(actual, expected, atol, rtol=4 * EPS, name=""):
    """`actual` has the shape, dtype and, but for rounding, the values of `expected`."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, name
    assert actual.dtype == expected.dtype, name
    np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=name)


def assert_equal(actual, expected, name=""):
    actual = np.asarray(actual)
    assert actual.dtype == expected.dtype, name
    np.testing.assert_array_equal(actual, expected, err_msg=name, strict=True)
