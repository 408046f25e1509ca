"""`FlipRatio`: alone, on bits, and carried by quantizers through training."""

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import BitArray, keras
from bnnlayers.bits import pack_bits
from bnnlayers.metrics import FlipRatio


@pytest.mark.parametrize("build", [True, False])
def test_counts_from_the_second_update_on(build):
    metric = FlipRatio()
    if build:
        metric.build((2,))
    assert metric.result() == metric.total.numpy() == metric.count.numpy() == 0
    for values, total, result in [([1, 1], 0, 0), ([2, 2], 1, 1), ([1, 2], 1.5, 0.75)]:
        metric.update_state(np.array(values))
        assert metric._previous_values.numpy().tolist() == values
        assert metric._previous_values.dtype == np.int8
        assert metric.total.numpy() == total
        assert metric.result() == result
    assert metric.count.numpy() == 3


def test_reset_keeps_the_values():
    metric = FlipRatio()
    metric.update_state([1.0, -1.0])
    metric.update_state([-1.0, 1.0])
    metric.reset_state()
    assert metric.result() == metric.count.numpy() == 0
    np.testing.assert_array_equal(metric._previous_values, [-1, 1])
    # The first update of an epoch is free, whatever it brings.
    metric.update_state([1.0, 1.0])
    assert metric.result() == 0
    metric.update_state([1.0, -1.0])
    assert metric.result() == 0.5


def test_values_are_cast_first():
    metric = FlipRatio()
    for values in ([0.7, 1.2], [-0.3, 1.9], [0.0, -1.5]):
        metric.update_state(np.float32(values))
    np.testing.assert_array_equal(metric._previous_values, [0, -1])
    assert metric.result() == 0.25
    exact = FlipRatio(values_dtype="float32")
    for values in ([0.7, 1.2], [-0.3, 1.9]):
        exact.update_state(np.float32(values))
    assert exact.result() == 1


def test_configuration():
    metric = FlipRatio(values_dtype="int16", name="flips", dtype="float16")
    again = FlipRatio.from_config(metric.get_config())
    for m in (metric, again):
        assert (m.name, m.dtype, m.values_dtype, m.stateful) == ("flips", "float16", np.int16, True)
    assert FlipRatio().get_config() == {"name": "flip_ratio", "dtype": "float32", "values_dtype": "int8"}
    assert type(keras.metrics.get("flip_ratio")) is FlipRatio


@pytest.mark.parametrize("build", [True, False])
def test_another_shape_is_refused(build):
    metric = FlipRatio()
    if build:
        metric.build((3,))
    else:
        metric.update_state([1, 1, 1])
    count = metric.count.numpy()
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        metric.update_state(np.array([1, 1]))
    assert metric.count.numpy() == count


def ternary(rng, shape):
    return rng.integers(-1, 2, shape)


KINDS = {
    "signs": lambda rng, shape: rng.choice([-1, 1], shape),
    "units": lambda rng, shape: rng.integers(0, 2, shape),
    "ternary": ternary,
    "integers": lambda rng, shape: rng.integers(-128, 128, shape),
}


@pytest.mark.parametrize("shape", [(1,), (31,), (33, 3), (3, 3, 5, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_counts_are_exact(rng, kind, shape):
    metric, total = FlipRatio(), 0
    updates = [KINDS[kind](rng, shape).astype(np.float32) for _ in range(4)]
    for i, values in enumerate(updates):
        metric.update_state(values)
        np.testing.assert_array_equal(metric._previous_values, values)
        if i:
            total += np.float32(np.count_nonzero(values != updates[i - 1]) / values.size)
    np.testing.assert_allclose(metric.total.numpy(), total, rtol=1e-6)


def test_values_may_change_their_kind(rng):
    metric = FlipRatio()
    updates = [KINDS[kind](rng, (5, 70)) for kind in ("signs", "ternary", "units", "integers", "signs")]
    expected = [np.mean(a != b) for a, b in zip(updates, updates[1:], strict=False)]
    for values in updates:
        metric.update_state(values)
    np.testing.assert_allclose(metric.result(), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [
        (lq.quantizers.SteSign(), 1),
        (lq.quantizers.ApproxSign(), 1),
        (lq.quantizers.SwishSign(), 1),
        (lq.quantizers.SteHeaviside(), 1),
        (lq.quantizers.SteTern(), 2),
        (lq.quantizers.DoReFa(3, "weights"), 2),
        (lq.quantizers.DoReFa(3, "activations"), 1),
        (lq.quantizers.DoReFa(1, "weights"), 1),
        (lq.quantizers.MagnitudeAwareSign(), None),
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bits_count_as_their_floats(rng, quantizer, bits, axis):
    packed, floats = FlipRatio(), FlipRatio()
    for _ in range(3):
        x = rng.normal(size=(64, 32, 96)).astype(np.float32)
        values = quantizer.encode(x, axis=axis)
        assert isinstance(values, BitArray)
        packed.update_state(values)
        floats.update_state(quantizer(x))
        np.testing.assert_array_equal(packed._previous_values, floats._previous_values)
    np.testing.assert_allclose(packed.result(), floats.result(), rtol=1e-6)
    if bits:
        assert packed.nbytes == bits * x.size // 8


def test_an_array_and_bits_may_take_turns(rng):
    metric = FlipRatio()
    a, b = (rng.choice([-1.0, 1.0], (40, 3)) for _ in range(2))
    for values in (pack_bits(a, 0), b, pack_bits(a, 1), pack_bits(b, 0)):
        metric.update_state(values)
    np.testing.assert_allclose(metric.result(), np.mean(a != b), rtol=1e-6)


def test_a_word_that_stays_flips_nothing(rng):
    metric = FlipRatio()
    bits = pack_bits(rng.choice([-1.0, 1.0], (5, 33)), 1)
    for _ in range(3):
        metric.update_state(bits)
    assert metric._kept.words is bits.words
    assert metric.result() == 0
    assert metric.count.numpy() == 3


# Carried by quantizers

CLIP = {"kernel_constraint": "weight_clip"}


def trained(model, rng, epochs=3, **kwargs):
    model.compile(keras.optimizers.SGD(1.0), "mse", metrics=["mae"])
    x = rng.normal(size=(24, *model.input_shape[1:])).astype(np.float32)
    y = rng.normal(size=(24, *model.output_shape[1:])).astype(np.float32)
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, **kwargs).history


def network():
    with lq.context.metrics_scope(["flip_ratio"]):
        return keras.models.Sequential(
            [
                lq.layers.QuantDense(5, kernel_quantizer="ste_sign", input_shape=(7,), **CLIP),
                lq.layers.QuantDense(4, kernel_quantizer="ste_sign", input_quantizer="ste_sign", **CLIP),
                lq.layers.QuantDense(3, kernel_quantizer=lq.quantizers.NoOp(precision=1)),
                lq.layers.QuantDense(3, input_quantizer="ste_sign"),
            ]
        )


def test_logs_of_training(rng):
    keras.backend.clear_session()
    model = network()
    names = ["flip_ratio/ste_sign", "flip_ratio/ste_sign_1", "flip_ratio/no_op"]
    assert [m.name for m in model.metrics] == names
    history = trained(model, rng, validation_split=1 / 3)
    assert list(history) == ["loss", "mae", *names, "val_loss", "val_mae", *[f"val_{name}" for name in names]]
    # Nothing flips while weights stand still.
    assert all(value == 0 for name in names for value in history[f"val_{name}"])
    assert any(value > 0 for name in names for value in history[name])


def test_ratio_is_that_of_the_kernels(rng):
    model = network()
    quantizer = model.layers[0].kernel_quantizer
    kernels = []
    callback = keras.callbacks.LambdaCallback(
        on_batch_begin=lambda batch, logs: kernels.append(lq.math.sign(model.layers[0].kernel.numpy()))
    )
    history = trained(model, rng, epochs=1, callbacks=[callback])
    flips = [np.mean(a != b) for a, b in zip(kernels, kernels[1:], strict=False)]
    np.testing.assert_allclose(history[quantizer.flip_ratio.name], [np.mean(flips)], rtol=1e-6)
    assert quantizer.flip_ratio.count.numpy() == len(kernels) == 3


def test_state_is_not_a_weight():
    model = network()
    assert len(model.weights) == 8
    quantizer = model.layers[0].kernel_quantizer
    assert quantizer.weights == quantizer.non_trainable_weights == []
    assert quantizer.metrics == quantizer._metrics == [quantizer.flip_ratio]
    assert model.layers[0]._metrics == []


def test_no_metric_without_scope():
    model = keras.models.Sequential([lq.layers.QuantDense(3, kernel_quantizer="ste_sign", input_shape=(4,), **CLIP)])
    assert model.metrics == []


def test_cached_reads_count(rng):
    quantizer = lq.quantizers.SteSign(metrics=["flip_ratio"])
    layer = lq.layers.QuantDense(3, input_quantizer="ste_sign", kernel_quantizer=quantizer, **CLIP)
    x = rng.normal(size=(2, 40)).astype(np.float32)
    for _ in range(4):
        layer(x)
    assert layer.arithmetic == ("xnor",)
    assert quantizer.flip_ratio.count.numpy() == 4
    assert quantizer.flip_ratio.result() == 0
    kernel = layer.kernel.numpy()
    layer.kernel.assign(-kernel)
    layer(x)
    assert quantizer.flip_ratio.result() == 0.25
    # The words are those of the packed kernel, one bit per weight.
    assert quantizer.flip_ratio.nbytes == 4 * 2 * 3


def test_both_faces_count(rng):
    quantizer = lq.quantizers.SteSign(metrics=["flip_ratio"])
    x = rng.normal(size=(8, 5)).astype(np.float32)
    quantizer(x)
    quantizer.encode(-x, axis=0)
    quantizer(x)
    assert quantizer.flip_ratio.count.numpy() == 3
    assert quantizer.flip_ratio.result() == 1


def test_shapes_found_by_running_count_nothing():
    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = lq.layers.QuantDense(3, kernel_quantizer=lq.quantizers.SteSign(metrics=["flip_ratio"]), **CLIP)

        def call(self, inputs):
            return self.dense(inputs) * 2

    layer = Twice()
    model = keras.models.Sequential([keras.layers.Input((4,)), layer])
    metric = layer.dense.kernel_quantizer.flip_ratio
    assert metric.count.numpy() == 0
    lq.models.summary(model, print_fn=lambda text: None, training=True)
    assert metric.count.numpy() == 0
    model(np.zeros((1, 4), np.float32))
    assert metric.count.numpy() == 1


def test_input_quantizer_counts_where_it_is_asked_to(rng):
    quantizer = lq.quantizers.SteSign(metrics=["flip_ratio"])
    layer = lq.layers.QuantDense(3, input_quantizer=quantizer)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    layer(x)
    layer(-x)
    assert quantizer.flip_ratio.result() == 1
    with pytest.raises(ValueError, match="shape"):
        layer(x[:2])


def test_names_survive_the_configuration():
    model = network()
    with lq.context.metrics_scope(["flip_ratio"]):
        again = keras.models.Sequential.from_config(model.get_config())
    assert [m.name for m in again.metrics] == [m.name for m in model.metrics]
