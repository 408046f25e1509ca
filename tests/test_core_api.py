"""The manners of the C extension: what it refuses and in which words, ufuncs, threads, forks.

Whether the results are right is tests/test_kernels.py's business.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from bnnlayers import _core
from bnnlayers import geometry as geo
from bnnlayers.ops import blas

UFUNCS = {
    name: ufunc.nin for name, ufunc in vars(_core).items() if isinstance(ufunc, np.ufunc) and ufunc.signature is None
}


def convolution(channels=8, filters=4, groups=1, batch=2, spatial=(5, 6), strides=(1, 1)):
    return geo.convolution(
        batch, spatial, channels, (3, 3), filters, strides=strides, padding="same", dilation=(1, 1), groups=groups
    )


def operands(rng, geometry):
    """Valid arguments of every function, for one geometry."""
    g = geometry
    depth = g.channels // g.groups
    taps = g.kernel[1:]
    x = rng.standard_normal((g.batch, *g.inputs[1:], g.channels)).astype(np.float32)
    w = rng.standard_normal((*taps, depth, g.filters)).astype(np.float32)
    dy = rng.standard_normal((g.batch, *g.outputs[1:], g.filters)).astype(np.float32)
    words, mask, _ = _core.pack(x, -1, 1.0)
    right = _core.pack(w, -2, None)[0]
    forward = _core.prepare(right, g.groups, g.channels, False)
    back = _core.prepare(right, g.groups, g.channels, True)
    columns = _core.im2col(x, g, 0.0)
    return {
        "pack": dict(x=x, axis=-1, clip=1.0),
        "unpack": dict(words=words[0], count=g.channels, axis=-1, dtype=np.float32),
        "select": dict(dy=x, mask=mask, axis=-1),
        "prepare": dict(words=right, groups=g.groups, channels=g.channels, transposed=False),
        "xnor": dict(x=words, right=forward, geometry=g, pad=0.0, transposed=False, dtype=np.int32),
        "signed_right": dict(x=x, right=forward, geometry=g, pad=0.0, transposed=False),
        "signed_right back": dict(x=dy, right=back, geometry=g, pad=0.0, transposed=True),
        "signed_left": dict(x=words, w=w, geometry=g, pad=0.0),
        "signed_reduce": dict(x=words, dy=dy, geometry=g, pad=0.0),
        "direct": dict(x=x, w=w, geometry=g, pad=0.0),
        "direct_reduce": dict(x=x, dy=dy, geometry=g, pad=0.0),
        "im2col": dict(x=x, geometry=g, pad=0.0),
        "col2im": dict(columns=columns, geometry=g),
    }


def call(namespace, name, arguments):
    return getattr(namespace, name.split()[0])(**arguments)


def arrays_of(result):
    return [a for a in (result if isinstance(result, tuple) else (result,)) if isinstance(a, np.ndarray)]


def assert_same(left, right):
    for a, b in zip(arrays_of(left), arrays_of(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


NAMES = list(operands(np.random.default_rng(0), convolution()))
ARRAYS = [(n, a) for n, v in operands(np.random.default_rng(0), convolution()).items() for a in v
          if isinstance(v[a], np.ndarray)]  # fmt: skip
GEOMETRIES = [n for n, v in operands(np.random.default_rng(0), convolution()).items() if "geometry" in v]


@pytest.fixture
def valid(rng):
    return operands(rng, convolution(channels=40, groups=2))


def refused(error, valid, name, argument, value, *more):
    arguments = {**valid[name], argument: value}
    with pytest.raises(error) as caught:
        call(_core, name, arguments)
    message = str(caught.value)
    for part in (f"{name.split()[0]}()", f"'{argument}'", "must", "got", *more):
        assert part in message, message


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
@pytest.mark.parametrize(
    "value", [object(), "text", None, np.array(["a"]), np.zeros(3, "M8[s]"), np.zeros((2, 2), "c8")]
)
def test_an_argument_that_is_no_array_of_numbers(valid, name, argument, value):
    refused(TypeError, valid, name, argument, value)


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_a_ragged_list(valid, name, argument):
    refused(ValueError, valid, name, argument, [[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_another_dtype(valid, name, argument):
    array = valid[name][argument]
    wrong = [np.longdouble, np.complex128]
    if (name, argument) not in {("pack", "x"), ("select", "dy"), ("im2col", "x"), ("col2im", "columns")}:
        wrong += [np.float64, np.float16, np.int64, bool]
    for dtype in wrong:
        refused(TypeError, valid, name, argument, np.zeros(array.shape, dtype), str(np.dtype(dtype)))


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_another_rank(valid, name, argument):
    array = valid[name][argument]
    if argument in ("x", "dy") and name in ("pack", "select"):  # any rank will do, if it has the axis
        refused(ValueError, {name: {**valid[name], argument: array[0, 0, 0, 0]}}, name, "axis", 0)
        return
    refused(ValueError, valid, name, argument, array.reshape(-1)[0].reshape(()), "shape ()")
    refused(ValueError, valid, name, argument, array[:0] if array.ndim == 1 else array.reshape(-1))


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
@pytest.mark.parametrize("axis", [0, -1])
def test_another_length(valid, name, argument, axis):
    array = valid[name][argument]
    longer = np.concatenate([array, array], axis=axis)
    open_ended = {("unpack", "words"), ("prepare", "words"), ("xnor", "x")}  # xnor: more planes
    if name == "pack" or (axis == 0 and (name, argument) in open_ended):
        call(_core, name, {**valid[name], argument: longer})  # every length is right
        return
    if (name, argument) == ("select", "dy"):
        argument, longer = "mask", np.concatenate([valid[name]["mask"]] * 2, axis=axis)
    refused(ValueError, valid, name, argument, longer, "shape")


@pytest.mark.parametrize("name", ["xnor", "signed_right"])
@pytest.mark.parametrize("size", [0, 1, 63])
def test_another_blob(valid, name, size):
    refused(ValueError, valid, name, "right", np.zeros(size, np.uint8), f"shape ({size},)")


def test_another_number_of_planes(valid):
    x = valid["xnor"]["x"]
    refused(ValueError, valid, "xnor", "x", np.concatenate([x] * 17), "(16, ..., 2)")
    refused(ValueError, valid, "xnor", "x", x[:0], "(1, ..., 2)")
    ternary = {"xnor": {**valid["xnor"], "left": "ternary", "right_kind": "ternary"}}
    refused(ValueError, ternary, "xnor", "x", x, "(2, ..., 2)")
    refused(ValueError, ternary, "xnor", "right_planes", 3, "at most 2")
    refused(ValueError, valid, "xnor", "right_planes", 0, "at least 1")
    refused(ValueError, valid, "xnor", "right_planes", 17, "at most 16")
    refused(TypeError, valid, "xnor", "right_planes", 1.0)
    several = {"xnor": {**valid["xnor"], "right_planes": 2}}
    refused(ValueError, several, "xnor", "right", valid["xnor"]["right"], "shape")


@pytest.mark.parametrize(("name", "argument"), [("xnor", "left"), ("xnor", "right_kind"), ("pack", "kind")])
def test_another_kind(valid, name, argument):
    last = "levels" if name == "pack" else "ternary"
    refused(ValueError, valid, name, argument, "signs", "'sign', 'unit'", f" or '{last}'")
    refused(TypeError, valid, name, argument, 1, "int")


def test_another_parameter_of_pack(valid):
    ternary, levels = ({"pack": {**valid["pack"], "kind": kind}} for kind in ("ternary", "levels"))
    for threshold in (-1.0, np.nan):
        refused(ValueError, ternary, "pack", "parameter", threshold)
    for count in (0.0, 2.0, 2.0**17 - 1, np.inf, np.nan):
        refused(ValueError, levels, "pack", "parameter", count, "2**k - 1")
    refused(TypeError, levels, "pack", "parameter", "3")


def test_sums_beyond_int32():
    geometry = geo.dense(1, 40000, 1)
    words = np.zeros((8, 1, 1250), np.uint32)
    right = _core.prepare(words[:, np.newaxis], 1, 40000, False)
    with pytest.raises(ValueError, match=r"xnor\(\).*40000 products of 8 and 8 planes"):
        _core.xnor(words[:, np.newaxis], right, geometry, 0.0, False, np.int32, "unit", "unit", 8)


def test_sums_beyond_int16():
    for depth, fits in ((32767, True), (32768, False)):
        words = np.zeros((1, 1, -(-depth // 32)), np.uint32)
        right = _core.prepare(words[:, np.newaxis], 1, depth, False)
        args = words[:, np.newaxis], right, geo.dense(1, depth, 1), 0.0, False
        if fits:
            np.testing.assert_array_equal(_core.xnor(*args, np.int16), [[[depth]]])
        else:
            with pytest.raises(ValueError, match=r"xnor\(\).*32768 products of 1 and 1 planes exceed int16"):
                _core.xnor(*args, np.int16)


def test_the_message_says_what_was_expected_and_received(valid):
    with pytest.raises(ValueError) as caught:
        call(_core, "xnor", {**valid["xnor"], "x": np.zeros((1, 7, 2), np.uint32)})
    expected = "xnor(): argument 'x' must be of shape (1, ..., 2) with 60 items along '...', got shape (1, 7, 2)"
    assert str(caught.value) == expected
    with pytest.raises(TypeError) as caught:
        call(_core, "xnor", {**valid["xnor"], "x": np.zeros((1, 7, 2))})
    assert str(caught.value) == "xnor(): argument 'x' must be a uint32 array, got float64 array"


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(
    "change",
    [
        {"batch": -1},
        {"batch": 2**62},
        {"batch": 2**70},
        {"groups": 0},
        {"groups": -1},
        {"groups": 3},
        {"channels": -1},
        {"channels": 41},
        {"channels": 2**40},
        {"channels": 2**63 - 1},
        {"filters": -2},
        {"filters": 3},
        {"filters": 2**62},
        {"inputs": (1, -5, 6)},
        {"inputs": (2**31, 2**31, 2**31)},
        {"outputs": (1, 5, -6)},
        {"outputs": (1, 2**20, 2**20)},
        {"kernel": (1, 0, 3)},
        {"kernel": (1, -3, 3)},
        {"kernel": (2**30, 2**30, 2**30)},
        {"strides": (1, 0, 1)},
        {"strides": (1, -1, 1)},
        {"strides": (1, 2**63, 1)},
        {"dilation": (1, 0, 1)},
        {"dilation": (1, -1, 1)},
        {"pad": (0, -1, 0)},
        {"pad": (0, 2**63 - 1, 0)},
    ],
    ids=repr,
)
def test_a_geometry_that_is_not_sound(valid, name, change):
    geometry = valid[name]["geometry"]._replace(**change)
    refused(ValueError, valid, name, "geometry", geometry)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(
    "geometry",
    [None, 3, (), (1,) * 10, list(convolution()), "geometry"] + [convolution()._replace(**change) for change in (
        {"batch": 1.5}, {"groups": "1"}, {"kernel": (3, 3)}, {"kernel": [1, 3, 3]}, {"strides": None},
        {"pad": (0, 0.5, 0)})],
    ids=repr,
)  # fmt: skip
def test_what_is_no_geometry(valid, name, geometry):
    refused(TypeError, valid, name, "geometry", geometry)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_geometry_of_another_size(valid, name):
    """Sound in itself, but the arrays are not its arrays."""
    with pytest.raises(ValueError, match=rf"{name.split()[0]}\(\): argument '\w+' must be .*, got"):
        call(_core, name, {**valid[name], "geometry": convolution(channels=72, groups=2, batch=3, filters=6)})


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("pack", "axis", 4),
        ("pack", "axis", -5),
        ("pack", "axis", 2**70),
        ("select", "axis", 4),
        ("unpack", "axis", -5),
        ("unpack", "count", -1),
        ("unpack", "count", 2**62),
        ("unpack", "count", 2**70),
        ("prepare", "groups", 0),
        ("prepare", "groups", -2),
        ("prepare", "groups", 8),
        ("prepare", "groups", 2**62),
        ("prepare", "channels", -40),
        ("prepare", "channels", 41),
        ("prepare", "channels", 2**70),
        ("xnor", "pad", 0.5),
        ("xnor", "pad", float("nan")),
        ("xnor", "pad", float("inf")),
        ("signed_left", "pad", 2),
        ("signed_reduce", "pad", -0.25),
        ("signed_right back", "pad", 1.0),
        ("signed_right", "pad", 10**400),
    ],
)
def test_a_number_out_of_range(valid, name, argument, value):
    if (name, argument) in {("unpack", "count"), ("prepare", "channels")} and value == 2**62:
        argument = "count"
    arguments = {**valid[name], argument: value}
    with pytest.raises(ValueError, match=rf"{name.split()[0]}\(\): argument '\w+' must be .*, got"):
        call(_core, name, arguments)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("pack", "axis", 1.0),
        ("pack", "axis", None),
        ("pack", "clip", "1"),
        ("pack", "clip", [1.0, 2.0]),
        ("unpack", "count", 8.0),
        ("unpack", "axis", "0"),
        ("unpack", "dtype", np.int32),
        ("unpack", "dtype", "no dtype"),
        ("unpack", "dtype", None),
        ("prepare", "groups", 1.0),
        ("prepare", "channels", None),
        ("xnor", "pad", None),
        ("xnor", "dtype", np.float64),
        ("xnor", "dtype", np.uint16),
        ("xnor", "dtype", object()),
        ("signed_right", "pad", "0"),
        ("im2col", "pad", 1j),
    ],
)
def test_an_argument_of_another_kind(valid, name, argument, value):
    refused(TypeError, valid, name, argument, value)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_missing_or_unknown(valid, name):
    function = getattr(_core, name.split()[0])
    with pytest.raises(TypeError, match=rf"{name.split()[0]}\(\)"):
        function()
    with pytest.raises(TypeError, match="keyword argument"):
        function(**valid[name], unknown=1)


class Unfriendly:
    """Raises whatever is asked of it."""

    def __index__(self):
        raise KeyboardInterrupt

    __float__ = __array__ = __bool__ = __index__


@pytest.mark.parametrize(
    ("name", "argument"), [("pack", "x"), ("pack", "axis"), ("pack", "clip"), ("xnor", "transposed")]
)
def test_an_exception_of_an_argument_passes_through(valid, name, argument):
    with pytest.raises(KeyboardInterrupt):
        call(_core, name, {**valid[name], argument: Unfriendly()})


def test_huge_empty_arrays(variant):
    """Zero-sized, but other lengths are near the end of the address space."""
    huge = np.zeros((1, 2**50, 0), np.uint32)
    with pytest.raises(ValueError, match=r"prepare\(\)"):
        variant.prepare(huge.reshape(1, 2**30, 2**20, 0), 1, 0, False)
    assert variant.pack(np.zeros((2**60, 0), np.float32), 0, None)[0].shape == (1, 0, 2**55)
    with pytest.raises(ValueError, match=r"unpack\(\)"):
        variant.unpack(np.zeros((0, 2**30), np.uint32), 2**62, 1)


def test_memory_that_does_not_suffice(valid):
    far = convolution(channels=1, filters=1, batch=1)._replace(outputs=(1, 1, 2**30), kernel=(1, 1, 2**10))
    with pytest.raises((MemoryError, ValueError)):
        _core.im2col(np.zeros((1, 5, 6, 1)), far._replace(batch=1), 0.0)


def test_too_many_axes():
    x = np.zeros((1,) * 64, np.float32)
    with pytest.raises(ValueError, match=r"pack\(\): the result would have 65 axes"):
        _core.pack(x, 0, None)


@pytest.mark.parametrize("count", [0, -1, 2**31, 2**70])
def test_a_thread_count_out_of_range(count):
    before = _core.get_num_threads()
    with pytest.raises(ValueError, match=r"set_num_threads\(\): argument 'count' must be at"):
        _core.set_num_threads(count)
    with pytest.raises(TypeError, match=r"set_num_threads\(\): argument 'count' must be an integer, got float"):
        _core.set_num_threads(2.0)
    assert _core.get_num_threads() == before


def test_what_cannot_be_shared():
    with pytest.raises(TypeError, match=r"share\(\): argument 'function' must be callable, got int"):
        _core.share(3, 2)
    with pytest.raises(ValueError, match=r"share\(\): argument 'count' must be at least 0"):
        _core.share(print, -1)
    with pytest.raises(TypeError, match=r"share\(\): argument 'count' must be an integer, got str"):
        _core.share(print, "2")


# ---- arrays of every form ------------------------------------------------------------------------------------------


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype) if array.dtype.itemsize == 1 else np.frombuffer(raw.data, array.dtype, offset=1)
    if array.size == 0:
        return array
    view = view[: array.size].reshape(array.shape)
    view[...] = array
    return view


class Subclass(np.ndarray):
    """Comes in, does not come out."""


FORMS = {
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "subclass": lambda a: a.view(Subclass),
    "list": None,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_is_read(valid, name, form):
    expected = call(_core, name, valid[name])
    arguments = dict(valid[name])
    for key, value in arguments.items():
        if isinstance(value, np.ndarray):
            arguments[key] = value.tolist() if form == "list" else FORMS[form](value)
            if form != "list":
                arguments[key].flags.writeable = False
    if form == "list":  # lists of numbers are float64 or int64, where promotion allows that
        if name not in {"pack", "im2col", "col2im"}:
            return
        expected = call(_core, name, {k: v.astype(np.float64) if isinstance(v, np.ndarray) else v
                                      for k, v in valid[name].items()})  # fmt: skip
    result = call(_core, name, arguments)
    assert_same(result, expected)
    assert all(type(a) is np.ndarray and a.flags.c_contiguous and a.flags.writeable for a in arrays_of(result))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int16, np.int64, np.uint64, np.float16])
def test_packing_promotes(dtype):
    x = np.array([[0, 1, 3, 1]]).astype(dtype)
    if np.dtype(dtype).kind != "b" and np.dtype(dtype).kind != "u":
        x = -x
    words, mask, nan = _core.pack(x, 1, 1.0)
    assert words.tolist() == [[[sum(int(v < 0) << i for i, v in enumerate(x[0]))]]]
    assert mask.tolist() == [[sum(int(abs(v.astype(float)) <= 1) << i for i, v in enumerate(x[0]))]]
    assert not nan


def test_the_inputs_are_left_alone(valid):
    for name, arguments in valid.items():
        before = {k: v.copy() for k, v in arguments.items() if isinstance(v, np.ndarray)}
        call(_core, name, arguments)
        for key, value in before.items():
            np.testing.assert_array_equal(arguments[key], value)


@pytest.mark.parametrize("empty", ["batch", "channels", "filters", "spatial"])
def test_empty_results(rng, empty, variant):
    sizes = {"batch": 0} if empty == "batch" else {"spatial": (0, 6)} if empty == "spatial" else {empty: 0}
    g = convolution(**sizes)
    for name, arguments in operands(rng, g).items():
        if "prepare" in name:
            continue
        if "right" in arguments:
            words = operands(rng, g)["prepare"]["words"]
            arguments["right"] = variant.prepare(words, 1, g.channels, "back" in name)
        for array in arrays_of(call(variant, name, arguments)):
            if name not in {"pack", "unpack", "select", "im2col", "col2im"}:
                assert not array.any()


# ---- ufuncs --------------------------------------------------------------------------------------------------------


def values(rng, count, shape, dtype=np.float32):
    """Operands of an elementwise operation; the parameters behind x and dy keep low <= high."""
    x = [rng.uniform(-2, 2, shape).astype(dtype) for _ in range(min(count, 2))]
    return x + ([dtype(-0.5)] if count == 4 else []) + ([dtype(0.75)] if count > 2 else [])


def operand_list(rng, name, shape, dtype=np.float32):
    if name == "clip":
        return [rng.uniform(-2, 2, shape).astype(dtype), dtype(-0.5), dtype(0.75)]
    return values(rng, UFUNCS[name], shape, dtype)


@pytest.fixture(params=UFUNCS)
def name(request):
    return request.param


def test_the_namespaces_are_complete():
    assert list(_core.variants)[0] == _core.level
    for level, namespace in _core.variants.items():
        assert namespace.level == level
        public = {key for key in vars(_core) if not key.startswith("_")} - {"variants"}
        assert public == set(vars(namespace))
        assert {"ste_sign", "ste_sign_grad", "clip", "clip_grad"} <= set(UFUNCS)
        for ufunc, count in UFUNCS.items():
            assert isinstance(getattr(namespace, ufunc), np.ufunc)
            assert getattr(namespace, ufunc).nin == count
    assert _core.variants[_core.level].xnor is _core.xnor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ufunc_manners(variant, name, rng, dtype):
    ufunc = getattr(variant, name)
    args = operand_list(rng, name, (7, 300), dtype)
    full = ufunc(*args)
    assert full.dtype == dtype and full.shape == (7, 300)

    out = np.full((7, 300), 9, dtype)
    assert ufunc(*args, out=out) is out
    np.testing.assert_array_equal(out, full)

    where = rng.random((7, 300)) < 0.5
    out = np.full((7, 300), 9, dtype)
    ufunc(*args, out=out, where=where)
    np.testing.assert_array_equal(out, np.where(where, full, dtype(9)))

    for key in [np.s_[::2, ::3], np.s_[::-1, ::-1], np.s_[:, 5], np.s_[2], np.s_[1:1], np.s_[3, 7]]:
        part = [np.broadcast_to(a, (7, 300))[key] for a in args]
        np.testing.assert_array_equal(ufunc(*part), full[key])
        wide = np.zeros((*full[key].shape, 2), dtype)
        ufunc(*part, out=wide[..., 1])
        np.testing.assert_array_equal(wide[..., 1], full[key])

    for form in ("swapped", "misaligned", "fortran"):
        np.testing.assert_array_equal(ufunc(*[FORMS[form](np.asarray(a)) for a in args]), full)

    for position, a in enumerate(args):  # in place, each operand in turn
        if np.ndim(a):
            copies = [np.array(b) for b in args]
            ufunc(*copies, out=copies[position])
            np.testing.assert_array_equal(copies[position], full)

    shifted = np.zeros(2101, dtype)  # the output overlaps the input
    shifted[:-1] = args[0].ravel()
    rest = [np.broadcast_to(a, (7, 300)).ravel() for a in args[1:]]
    ufunc(shifted[:-1], *rest, out=shifted[1:])
    np.testing.assert_array_equal(shifted[1:], full.ravel())


def test_ufuncs_broadcast(variant, name, rng):
    ufunc = getattr(variant, name)
    args = [rng.uniform(0, 1, shape).astype(np.float32) for shape in [(3, 1, 5), (4, 5), (3, 1, 1), (5,)][: ufunc.nin]]
    if name == "clip":
        args[1:] = [-args[1], args[2]]
    if name == "clip_grad":
        args[2] = -args[2]
    shape = np.broadcast_shapes(*[a.shape for a in args])
    whole = [np.ascontiguousarray(np.broadcast_to(a, shape)) for a in args]
    np.testing.assert_array_equal(ufunc(*args), ufunc(*whole))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(bool, "f4"), ("i1", "f4"), ("u2", "f4"), ("i4", "f8"), ("i8", "f8"), ("f2", "f4"), (">f4", "f4"), (">f8", "f8")],
)
def test_ufuncs_promote(variant, name, dtype, result):
    x = np.array([0, 1, 2, 1], dtype)
    assert getattr(variant, name)(*[x] * UFUNCS[name]).dtype == result


def test_python_numbers_keep_float32(variant):
    x = np.float32([0.5, 2])
    assert variant.ste_sign_grad(x, x, 1.0).dtype == np.float32
    assert variant.clip(x, -1, 1).dtype == np.float32
    assert variant.clip(x, np.float64(-1), 1).dtype == np.float64


def test_ufuncs_refuse_what_is_not_real(variant, name):
    for x in (np.zeros(2, complex), np.zeros(2, np.longdouble), np.array([None, 1])):
        with pytest.raises(TypeError, match=name):
            getattr(variant, name)(*[x] * UFUNCS[name])
    with pytest.raises(TypeError):
        getattr(variant, name)()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values_warn_nowhere(variant, name, dtype):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38] * 20, dtype)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        getattr(variant, name)(*[special] * UFUNCS[name])


def test_a_ufunc_outlives_the_module():
    code = """
import gc, sys
import numpy as np
from bnnlayers import _core
ufunc = _core.variants[_core.level].ste_sign
import bnnlayers
del bnnlayers._core, sys.modules["bnnlayers._core"], _core
gc.collect()
assert ufunc(np.float32([-2, 2])).tolist() == [-1, 1]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- xnor_matmul ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (3, 40, 5), (2, 64, 33), (4, 0, 3), (0, 4, 3), (3, 4, 0), (5, 129, 1)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_xnor_matmul(variant, rng, m, k, n, dtype):
    x, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    result = variant.xnor_matmul(x, w)
    assert result.dtype == np.int32
    expected = np.where(x < 0, -1, 1) @ np.where(w < 0, -1, 1)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(variant.xnor_matmul(x.T.copy().T, w[:, ::-1])[:, ::-1], expected)
    out = np.zeros((m, 2 * n), np.int32)
    variant.xnor_matmul(x, w, out=out[:, ::2])
    np.testing.assert_array_equal(out[:, ::2], expected)


def test_xnor_matmul_broadcasts(variant, rng):
    x, w = rng.standard_normal((3, 1, 4, 20)), rng.standard_normal((2, 20, 5))
    signs = np.matmul(np.where(x < 0, -1, 1), np.where(w < 0, -1, 1))
    np.testing.assert_array_equal(variant.xnor_matmul(x, w), signs)
    np.testing.assert_array_equal(variant.xnor_matmul(x[:, 0], w[0]), signs[:, 0])
    np.testing.assert_array_equal(variant.xnor_matmul(x[0, 0], w), signs[0])
    np.testing.assert_array_equal(
        variant.xnor_matmul(x, w, axes=[(-2, -1), (-2, -1), (-1, -2)]), signs.swapaxes(-1, -2)
    )


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16, ">f4"])
def test_xnor_matmul_promotes(variant, dtype):
    x = np.array([[0, 1, 1]], dtype)
    np.testing.assert_array_equal(variant.xnor_matmul(x, np.float32([[1], [-1], [-1]])), [[-1]])


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_xnor_matmul_cannot_lose_a_nan(variant, where, dtype):
    args = [np.ones((2, 3, 40), dtype), np.ones((2, 40, 5), dtype)]
    args[where][1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"xnor_matmul\(\).*NaN"), np.errstate(all="ignore"):
        variant.xnor_matmul(*args)


def test_xnor_matmul_refuses(variant):
    with pytest.raises(ValueError, match="xnor_matmul"):
        variant.xnor_matmul(np.ones((2, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="xnor_matmul"):
        variant.xnor_matmul(np.ones(3), np.ones((3, 2)))
    for dtype in (complex, np.longdouble, object, "M8[s]"):
        with pytest.raises(TypeError):
            variant.xnor_matmul(np.zeros((2, 3), dtype), np.ones((3, 2)))
    with pytest.raises(TypeError):
        variant.xnor_matmul(np.ones((2, 3)), np.ones((3, 2)), out=np.zeros((2, 2), bool))
    with pytest.raises((ValueError, MemoryError)):
        variant.xnor_matmul(np.broadcast_to(np.float32(1), (2, 2**33)), np.broadcast_to(np.float32(1), (2**33, 2)))


# ---- threads and processes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large():
    """Large enough for every call to be shared out."""
    return operands(np.random.default_rng(7), convolution(channels=72, filters=48, groups=2, batch=8, spatial=(17, 16)))


@pytest.mark.parametrize("name", NAMES)
def test_thread_count_and_order_do_not_matter(large, name, threads):
    before = _core.get_num_threads()
    _core.set_num_threads(1)
    expected = call(_core, name, large[name])
    _core.set_num_threads(before)
    for _ in range(3):
        assert_same(call(_core, name, large[name]), expected)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_calls_are_shared_by_threads(threads, count):
    seen = []
    _core.share(seen.append, count)
    assert sorted(seen) == list(range(count))
    seen.clear()
    _core.share(lambda i: _core.share(lambda j: seen.append((i, j)), 3), count)
    assert sorted(seen) == [(i, j) for i in range(count) for j in range(3)]


def test_calls_run_at_the_same_time():
    before = _core.get_num_threads()
    _core.set_num_threads(2)
    both = threading.Barrier(2, timeout=60)
    try:
        _core.share(lambda i: both.wait(), 2)
    finally:
        _core.set_num_threads(before)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_first_call_that_fails_ends_all(threads, error):
    seen = []

    def fail(i):
        seen.append(i)
        raise error(i)

    with pytest.raises(error) as raised:
        _core.share(fail, 50)
    assert raised.value.args[0] in seen
    assert len(seen) <= threads
    _core.share(seen.append, 3)


def test_calls_while_the_interpreter_ends():
    """No other thread gets the GIL then, and none may be waited for."""
    script = """
import builtins, time
from bnnlayers import _core

def slow(i, sleep=time.sleep, show=print):
    sleep(0.2)
    show(i)

class Last:
    def __init__(self): self.share, self.slow = _core.share, slow
    def __del__(self): self.share(self.slow, 2)

_core.set_num_threads(2)
_core.share(lambda i: None, 2)
builtins.last = Last()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "1"]
    assert done.returncode == 0


INTEGERS = ["pack", "unpack", "select", "xnor", "im2col", "col2im"]


@pytest.mark.parametrize("name", INTEGERS)
def test_levels_agree(large, name, variant):
    arguments = dict(large[name])
    if "right" in arguments:
        arguments["right"] = variant.prepare(**large["prepare"])
    assert_same(call(variant, name, arguments), call(_core, name, large[name]))


def test_concurrent_calls_on_shared_inputs(large):
    for arguments in large.values():
        for value in arguments.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
    expected = {name: call(_core, name, arguments) for name, arguments in large.items()}
    failures = []

    def work(offset):
        try:
            for i in range(2 * len(NAMES)):
                name = NAMES[(i + offset) % len(NAMES)]
                assert_same(call(_core, name, large[name]), expected[name])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_the_gil_is_released():
    """Another thread runs while a kernel does. It could not otherwise: nobody is asked to switch for ten seconds."""
    g = geo.dense(1024, 2048, 2048)
    x = np.zeros((1, 1024, 64), np.uint32)
    w = np.ones((2048, 2048), np.float32)
    ticks, done = [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    counter = threading.Thread(target=count)
    counter.start()
    try:
        for _ in range(20):  # a busy machine may not give the other thread its turn at once
            begin = time.perf_counter()
            _core.signed_left(x, w, g, 0.0)
            end = time.perf_counter()
            if any(begin < tick < end for tick in list(ticks)):
                break
        else:
            pytest.fail("no other thread ran during twenty calls")
    finally:
        done.set()
        counter.join()
        sys.setswitchinterval(interval)


def in_child(work):
    """The exit status of `work` in a forked child, which is killed after a while."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_after_a_threaded_call(large):
    before = _core.get_num_threads()
    _core.set_num_threads(2)
    count = _core.get_num_threads()  # 1 where there are no threads
    try:
        expected = call(_core, "xnor", large["xnor"])

        def work():
            assert _core.get_num_threads() == 1
            assert_same(call(_core, "xnor", large["xnor"]), expected)
            _core.set_num_threads(2)
            assert_same(call(_core, "xnor", large["xnor"]), expected)

        assert in_child(work) == 0
        assert _core.get_num_threads() == count
        assert_same(call(_core, "xnor", large["xnor"]), expected)
    finally:
        _core.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_after_a_float_product(rng, monkeypatch):
    monkeypatch.setattr(blas, "_SMALL", -1)
    monkeypatch.setattr(blas, "_LARGE", 0)
    a, b = rng.standard_normal((1, 64, 40)), rng.standard_normal((1, 40, 30))
    before = _core.get_num_threads()
    _core.set_num_threads(2)
    try:
        expected = blas.matmul(a, b)

        def work():
            _core.set_num_threads(2)
            np.testing.assert_allclose(blas.matmul(a, b), expected, 1e-12)

        assert in_child(work) == 0
    finally:
        _core.set_num_threads(before)


def read_settings(connection):
    from bnnlayers import _core as core

    connection.send((core.get_num_threads(), list(core.variants)))


@pytest.mark.parametrize(
    ("environment", "threads", "levels"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3, None),
        ({"BNNLAYERS_ISA": "portable"}, None, ["portable"]),
        ({"BNNLAYERS_ISA": "avx2"}, None, ["avx2", "portable"]),
        ({"BNNLAYERS_ISA": "avx512vpopcnt"}, None, ["avx512vpopcnt", "avx512", "avx2", "portable"]),
        ({"BNNLAYERS_ISA": "avx512zen5"}, None, ["avx512zen5", "avx512vpopcnt", "avx512", "avx2", "portable"]),
    ],
)
def test_the_environment(monkeypatch, environment, threads, levels):
    if levels and not set(levels) <= set(_core.variants):
        pytest.skip("this machine does not run that level")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=read_settings, args=(child,))
    process.start()
    assert parent.poll(60)
    seen_threads, seen_levels = parent.recv()
    process.join()
    assert threads is None or seen_threads in (threads, 1)  # 1 where there are no threads
    assert levels is None or seen_levels == levels
