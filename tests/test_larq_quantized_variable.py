"""`QuantizedVariable`: latent outside of the scope, quantised inside, a variable in everything else."""

import copy
import operator
import pickle

import numpy as np
import pytest
from larq_checks import small_network

import bnnlayers as lq
from bnnlayers import context, keras
from bnnlayers.quantized_variable import QuantizedVariable


def double(x):
    return 2 * x


def doubled(value, **kwargs):
    return QuantizedVariable.from_variable(lq.Variable(value, **kwargs), quantizer=double)


@pytest.fixture(params=[True, False], ids=["quantized", "latent"])
def quantized(request):
    with context.quantized_scope(request.param):
        yield request.param


def test_it_is_a_variable():
    x = doubled(3.0)
    assert isinstance(x, QuantizedVariable)
    assert isinstance(x, lq.Variable)


def test_read():
    x = doubled(3.5)
    for quantize, expected in ((False, 3.5), (True, 7), (False, 3.5)):
        with context.quantized_scope(quantize):
            for value in (x, x.value(), x.read_value(), x.numpy(), lq.convert_to_tensor(x), np.asarray(x), float(x)):
                assert value == expected


def test_read_in_nested_scopes():
    x = doubled(3.5)
    with context.quantized_scope(True):
        assert x.numpy() == 7
        with context.quantized_scope(False):
            assert x.numpy() == 3.5
        assert x.numpy() == 7


def test_read_in_parts(quantized):
    x = doubled([1.0, 2.0])
    assert x[0] == (2 if quantized else 1)
    assert list(x) == ([2, 4] if quantized else [1, 2])
    assert len(x) == 2


@pytest.mark.parametrize("name", ["name", "dtype", "shape", "trainable", "constraint", "version"])
def test_the_rest_is_the_latent_variables(name, quantized):
    latent = lq.Variable([3.5], name="kernel", trainable=False, dtype="float64", constraint=np.abs)
    x = QuantizedVariable(latent, double)
    latent.assign([4.5])
    assert getattr(x, name) == getattr(latent, name)


def test_assign(quantized):
    factor = 2 if quantized else 1
    x = doubled(0.0, dtype="float64")
    for value in (lq.constant(3.25, dtype="float64"), 3.25):
        assert x.assign(value).numpy() == 3.25 * factor
        assert x.assign_add(value).numpy() == 6.5 * factor
        assert x.assign_sub(value).numpy() == 3.25 * factor
    assert x.assign(1.0).assign_add(3.0).assign_sub(2.0) is x
    assert x.latent_variable.numpy() == 2
    with pytest.raises(ValueError, match="shape"):
        x.assign([1.0, 2.0])
    assert x.latent_variable.numpy() == 2


def test_operators(quantized):
    x = doubled(3.5) if quantized else doubled(7.0)
    for actual, expected in [
        (x + 1, 8),
        (3 + x, 10),
        (x + x, 14),
        (x - 2, 5),
        (13 - x, 6),
        (x - x, 0),
        (x * 2, 14),
        (3 * x, 21),
        (x * x, 49),
        (x / 2, 3.5),
        (10.5 / x, 1.5),
        (x // 2, 3),
        (15 // x, 2),
        (x % 2, 1),
        (16 % x, 2),
        (x**3, 343),
        (2**x, 128),
        (-x, -7),
        (abs(x), 7),
        (x < 12, True),
        (x <= 12, True),
        (x > 12, False),
        (x >= 12, False),
        (operator.lt(12, x), False),
        (operator.le(12, x), False),
        (operator.gt(12, x), True),
        (operator.ge(12, x), True),
    ]:
        assert actual == expected
        assert isinstance(actual, lq.Tensor)


def test_matrix_product(quantized):
    x = doubled([[1.0, 2.0]])
    factor = 2 if quantized else 1
    assert (x @ np.ones((2, 1), np.float32)).item() == 3 * factor
    assert (np.ones((1, 1), np.float32) @ x).tolist() == [[factor, 2 * factor]]


def test_equality_is_elementwise(quantized):
    x = doubled([3.5, 4.0, 4.5]) if quantized else doubled([7.0, 8.0, 9.0])
    np.testing.assert_array_equal(x, [7, 8, 9])
    assert (x == [7.0, 8.0, 10.0]).tolist() == [True, True, False]
    assert (x != [7.0, 8.0, 10.0]).tolist() == [False, False, True]
    assert {x: 1}[x] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lq.constant([1.0]),), "`variable` must be"),
        ((lq.Variable([1.0]), 1), "`quantizer` must be `callable` or `None`"),
        ((lq.Variable([1.0]), None, 1.0), "`precision` must be of type `int` or `None`"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantizedVariable.from_variable(*arguments)


def test_precision():
    x = lq.Variable([1.0])
    assert QuantizedVariable(x).precision is None
    assert QuantizedVariable(x, double).precision is None
    assert QuantizedVariable(x, lq.quantizers.SteTern()).precision == 2
    assert QuantizedVariable(x, lq.quantizers.SteTern(), precision=3).precision == 3


def test_repr():
    class Quantizer:
        def __call__(self, x):
            return 2 * x

    x = lq.Variable(0.5, name="x")
    assert repr(QuantizedVariable(x, double)) == (
        "<QuantizedVariable 'x:0' shape=() dtype=float32 quantizer=double numpy=0.5>"
    )
    assert repr(QuantizedVariable(x, Quantizer(), precision=1)) == (
        "<QuantizedVariable 'x:0' shape=() dtype=float32 quantizer=Quantizer precision=1 numpy=0.5>"
    )
    with context.quantized_scope(True):
        assert repr(doubled([0.0, 1.0], name="x")) == (
            "<QuantizedVariable 'x:0' shape=(2,) dtype=float32 quantizer=double numpy=array([0., 2.], dtype=float32)>"
        )


@pytest.mark.parametrize("quantize", [True, False])
def test_gradient_goes_to_the_latent_variable(quantize):
    x = QuantizedVariable.from_variable(lq.Variable(1.0), quantizer=lambda x: -x)

    def loss():
        with context.quantized_scope(quantize):
            return x + 1.0

    keras.optimizers.SGD(1.0).minimize(loss, var_list=[x])
    assert x.numpy() == (2 if quantize else 0)
    with context.quantized_scope(True):
        assert x.numpy() == (-2 if quantize else 0)


def test_files_equal_those_of_plain_variables(tmp_path):
    def network(**kwargs):
        layer = lq.layers.QuantDense(3, use_bias=False, name="dense", **kwargs)
        return keras.models.Sequential([keras.layers.Input((4,)), layer], name="network")

    binary = network(kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    plain = network()
    binary.save_weights(tmp_path / "binary.h5")
    plain.load_weights(tmp_path / "binary.h5")
    np.testing.assert_array_equal(plain.get_weights()[0], binary.get_weights()[0])
    plain.set_weights([np.full((4, 3), 0.25, np.float32)])
    plain.save_weights(tmp_path / "plain.h5")
    binary.load_weights(tmp_path / "plain.h5")
    kernel = binary.layers[-1].kernel
    assert isinstance(kernel, QuantizedVariable)
    assert np.all(kernel.numpy() == 0.25)
    with context.quantized_scope(True):
        assert np.all(kernel.numpy() == 1)


def test_a_saved_model_predicts_the_same(tmp_path, rng):
    model = small_network(32, 16, 10)
    x = rng.normal(size=(4, 32)).astype(np.float32)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_stands_alone(copied):
    x = doubled([1.0, 2.0], name="x")
    y = copied(x)
    y.assign([5.0, 5.0])
    with context.quantized_scope(True):
        assert x.numpy().tolist() == [2, 4]
        assert y.numpy().tolist() == [10, 10]
    assert (y.name, y.shape) == ("x:0", (2,))


def test_a_packed_operand_is_made_once_for_a_version():
    x = QuantizedVariable(lq.Variable(np.ones((40, 3), np.float32)), lq.quantizers.SteSign())
    with context.quantized_scope(True):
        first, second = x._operand_(0), x._operand_(0)
        assert isinstance(first, lq.BitArray)
        assert first.words is second.words
        x.assign_sub(np.full((40, 3), 2, np.float32))
        third = x._operand_(0)
        assert third.words is not first.words
        np.testing.assert_array_equal(third.numpy(), np.full((40, 3), -1))
    assert isinstance(x._operand_(0), lq.Tensor)
