"""The products of the extension over random geometries; see `product_checks`."""

import os

import numpy as np
import product_checks as checks
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from product_checks import Bits, Problem

from bnnlayers import geometry

FEW = settings(max_examples=100, deadline=None, derandomize="CI" in os.environ)


def per_axis(rank, values):
    return st.tuples(*[values] * rank)


@st.composite
def problems(draw):
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    most = (12, 7, 4)[rank - 1]
    small = st.integers(0, 3)
    return Problem(
        spatial=draw(per_axis(rank, st.integers(1, most))),
        kernel=draw(per_axis(rank, st.integers(1, 4 if rank < 3 else 3))),
        channels=groups * draw(st.integers(0, 70)),
        filters=groups * draw(st.integers(0, 70)),
        strides=draw(per_axis(rank, st.integers(1, 3))),
        dilation=draw(per_axis(rank, st.integers(1, 3))),
        pads=draw(per_axis(rank, st.tuples(small, small))),
        groups=groups,
        batch=draw(st.integers(0, 3)),
    )


generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
bits = st.sampled_from([0, 1, -1])


@pytest.mark.parametrize("check", [checks.check_xnor, checks.check_signed_left, checks.check_signed_reduce])
@FEW
@given(problem=problems(), rng=generators, pad=bits)
def test_products_of_packed_inputs(variant, check, problem, rng, pad):
    check(variant, problem, rng, pad)


operands = st.one_of(
    st.builds(Bits, st.sampled_from(["sign", "unit"]), st.integers(1, 4)), st.just(Bits("ternary", 2))
)


@FEW
@given(problem=problems(), rng=generators, pad=bits, left=operands, right=operands)
def test_products_of_every_kind_of_bits(variant, problem, rng, pad, left, right):
    checks.check_bits(variant, problem, rng, pad, left, right)
    checks.check_bits_transposed(variant, problem, rng, left, right)


@pytest.mark.parametrize("check", [checks.check_signed_right, checks.check_im2col])
@FEW
@given(problem=problems(), rng=generators, pad=st.floats(-2, 2, width=32))
def test_products_of_float_inputs(variant, check, problem, rng, pad):
    check(variant, problem, rng, pad)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_xnor_transposed,
        checks.check_signed_right_transposed,
        checks.check_signed_left_transposed,
        checks.check_direct_transposed,
        checks.check_signed_reduce_transposed,
        checks.check_col2im,
    ],
)
@FEW
@given(problem=problems(), rng=generators)
def test_transposed_products(variant, check, problem, rng):
    check(variant, problem, rng)


@FEW
@given(
    shape=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    rng=generators,
    clip=st.floats(0, 2, width=32),
    data=st.data(),
)
def test_pack_unpack_select(variant, shape, rng, clip, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = checks.floats(rng, shape)
    words, mask, nan = variant.pack(x, axis, clip)
    assert not nan
    np.testing.assert_array_equal(words, ref.pack(x, axis))
    np.testing.assert_array_equal(variant.unpack(words[0], shape[axis], axis), ref.ste_sign(x))
    np.testing.assert_array_equal(variant.select(x, mask, axis), ref.ste_sign_grad(x, x, clip))


@FEW
@given(
    length=st.integers(1, 20),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same", "causal"]),
)
def test_geometry_agrees_with_the_reference(length, kernel, stride, dilation, padding):
    pad = ref.pads(length, kernel, padding, stride, dilation)
    assert geometry.low_pad(length, kernel, padding, stride, dilation) == pad[0]
    assert geometry.output_length(length, kernel, padding, stride, dilation) == ref.output_length(
        length, kernel, pad, stride, dilation
    )
