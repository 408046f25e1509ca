"""`BitArray`: the canonical layout, every kind, and what it refuses."""

import itertools

import numpy as np
import pytest
import reference

from bnnlayers.bits import BitArray, pack_bits, unpack_bits

LENGTHS = (0, 1, 31, 32, 33, 64, 65, 127, 129)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pack_is_the_reference_and_unpack_its_inverse(rng, length, axis):
    shape = [3, 2, 4]
    shape[axis] = length
    x = rng.standard_normal(shape).astype(np.float32)
    bits = pack_bits(x, axis)
    np.testing.assert_array_equal(bits.words, reference.pack(x, axis))
    np.testing.assert_array_equal(np.asarray(bits), np.where(x < 0, -1, 1))
    np.testing.assert_array_equal(unpack_bits(bits.words[0], length, axis), np.where(x < 0, -1, 1))


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize(
    "view",
    [
        *(lambda x, order=order: x.transpose(order) for order in itertools.permutations(range(4))),
        lambda x: x[::2, ::-1],
        lambda x: x[..., 1:34:3],
        lambda x: np.broadcast_to(x[:, :1], x.shape),
        lambda x: x[:, :1].swapaxes(1, 3),
        lambda x: x[:0].T,
        lambda x: x.T.astype(np.float64, order="K"),
    ],
)
def test_strides_do_not_matter(rng, view, axis):
    x = view(rng.standard_normal((3, 33, 2, 65)).astype(np.float32))
    np.testing.assert_array_equal(pack_bits(x, axis).words, pack_bits(np.ascontiguousarray(x), axis).words)
    np.testing.assert_array_equal(pack_bits(x, axis).numpy(), np.where(x < 0, -1, 1))


def test_zeros_are_plus_one_and_the_tail_is_zero():
    bits = pack_bits(np.array([0.0, -0.0, -1.0, -np.inf, np.inf]))
    assert bits.words.tolist() == [[0b01100]]


def test_nan_has_no_bit():
    with pytest.raises(ValueError, match=r"pack_bits\(\).*'x' holds NaN"):
        pack_bits(np.array([1.0, np.nan]))


@pytest.mark.parametrize("wrong", ["a", object(), [1j], None])
def test_pack_refuses_what_is_not_real(wrong):
    with pytest.raises(TypeError):
        pack_bits(np.array(wrong) if wrong is None else wrong)


@pytest.mark.parametrize("axis", [2, -3])
def test_pack_refuses_an_axis_that_is_not_there(axis):
    with pytest.raises(ValueError, match="axis"):
        pack_bits(np.ones((2, 2)), axis)


def planes(rng, shape, axis, count):
    return np.concatenate([pack_bits(rng.standard_normal(shape), axis).words for _ in range(count)])


@pytest.mark.parametrize("length", (1, 32, 33))
@pytest.mark.parametrize("axis", (0, 1))
def test_kinds_stand_for_their_values(rng, length, axis):
    shape = (length, 3) if axis == 0 else (3, length)
    words = planes(rng, shape, axis, 2)
    low, high = (unpack_bits(w, length, axis) < 0 for w in words)

    signs = BitArray(words, shape, axis, "sign", divisor=3)
    values = (np.where(low, -1, 1) + 2 * np.where(high, -1, 1)).astype(np.float32)
    np.testing.assert_array_equal(signs, values / np.float32(3))
    units = BitArray(words, shape, axis, "unit", divisor=3)
    np.testing.assert_array_equal(units, (low + 2.0 * high).astype(np.float32) / np.float32(3))
    both = np.stack([words[0] & words[1], words[1]])
    ternary = BitArray(both, shape, axis, "ternary")
    np.testing.assert_array_equal(ternary, np.where(high, np.where(low, -1, 1), 0))
    scale = rng.random(shape[-1]).astype(np.float32)
    np.testing.assert_array_equal(ternary.scaled(scale), np.asarray(ternary) * scale)


def test_words_cannot_be_changed(rng):
    bits = pack_bits(rng.standard_normal(40))
    with pytest.raises(ValueError, match="read-only"):
        bits.words[0] = 1


def test_words_must_fit_the_shape():
    with pytest.raises(ValueError, match=r"BitArray: expected words .* got uint32 \(1, 2\)"):
        BitArray(np.zeros((1, 2), np.uint32), (3, 32), 1)


def test_prepared_operands_are_made_once(rng):
    bits = pack_bits(rng.standard_normal((3, 3, 40, 8)), -2)
    assert bits.prepare(1, 40, False) is bits.prepare(1, 40, False)
    assert bits.prepare(1, 40, True) is not bits.prepare(1, 40, False)
