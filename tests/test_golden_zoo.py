"""The zoo: larq_zoo's names, numbers and outputs, its arguments, its files, and its quantizers.

Both sides draw the same weights by rule (`golden.architectures`) and compare what comes out in front of the softmax.
A binary network is not continuous: one sign turned by a rounding changes its outputs by a tenth or more. With these
weights and images that does not happen. Images changed by 1e-5 of their values, a hundred times what rounding amounts
to, turn no sign in any of the networks. So results are held to the rounding of sums alone: 2e-5 of the largest output.
"""

import hashlib
import json
import sys

import numpy as np
import pytest
from golden.architectures import CLASSES, draw_images, draw_photographs, draw_weights
from golden.archive import read

import bnnlayers as lq
from bnnlayers import keras, ops, zoo
from bnnlayers.models import ModelProfile
from bnnlayers.zoo import core, imagenet
from bnnlayers.zoo.literature import real_to_bin_nets
from bnnlayers.zoo.literature.dorefanet import magnitude_aware_sign_unclipped
from bnnlayers.zoo.literature.xnornet import xnor_weight_scale

TOLERANCE = 2e-5

# What only the teachers' networks are made of is not in the zoo's own namespace.
ARCHITECTURES = {name: getattr(zoo, name) for name in zoo.__all__ if name[0].isupper()}
ARCHITECTURES |= {name: getattr(real_to_bin_nets, name) for name in real_to_bin_nets.__all__}
SMALL = {"input_shape": (64, 64, 3), "num_classes": CLASSES, "weights": None}


@pytest.fixture(autouse=True)
def fresh_names():
    keras.backend.clear_session()


def close(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("case", read("zoo"), ids=repr)
def test_architecture_is_larq_zoos(case):
    size = case["size"]
    model = ARCHITECTURES[case["id"]](input_shape=(size, size, 3), weights=None, num_classes=CLASSES)
    assert model.name == case["model"]
    assert [layer.name for layer in model.layers] == case["layers"]
    assert [weight.name for weight in model.weights] == case["weights"]
    assert [list(weight.shape) for weight in model.weights] == case["shapes"]
    assert [weight.name for weight in model.trainable_weights] == case["trainable"]
    assert model.count_params() == case["params"]
    profile = ModelProfile(model)
    assert [row[:-1] for row in profile.generate_table()] == case["table"]
    assert profile.generate_summary() == case["totals"]

    model.set_weights(draw_weights(model, case["exponents"]))
    images = draw_images(size)
    logits = keras.Model(model.input, model.layers[-2].output)(images)
    assert close(logits, case.arrays["logits"])
    probabilities = model.layers[-1](logits)
    np.testing.assert_allclose(
        probabilities, case.arrays["probabilities"], atol=2 * TOLERANCE * np.abs(case.arrays["logits"]).max()
    )
    for layer in model.layers:
        quantizers = getattr(layer, "input_quantizer", None), getattr(layer, "kernel_quantizer", None)
        if all(getattr(quantizer, "precision", None) for quantizer in quantizers):
            assert layer.arithmetic == ("xnor",), layer.name


def test_every_architecture_is_compared():
    assert {case["id"] for case in read("zoo")} == set(ARCHITECTURES)
    published = set(zoo.literature.__all__) | set(zoo.sota.__all__)
    assert len(published) == 14
    assert all(getattr(zoo, name).__name__ == name for name in published)


# ---- arguments -----------------------------------------------------------------------------------


def test_weights_from_a_file(tmp_path, rng):
    one = zoo.QuickNetSmall(**SMALL)
    one.set_weights([rng.standard_normal(w.shape).astype(np.float32) for w in one.weights])
    path = tmp_path / "weights.h5"
    one.save_weights(path)
    keras.backend.clear_session()
    two = zoo.QuickNetSmall(**{**SMALL, "weights": path})
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_top_any_size():
    model = zoo.QuickNetSmall(weights=None, include_top=False)
    assert model.input_shape == (None, None, None, 3)
    assert model.predict(np.zeros((1, 64, 96, 3), np.float32), verbose=0).shape == (1, 2, 3, 512)
    assert zoo.RealToBinaryNet(weights=None, include_top=False).output_shape == (None, None, None, 512)
    assert zoo.BinaryAlexNet(weights=None).input_shape == (None, 224, 224, 3)


def test_small_images_keep_their_resolution():
    features = zoo.BinaryResNetE18(input_shape=(32, 32, 3), weights=None, include_top=False)
    assert features.output_shape == (None, 4, 4, 512)
    features = zoo.BinaryDenseNet28(input_shape=(32, 32, 3), weights=None, include_top=False)
    assert features.output_shape == (None, 4, 4, 576)


def test_input_tensor():
    image = keras.layers.Input((64, 64, 3))
    model = zoo.QuickNetSmall(input_tensor=image, weights=None, num_classes=3)
    assert model.input is image
    assert model.output_shape == (None, 3)
    with pytest.raises(TypeError, match="'input_tensor' must be a symbolic tensor.*got ndarray"):
        zoo.QuickNet(input_tensor=np.zeros((1, 64, 64, 3)), weights=None)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("'weights' must be None, 'imagenet' or the path", {"weights": "nowhere.h5"}),
        ("'num_classes' must be 1000", {"num_classes": 10}),
        ("'input_shape' must be .224, 224, 3.", {"input_shape": (64, 64, 3)}),
        ("want 3 channels", {"input_shape": (64, 64, 1), "include_top": False}),
        ("may not hold None", {"input_shape": (None, 64, 3), "weights": None}),
        ("must be three integers", {"input_shape": (64, 64), "weights": None}),
    ],
)
def test_arguments_that_do_not_fit(message, arguments):
    with pytest.raises(ValueError, match=message):
        zoo.QuickNet(**arguments)


def test_teachers_have_no_published_weights():
    with pytest.raises(ValueError, match="none were published"):
        real_to_bin_nets.ResNet18FP(weights="imagenet")


def test_unusual_channels_warn():
    with pytest.warns(UserWarning, match="1 or 3 input channels, got 4"):
        zoo.QuickNetSmall(input_shape=(64, 64, 4), weights=None)


# ---- published weights ---------------------------------------------------------------------------


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home without a cache, and nothing that could download into it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    return tmp_path


def test_published_weights_are_looked_for_where_larq_zoo_keeps_them(home):
    folder = home / ".keras" / "larq" / "models" / "quicknet"
    with pytest.raises(FileNotFoundError) as error:
        zoo.QuickNet()
    assert str(folder / "quicknet_weights.h5") in str(error.value)
    assert "https://github.com/larq/zoo/releases/download/quicknet-v1.0/quicknet_weights.h5" in str(error.value)
    with pytest.raises(FileNotFoundError, match="meliusnet22-v0.1.1/meliusnet22_weights_notop.h5"):
        zoo.MeliusNet22(include_top=False)

    folder.mkdir(parents=True)
    (folder / "a.h5").write_bytes(b"weights")
    digest = 64 * "0"
    with pytest.raises(FileNotFoundError):
        core.File("quicknet-v1.0", "a.h5", digest).path()
    digest = hashlib.sha256(b"weights").hexdigest()
    assert core.File("quicknet-v1.0", "a.h5", digest).path() == str(folder / "a.h5")


# ---- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "image"), list(zip(read("zoo_images"), draw_photographs(), strict=True)), ids=lambda x: str(x)[:20]
)
def test_preprocess_input_is_larq_zoos(case, image):
    result = zoo.preprocess_input(image)
    assert case["id"] == f"{image.shape} {image.dtype}"
    assert type(result) is np.ndarray
    assert (result.shape, result.dtype) == ((224, 224, 3), np.float32)
    # Sixteen terms of at most 255 times 1.1, over a deviation of 57.
    np.testing.assert_allclose(result.ravel()[::41], case.arrays["sample"], atol=1e-4)
    assert isinstance(zoo.preprocess_input(lq.constant(image)), lq.Tensor)


@pytest.mark.parametrize("shape", [(1, 224, 224, 3), (224, 224), (224, 224, 1), (1, 90, 3)])
def test_preprocess_input_wants_an_image(shape):
    with pytest.raises(ValueError, match="'image'"):
        zoo.preprocess_input(np.zeros(shape, np.uint8))


def test_decode_predictions(monkeypatch, tmp_path, rng):
    path = tmp_path / "imagenet_class_index.json"
    path.write_text(json.dumps({str(i): [f"n{i:08}", f"thing_{i}"] for i in range(1000)}))
    monkeypatch.setattr(imagenet, "get_file", lambda *_, **__: path)
    imagenet._classes.cache_clear()
    preds = rng.random((2, 1000), np.float32)
    decoded = zoo.decode_predictions(preds, top=3)
    imagenet._classes.cache_clear()
    assert [len(image) for image in decoded] == [3, 3]
    for row, image in zip(preds, decoded, strict=True):
        order = np.argsort(-row)[:3]
        assert image == [(f"n{i:08}", f"thing_{i}", row[i]) for i in order]
    with pytest.raises(ValueError, match=r"'preds' must have shape \(images, 1000\)"):
        zoo.decode_predictions(preds[:, :10])


def test_decode_predictions_without_names(home):
    imagenet._classes.cache_clear()
    with pytest.raises(FileNotFoundError, match="imagenet_class_index.json"):
        zoo.decode_predictions(np.zeros((1, 1000)))


# ---- quantizers ----------------------------------------------------------------------------------


def product(quantizer, x, kernel):
    """Output and gradients of a convolution of signs with a quantised kernel."""
    layer = lq.layers.QuantConv2D(
        kernel.shape[-1], 3, use_bias=False, input_quantizer="ste_sign", kernel_quantizer=quantizer
    )
    layer.build(x.shape)
    layer.set_weights([kernel])
    x = lq.constant(x)
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = lq.reduce_sum(y * np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))
    return y, tape.gradient(loss, [x, layer.trainable_weights[0]]), layer.arithmetic


@pytest.fixture
def operands(rng):
    x = rng.standard_normal((2, 5, 6, 40)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 40, 7)).astype(np.float32)
    kernel[0, 0, :4, 0] = [1, -1, 0, -0.0]
    return x, kernel


def test_xnor_weight_scale_is_packed_and_trained_through(operands):
    """Against the composition that the paper writes down, differentiated by the tape."""

    def composed(x):
        x = lq.clip_by_value(x, -1, 1)
        return lq.reduce_mean(abs(x), axis=[0, 1, 2], keepdims=True) * lq.quantizers.ste_sign(x)

    y, gradients, arithmetic = product(xnor_weight_scale, *operands)
    expected, expected_gradients, _ = product(composed, *operands)
    assert arithmetic == ("xnor",)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-4)
    kernel = operands[1]
    np.testing.assert_allclose(xnor_weight_scale(kernel), composed(kernel), rtol=1e-5)


def test_magnitude_aware_sign_unclipped_is_packed_and_passes_gradients_on(operands):
    x, kernel = operands
    scale = np.abs(kernel).mean()
    y, (dx, dkernel), arithmetic = product(magnitude_aware_sign_unclipped, x, kernel)
    signs, (dx_signs, dsigns), _ = product(lq.quantizers.SteSign(clip_value=None), x, kernel)
    assert arithmetic == ("xnor",)
    np.testing.assert_allclose(y, signs * scale, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, dx_signs * scale, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, dsigns, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(magnitude_aware_sign_unclipped(kernel), scale * lq.math.sign(kernel), rtol=1e-5)


@pytest.mark.parametrize("quantizer", [xnor_weight_scale, magnitude_aware_sign_unclipped])
def test_a_nan_in_a_kernel_stays_visible(quantizer, operands):
    x, kernel = operands
    kernel[0, 0, 0, 0] = np.nan
    assert not isinstance(quantizer.encode(lq.constant(kernel), axis=2), ops.BitArray)
    assert np.isnan(product(quantizer, x, kernel)[0]).any()


def test_blurpool_initializer():
    kernel = zoo.sota.quicknet.blurpool_initializer((3, 3, 2, 1))
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel[:, :, 1, 0] * 16, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    with pytest.raises(ValueError, match="2, 3 or 5"):
        zoo.sota.quicknet.blurpool_initializer((4, 4, 2, 1))


# ---- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MeliusNet22", "DoReFaNet", "QuickNetSmall", "StrongBaselineNetBAN"])
def test_configuration_and_training(name, rng):
    """A model goes through JSON, and a step of training leaves nothing where it was that is trained."""
    model = ARCHITECTURES[name](**SMALL)
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    images = draw_images(64)
    np.testing.assert_array_equal(model(images), again(images))
    before = [w.numpy().copy() for w in again.trainable_weights]
    again.compile("adam", "sparse_categorical_crossentropy")
    assert np.isfinite(again.train_on_batch(images, np.array([1, 7])))
    moved = [not np.array_equal(w.numpy(), b) for w, b in zip(again.trainable_weights, before, strict=True)]
    assert all(moved), [w.name for w, m in zip(again.trainable_weights, moved, strict=True) if not m]
