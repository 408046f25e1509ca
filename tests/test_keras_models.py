"""Models: graphs, chains and classes."""

import copy
import json
import sys

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import keras
from bnnlayers.keras import layers, models
from bnnlayers.tape import GradientTape, constant

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def two_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = layers.Dense(4, name="shared", activation="relu")
    merged = layers.add([shared(a), shared(b)])
    sliced = (1 - 2 * merged)[:, 1:] / 2 + np.maximum(merged[:, :3], 0.5)
    outputs = [layers.Dense(1, name="left")(sliced), layers.Dense(2, name="right")(merged)]
    return models.Model([a, b], outputs, name="pair")


def test_a_graph_computes_what_its_layers_compute():
    model = two_inputs()
    a, b = normal(5, 3), normal(5, 3)
    left, right = model([a, b])
    shared = model.get_layer("shared")
    merged = np.asarray(shared(a) + shared(b))
    sliced = (1 - 2 * merged)[:, 1:] / 2 + np.maximum(merged[:, :3], 0.5)
    np.testing.assert_allclose(left, model.get_layer("left")(sliced), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(right, model.get_layer("right")(merged), rtol=1e-6, atol=1e-6)
    by_name = model({"b": b, "a": a})
    np.testing.assert_array_equal(by_name[1], right)
    predicted = model.predict([a, b], batch_size=2, verbose=0)
    assert type(predicted[0]) is np.ndarray
    np.testing.assert_allclose(predicted[0], left, rtol=1e-6, atol=1e-6)


def test_a_graph_knows_itself():
    model = two_inputs()
    assert model.input_names == ["a", "b"]
    assert model.output_names == ["left", "right"]
    assert model.input_shape == [(None, 3), (None, 3)]
    assert model.output_shape == [(None, 1), (None, 2)]
    assert [w.name for w in model.weights] == [
        f"{layer}/{weight}:0" for layer in ("shared", "left", "right") for weight in ("kernel", "bias")
    ]
    assert model.count_params() == 16 + 4 + 10
    assert model.layers[0].name == "a"
    assert model.get_layer(index=0) is model.layers[0]
    shared = model.get_layer("shared")
    assert shared.get_output_at(0).shape == shared.get_output_at(1).shape == (None, 4)
    model.trainable = False
    assert not model.trainable_weights and len(model.non_trainable_weights) == 6


def test_weights_come_layer_by_layer():
    model = models.Sequential([layers.Dense(2, input_shape=(3,)), layers.BatchNormalization(), layers.Dense(1)])
    kinds = [w.name.split("/")[1] for w in model.weights]
    assert kinds == [
        "kernel:0", "bias:0", "gamma:0", "beta:0", "moving_mean:0", "moving_variance:0", "kernel:0", "bias:0",
    ]  # fmt: skip
    assert len(model.trainable_weights) == 6


def test_depth_decides_the_order_of_layers():
    x = keras.Input((2,), name="in")
    long = layers.Dense(2, name="l2")(layers.Dense(2, name="l1")(x))
    short = layers.Dense(2, name="s")(x)
    model = models.Model(x, layers.concatenate([short, long], name="cat"))
    assert [layer.name for layer in model.layers] == ["in", "l1", "s", "l2", "cat"]


def test_nested_and_shared_models():
    inner = models.Sequential([layers.Dense(3, activation="relu"), layers.BatchNormalization()], name="inner")
    x = keras.Input((3,))
    model = models.Model(x, layers.Dense(1)(inner(inner(x))))
    assert model.output_shape == (None, 1)
    assert len(model.weights) == 8
    assert len(model.layers) == 3
    value = normal(4, 3)
    np.testing.assert_allclose(model(value), model.layers[-1](inner(inner(value))), rtol=1e-6, atol=1e-6)
    inner.get_layer(index=0).trainable = False
    assert len(model.trainable_weights) == 4


def test_part_of_a_model():
    model = two_inputs()
    part = models.Model(model.inputs, model.get_layer("right").output)
    a, b = normal(2, 3), normal(2, 3)
    np.testing.assert_array_equal(part([a, b]), model([a, b])[1])
    assert part.get_layer("shared") is model.get_layer("shared")


def test_unknown_dimensions():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 3, strides=2)(x)
    assert y.shape == (None, None, None, 4)
    model = models.Model(x, layers.GlobalAveragePooling2D()(y))
    assert model.output_shape == (None, 4)
    assert model(normal(2, 9, 7, 3)).shape == model(normal(2, 5, 5, 3)).shape == (2, 4)
    assert layers.Lambda(lambda t: t[:, ::2])(x).shape == (None, None, None, 3)


def test_symbolic_tensors_refuse_to_be_values():
    x = keras.Input((3,))
    for use in (bool, len, list, np.asarray):
        with pytest.raises(TypeError):
            use(x)
    assert "shape=(None, 3)" in repr(x)


def test_inputs_are_cast_and_expanded():
    x = keras.Input((1,))
    model = models.Model(x, layers.Dense(1, kernel_initializer="ones")(x))
    np.testing.assert_array_equal(model(np.arange(3)), [[0], [1], [2]])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, y: models.Model(x, keras.Input((2,))), "Graph disconnected"),
        (lambda x, y: models.Model([x, x], y), "multiple times"),
        (lambda x, y: models.Model(x, np.ones(3)), "must be the output of a Keras"),
        (
            lambda x, y: models.Model(x, layers.Dense(1, name="d")(layers.Dense(1, name="d")(x))),
            "used 2 times",
        ),
    ],
)
def test_graphs_that_are_none(make, says):
    x = keras.Input((2,))
    with pytest.raises(ValueError, match=says):
        make(x, layers.Dense(1)(x))


def test_inputs_that_do_not_fit_a_model():
    model = two_inputs()
    with pytest.raises(ValueError, match="expects 2 input"):
        model(normal(2, 3))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 3\), found shape=\(2, 4\)"):
        model([normal(2, 3), normal(2, 4)])
    with pytest.raises(ValueError, match='Missing data for input "b"'):
        model({"a": normal(2, 3)})


def test_get_layer_that_is_not_there():
    model = two_inputs()
    for bad in ({}, {"name": "x"}, {"index": 99}, {"name": "a", "index": 0}):
        with pytest.raises(ValueError):
            model.get_layer(**bad)


# ---- Sequential ----------------------------------------------------------------------------------


def test_a_chain_grows_and_shrinks():
    model = models.Sequential()
    with pytest.raises(ValueError, match="no layers"):
        model.build((None, 3))
    with pytest.raises(ValueError, match="not yet been created"):
        _ = model.weights
    model.add(keras.Input((3,)))
    model.add(layers.Dense(4))
    assert model.output_shape == (None, 4) and len(model.weights) == 2
    model.add(layers.Dense(2))
    assert model.output_shape == (None, 2) and len(model.layers) == 2
    model.pop()
    assert model.output_shape == (None, 4) and len(model.weights) == 2
    model.add(layers.Dense(5))
    assert model(normal(1, 3)).shape == (1, 5)
    with pytest.raises(TypeError, match="instance of class Layer"):
        model.add(3)
    with pytest.raises(ValueError, match="unique names"):
        model.add(layers.Dense(1, name=model.layers[0].name))
    model.pop(), model.pop()
    with pytest.raises(TypeError, match="no layers"):
        model.pop()


def test_a_chain_without_input_shape_waits_for_data():
    model = models.Sequential([layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()])
    assert not model.built
    assert model(normal(2, 5, 5, 3)).shape == (2, 2)
    assert [w.name.split("/")[1] for w in model.weights] == ["kernel:0", "bias:0"]
    assert model(normal(2, 7, 6, 3)).shape == (2, 2)
    assert model.output_shape == (None, 2)
    model.add(layers.Dense(1))
    assert model(normal(1, 5, 5, 3)).shape == (1, 1)
    other = models.Sequential([layers.Dense(1)])
    other.build((None, 3))
    assert other.count_params() == 4


def test_a_chain_in_a_chain():
    inner = models.Sequential([layers.Dense(2, input_shape=(3,))])
    outer = models.Sequential([inner, layers.Dense(1)])
    assert outer.built and outer.input_shape == (None, 3)


def test_layers_of_several_outputs_do_not_chain():
    with pytest.raises(ValueError, match="single output"):
        models.Sequential([layers.Lambda(lambda x: [x, x], input_shape=(2,))])


# ---- subclasses ----------------------------------------------------------------------------------


class Custom(models.Model):
    def __init__(self, units=2):
        super().__init__()
        self.blocks = [layers.Dense(units, activation="relu"), layers.Dense(1)]
        self.norm = layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.blocks[1](self.norm(self.blocks[0](inputs), training=training))


def test_a_subclass():
    keras.backend.clear_session()
    model = Custom()
    assert not model.built
    assert model(normal(3, 4)).shape == (3, 1)
    assert [w.name for w in model.weights][:2] == ["custom/dense/kernel:0", "custom/dense/bias:0"]
    assert len(model.weights) == 8 and len(model.trainable_weights) == 6
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "batch_normalization"]
    assert model.predict(normal(3, 4), verbose=0).shape == (3, 1)


def test_a_subclass_builds_from_a_shape():
    model = Custom(3)
    model.build((None, 4))
    assert len(model.weights) == 8
    moving = model.norm.moving_mean.numpy()
    np.testing.assert_array_equal(moving, np.zeros(3))
    assert model.get_config()["units"] == 3


def test_a_subclass_as_a_layer_of_a_graph():
    model = Custom()
    x = keras.Input((4,))
    outer = models.Model(x, model(x))
    assert outer.output_shape == (None, 1)
    value = normal(2, 4)
    np.testing.assert_array_equal(outer(value), model(value))


def test_a_subclass_that_is_a_graph():
    class Wrapped(models.Model):
        def __init__(self, units):
            x = keras.Input((2,))
            super().__init__(inputs=x, outputs=layers.Dense(units)(x))

    model = Wrapped(3)
    assert model(normal(1, 2)).shape == (1, 3)
    assert Wrapped.from_config(model.get_config()).output_shape == (None, 3)


def test_a_model_without_call():
    class Empty(models.Model):
        pass

    with pytest.raises(NotImplementedError, match="call"):
        Empty()(1.0)


# ---- configuration -------------------------------------------------------------------------------


def chain():
    return models.Sequential(
        [layers.Conv2D(2, 2, input_shape=(4, 4, 1), kernel_regularizer="l2"), layers.Flatten(), layers.Dense(2)]
    )


def nested():
    inner = models.Sequential([layers.Dense(3, input_shape=(3,)), layers.ReLU()], name="inner")
    x, y = keras.Input((3,)), keras.Input((3,))
    merged = layers.Concatenate()([inner(x), inner(y), inner(inner(x))])
    return models.Model({"x": x, "y": y}, {"out": layers.Dense(1)(merged - 1)})


@pytest.mark.parametrize("make", [two_inputs, chain, nested])
def test_configurations_and_clones(make):
    model = make()
    twins = [
        type(model).from_config(model.get_config()),
        models.clone_model(model),
        models.model_from_json(model.to_json()),
    ]
    values = keras.structure.map_structure(lambda t: normal(2, *t.shape[1:]), model.input)
    for twin in twins:
        assert type(twin) is type(model)
        assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
        assert twin.layers[0] is not model.layers[0]
        twin.set_weights(model.get_weights())
        for a, b in zip(keras.structure.flatten(twin(values)), keras.structure.flatten(model(values)), strict=True):
            np.testing.assert_array_equal(a, b)
        assert json.loads(twin.to_json()) == json.loads(model.to_json())


def test_a_deferred_chain_remembers_what_it_saw():
    model = models.Sequential([layers.Dense(2)])
    assert not models.Sequential.from_config(model.get_config()).built
    model(normal(1, 3))
    assert models.Sequential.from_config(model.get_config()).count_params() == 8


def test_cloning_with_a_function():
    def wider(layer):
        if isinstance(layer, layers.Dense):
            return layers.Dense.from_config({**layer.get_config(), "units": 7})
        return type(layer).from_config(layer.get_config())

    assert models.clone_model(chain(), clone_function=wider).output_shape == (None, 7)
    with pytest.raises(ValueError, match="subclassed"):
        models.clone_model(Custom())


def test_copies():
    model = nested()
    twin = copy.deepcopy(model)
    values = {"x": normal(2, 3), "y": normal(2, 3)}
    np.testing.assert_array_equal(twin(values)["out"], model(values)["out"])
    twin.set_weights([w * 0 for w in twin.get_weights()])
    assert np.any(model(values)["out"]) and not np.any(twin(values)["out"])


def test_broken_configurations():
    config = two_inputs().get_config()
    config["layers"] = [c for c in config["layers"] if c["name"] != "shared"]
    with pytest.raises(ValueError, match="never computed"):
        models.Model.from_config(config)
    with pytest.raises(ValueError, match="Unknown layer"):
        models.Sequential.from_config({"layers": [{"class_name": "Nothing", "config": {}}]})


# ---- summary, gradients --------------------------------------------------------------------------


def test_summary():
    lines = []
    two_inputs().summary(print_fn=lines.append, show_trainable=True)
    text = "\n".join(lines)
    assert "shared (Dense)" in text and "'b[0][0]'" in text and "Total params: 30" in text
    lines.clear()
    nested().summary(print_fn=lines.append, expand_nested=True)
    assert any(line.startswith(" | re_lu") for line in lines)
    assert len({len(line) for line in lines if line.startswith("_")}) == 1
    with pytest.raises(ValueError, match="not yet been built"):
        Custom().summary()


def test_gradients_through_a_model():
    model = models.Sequential([layers.Dense(1, kernel_initializer="ones", input_shape=(3,))])
    x = constant(normal(4, 3))
    with GradientTape() as tape:
        tape.watch(x)
        loss = np.sum(model(x) ** 2)
    dx, dw = tape.gradient(loss, [x, model.trainable_weights[0]])
    total = np.asarray(x).sum(1, keepdims=True)
    np.testing.assert_allclose(dx, np.repeat(2 * total, 3, 1), rtol=1e-5)
    np.testing.assert_allclose(dw, (np.asarray(x) * 2 * total).sum(0)[:, None], rtol=1e-4, atol=1e-5)


def test_operators_on_symbolic_tensors():
    x = keras.Input((3,))
    value = np.abs(normal(2, 3)) + 0.5
    expressions = [
        lambda t: t + 1,
        lambda t: 1 + t,
        lambda t: t - 2.0,
        lambda t: 2.0 - t,
        lambda t: -t,
        lambda t: abs(-t),
        lambda t: t / 3,
        lambda t: 3 / t,
        lambda t: t**2,
        lambda t: 2**t,
        lambda t: t // 0.25,
        lambda t: t % 0.25,
        lambda t: (t > 1) * 1.0,
        lambda t: t @ np.ones((3, 2), np.float32),
        lambda t: t[:, None, ::-1],
        lambda t: t[..., -1],
        lambda t: np.mean(t, axis=1, keepdims=True),
        lambda t: np.clip(t, 0.6, 1.0),
        lambda t: np.concatenate([t, t * 2], axis=1),
        lambda t: np.ones(3, np.float32) * t,
    ]
    for expression in expressions:
        out = expression(x)
        model = models.Model(x, out)
        expected = expression(value)
        result = model(value)
        assert out.shape[1:] == expected.shape[1:]
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
        if "concatenate" not in str(model.layers[-1].name):
            twin = models.Model.from_config(json.loads(model.to_json())["config"])
            np.testing.assert_allclose(twin(value), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        keras.activations.relu,
        keras.activations.softmax,
        lambda t: keras.activations.relu(t, max_value=0.5),
        lq.quantizers.ste_sign,
        lq.quantizers.SteSign(),
        lq.math.sign,
        lq.reduce_mean,
        lambda t: lq.where(t > 0, t, t * 2),
        lambda t: lq.concat([t, 1 - t], axis=1),
    ],
)
def test_functions_of_symbolic_tensors(function):
    x, value = keras.Input((3,)), normal(2, 3)
    model = models.Model(x, function(x))
    np.testing.assert_array_equal(model(value), function(value))
    twin = models.model_from_json(model.to_json())
    np.testing.assert_array_equal(twin(value), function(value))


# -- losses and metrics of a graph -----------------------------------------------------------------


def with_symbolic_loss():
    inputs = keras.Input((3,), name="x")
    outputs = keras.layers.Dense(2, name="dense")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="last")(outputs), name="symbolic")
    model.add_loss(0.5 * lq.reduce_mean(lq.abs(outputs)))
    model.add_metric(lq.reduce_sum(outputs), name="total")
    return model


def test_symbolic_loss_and_metric(tmp_path):
    model = with_symbolic_loss()
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    hidden = x @ model.get_layer("dense").get_weights()[0]
    expected = np.mean(model.predict(x, verbose=0) ** 2) + 0.5 * np.mean(np.abs(hidden))
    logs = model.test_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, 1e-6)
    np.testing.assert_allclose(logs["total"], hidden.sum(), 1e-6)
    # They come after the other layers, so weights keep their order, and files keep them.
    assert [layer.name for layer in model.layers][:3] == ["x", "dense", "last"]
    model.save(tmp_path / "model.h5")
    for twin in (keras.models.load_model(tmp_path / "model.h5"), keras.models.clone_model(model)):
        twin.set_weights(model.get_weights())
        twin.compile("sgd", "mse")
        assert twin.test_on_batch(x, y, return_dict=True) == logs
    with pytest.raises(TypeError, match="name"):
        model.add_metric(model.output)


def test_notebooks_show_models_and_histories(monkeypatch):
    model = with_symbolic_loss()
    text = model._repr_html_()
    assert text.count("<tr>") == 1 + len(model.layers)
    assert "dense (Dense)" in text and "Total params: 11" in text
    assert "not built yet" in keras.Sequential([keras.layers.Dense(1)])._repr_html_()

    model.compile("sgd", "mse")
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    history = model.fit(x, y, epochs=2, validation_data=(x, y), validation_freq=2, verbose=0)
    pytest.importorskip("matplotlib")
    assert history._repr_html_().startswith("<svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "<th>val_loss</th>" in history._repr_html_()


def test_functions_in_files_are_called_as_tensorflow_calls_them():
    keras.backend.clear_session()
    config = with_symbolic_loss().get_config()
    calls = {layer["name"]: layer for layer in config["layers"]}
    assert calls["tf.math.reduce_mean"]["config"]["function"] == "math.reduce_mean"
    assert calls["tf.math.reduce_mean"]["inbound_nodes"] == [["tf.math.abs", 0, 0, {"axis": None, "keepdims": False}]]
    assert calls["add_loss"]["config"]["unconditional"] is False
