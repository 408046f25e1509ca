"""Utilities, the backend's state, and weight files."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from bnnlayers.keras import backend, saving, utils
from bnnlayers.tape import Variable


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Dense", "dense"),
        ("QuantConv2DTranspose", "quant_conv2d_transpose"),
        ("MaxPooling2D", "max_pooling2d"),
        ("BatchNormalization", "batch_normalization"),
        ("ReLU", "re_lu"),
        ("PReLU", "p_re_lu"),
        ("DoReFa", "do_re_fa"),
        ("L1L2", "l1_l2"),
        ("KLDivergence", "kl_divergence"),
        ("_Own", "private__own"),
    ],
)
def test_to_snake_case(name, snake):
    assert utils.to_snake_case(name) == snake


def test_to_categorical():
    expected = np.float32([[1, 0, 0], [0, 0, 1]])
    for y in ([0, 2], [[0], [2]], np.uint8([0, 2])):
        np.testing.assert_array_equal(utils.to_categorical(y), expected)
    assert utils.to_categorical([0, 2]).dtype == np.float32
    assert utils.to_categorical([[0, 1]], 4, dtype="int64").shape == (1, 2, 4)
    assert utils.to_categorical([], 3).shape == (0, 3)
    for y in ([3], [-1]):
        with pytest.raises(ValueError, match=r"expected numbers in \[0, 3\)"):
            utils.to_categorical(y, 3)


def test_set_random_seed():
    draws = []
    for _ in range(2):
        utils.set_random_seed(11)
        draws.append((random.random(), np.random.rand(), backend.random_generator().random()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_custom_objects():
    class Thing(utils.Configurable):
        def __init__(self, size=1):
            self.size = size

        def get_config(self):
            return {"size": self.size}

    family = utils.Family("thing", [])
    config = family.serialize(Thing(3))
    assert config == {"class_name": "Thing", "config": {"size": 3}}
    with pytest.raises(ValueError, match="Unknown thing: 'Thing'"):
        family.deserialize(config)
    assert family.deserialize(config, custom_objects={"Thing": Thing}).size == 3
    with utils.CustomObjectScope({"Thing": Thing}), utils.custom_object_scope({"Other": Thing}):
        assert family.get("Thing").size == family.get("Other").size == 1
        elsewhere = []
        thread = threading.Thread(
            target=lambda: elsewhere.append(utils.get_registered_object("Thing"))
        )
        thread.start()
        thread.join()
        assert elsewhere == [None]
    with pytest.raises(ValueError, match="Unknown"):
        family.get("Thing")
    utils.get_custom_objects()["Thing"] = Thing
    try:
        assert family.get("Thing").size == 1
    finally:
        del utils.get_custom_objects()["Thing"]


def test_register_keras_serializable():
    @utils.register_keras_serializable(package="Mine", name="function")
    def own(x):
        return x

    @utils.register_keras_serializable("Mine")
    class Thing(utils.Configurable):
        pass

    try:
        family = utils.Family("thing", [])
        assert family.serialize(own) == "Mine>function" and family.get("Mine>function") is own
        assert family.serialize(Thing())["class_name"] == "Mine>Thing"
        assert type(family.get("Mine>Thing")) is Thing
        written_by_keras = {
            "module": None,
            "class_name": "Thing",
            "config": {},
            "registered_name": "Mine>Thing",
        }
        assert type(family.deserialize(written_by_keras)) is Thing
    finally:
        for name in ("Mine>function", "Mine>Thing"):
            del utils.get_custom_objects()[name]
    with pytest.raises(ValueError, match="get_config"):
        utils.register_keras_serializable()(type("Bare", (), {}))


def test_nested_configurations_see_the_custom_objects():
    class Inner(utils.Configurable):
        pass

    class Outer(utils.Configurable):
        def __init__(self, inner):
            self.inner = inner

        @classmethod
        def from_config(cls, config):
            return cls(utils.deserialize_keras_object(config["inner"]))

    config = {"class_name": "Outer", "config": {"inner": {"class_name": "Inner", "config": {}}}}
    outer = utils.deserialize_keras_object(config, custom_objects={"Outer": Outer, "Inner": Inner})
    assert type(outer.inner) is Inner


def test_sequence():
    class Batches(utils.Sequence):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return index

    assert list(Batches()) == [0, 1, 2]


def test_backend_state():
    assert backend.floatx() == "float32" and backend.epsilon() == 1e-7
    try:
        backend.set_floatx("float64")
        backend.set_epsilon(1e-3)
        backend.set_image_data_format("channels_first")
        assert backend.cast_to_floatx([1]).dtype == np.float64
        assert backend.epsilon() == 1e-3
        assert backend.image_data_format() == "channels_first"
    finally:
        backend.set_floatx("float32")
        backend.set_epsilon(1e-7)
        backend.set_image_data_format("channels_last")
    for setter in (backend.set_floatx, backend.set_image_data_format, backend.set_learning_phase):
        with pytest.raises(ValueError, match="expected .*received 'bf16'"):
            setter("bf16")


def test_keras_json(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first", "epsilon": 0.5}')
    code = "from bnnlayers.keras import backend as K; print(K.image_data_format(), K.epsilon(), K.floatx())"
    for home, expected in (
        (tmp_path, "channels_first 0.5 float32"),
        (tmp_path / "none", "channels_last 1e-07 float32"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "KERAS_HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected


def test_names():
    backend.clear_session()
    assert [backend.unique_object_name("dense", zero_based=True) for _ in range(2)] == [
        "dense",
        "dense_1",
    ]
    assert [f"input_{backend.get_uid('input')}" for _ in range(2)] == ["input_1", "input_2"]
    backend.clear_session()
    assert backend.unique_object_name("dense", zero_based=True) == "dense"


def test_values():
    variable = Variable(np.float32([1, 2]))
    backend.set_value(variable, [3, 4])
    np.testing.assert_array_equal(backend.get_value(variable), [3, 4])
    assert backend.int_shape(variable) == (2,) and backend.ndim(variable) == 1
    assert backend.dtype(variable) == "float32" and backend.get_value(3) == 3
    with pytest.raises(ValueError, match="shape"):
        backend.set_value(variable, [1, 2, 3])


# -- weight files -------------------------------------------------------------------------------


def layer(name, *shapes, frozen=()):
    def weights(shapes, start):
        return [
            Variable(np.random.default_rng(i).random(shape, np.float32), name=f"{name}/w{i}")
            for i, shape in enumerate(shapes, start)
        ]

    return SimpleNamespace(
        name=name,
        trainable_weights=weights(shapes, 0),
        non_trainable_weights=weights(frozen, len(shapes)),
    )


def network():
    return [
        layer("b_conv", (3, 3, 2), (2,)),
        layer("flat"),
        layer("a_norm", (4,), frozen=[(4,), ()]),
    ]


def values(layers):
    return [w.numpy() for each in layers for w in saving._weights(each)]


def zero(layers):
    for each in layers:
        for w in saving._weights(each):
            w.assign(np.zeros(w.shape))
    return layers


def assert_equal(layers, others):
    for a, b in zip(values(layers), values(others), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layout_of_keras(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    with h5py.File(path) as file:
        assert file.attrs["layer_names"].tolist() == [b"b_conv", b"flat", b"a_norm"]
        assert file.attrs["backend"] == "tensorflow" and "keras_version" in file.attrs
        assert sorted(file) == ["a_norm", "b_conv", "flat", "top_level_model_weights"]
        assert file["b_conv"].attrs["weight_names"].tolist() == [b"b_conv/w0:0", b"b_conv/w1:0"]
        assert file["b_conv/b_conv/w0:0"].shape == (3, 3, 2)
        assert file["a_norm/a_norm/w2:0"].shape == ()
        assert len(file["flat"].attrs["weight_names"]) == 0
        assert len(file["top_level_model_weights"].attrs["weight_names"]) == 0


def test_round_trip(tmp_path):
    path = tmp_path / "model.weights.h5"
    own = [Variable(np.float32([1, 2]), name="scale")]
    saving.save_weights_h5(path, network(), own)
    loaded, top = zero(network()), [Variable(np.zeros(2, np.float32), name="scale")]
    saving.load_weights_h5(path, loaded, top_level_weights=top)
    assert_equal(loaded, network())
    np.testing.assert_array_equal(top[0].numpy(), [1, 2])
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        saving.save_weights_h5(file.create_group("model_weights"), network())
    loaded = zero(network())
    saving.load_weights_h5(tmp_path / "whole.h5", loaded)
    assert_equal(loaded, network())


def test_by_name(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    loaded = [
        layer("a_norm", (4,), frozen=[(4,), ()]),
        layer("new", (2, 2)),
        layer("b_conv", (3, 3, 2), (5,)),
    ]
    zero(loaded)
    with pytest.raises(
        ValueError, match=r"weights.h5: layer 'b_conv'.*expected shape \(5,\), received \(2,\)"
    ):
        saving.load_weights_h5(path, loaded, by_name=True)
    assert not any(v.any() for v in values(loaded))
    with pytest.warns(UserWarning, match="b_conv/w1:0"):
        saving.load_weights_h5(path, loaded, by_name=True, skip_mismatch=True)
    assert_equal(loaded[:1], network()[2:])
    np.testing.assert_array_equal(loaded[2].trainable_weights[0], network()[0].trainable_weights[0])
    assert not loaded[2].trainable_weights[1].numpy().any()
    with pytest.raises(ValueError, match="by_name"):
        saving.load_weights_h5(path, loaded, skip_mismatch=True)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([layer("one", (3, 3, 2), (2,))], "expected 1 layers .*one.*received 2 .*b_conv, a_norm"),
        (
            [layer("one", (3, 3, 2), (2,)), layer("two", (4,))],
            r"'two' \(saved as 'a_norm'\): expected 1 weights, received 3",
        ),
        (
            [layer("one", (3, 3, 2), (2,)), layer("two", (4,), frozen=[(4,), (1,)])],
            r"'two/w2:0': expected shape \(1,\), received \(\)",
        ),
    ],
)
def test_file_of_another_network(tmp_path, layers, message):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    before = values(layers)
    with pytest.raises(ValueError, match=message):
        saving.load_weights_h5(path, layers)
    for a, b in zip(values(layers), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_files(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    whole = path.read_bytes()
    loaded = zero(network())
    for content in [b"", b"no hdf5", *(whole[:n] for n in range(1, len(whole), 997))]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="weights.h5"):
            saving.load_weights_h5(path, loaded)
    with pytest.raises(FileNotFoundError, match="missing.h5"):
        saving.load_weights_h5(tmp_path / "missing.h5", loaded)
    with h5py.File(path, "w") as file:
        file.create_group("vars")
    with pytest.raises(ValueError, match="without layer_names that holds .*vars"):
        saving.load_weights_h5(path, loaded)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["a_norm/a_norm/w1:0"]
    with pytest.raises(
        ValueError, match="'a_norm': expected an array 'a_norm/w1:0', received None"
    ):
        saving.load_weights_h5(path, loaded)
    assert not any(v.any() for v in values(loaded))


def test_long_lists_of_names(tmp_path):
    path = tmp_path / "weights.h5"
    layers = [layer(f"{i:04d}_{'x' * 100}", (1,)) for i in range(1500)]
    saving.save_weights_h5(path, layers)
    with h5py.File(path) as file:
        assert "layer_names0" in file.attrs and "layer_names" not in file.attrs
    loaded = zero([layer(f"y{i}", (1,)) for i in range(1500)])
    saving.load_weights_h5(path, loaded)
    assert_equal(loaded, layers)


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    old = path.read_bytes()
    broken = network()
    broken[0].trainable_weights[1].name = broken[0].trainable_weights[0].name
    with pytest.raises(ValueError, match="two weights are named"):
        saving.save_weights_h5(path, broken)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["weights.h5"]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    code = """
        import os, signal, sys
        from bnnlayers.keras import saving
        with saving.atomic_write(sys.argv[1]) as temporary:
            with open(temporary, "wb") as file:
                file.write(b"half of")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert run.returncode == -signal.SIGKILL
    loaded = zero(network())
    saving.load_weights_h5(path, loaded)
    assert_equal(loaded, network())


def test_rights_and_links(tmp_path):
    path = tmp_path / "weights.h5"
    saving.save_weights_h5(path, network())
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    link = tmp_path / "link.h5"
    link.symlink_to(path)
    saving.save_weights_h5(link, network())
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640


def test_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    weights = [w for each in network() for w in saving._weights(each)]
    saving.save_weights_safetensors(path, weights)
    # Another model with other names: the order counts.
    for loaded in (
        zero(network()),
        zero([layer("x", (3, 3, 2), (2,)), layer("y", (4,), (4,), ())]),
    ):
        saving.load_weights_safetensors(path, [w for each in loaded for w in saving._weights(each)])
        assert_equal(loaded, network())
    wrong = [Variable(np.zeros(w.shape, np.float32), name=w.name) for w in weights[:-1]]
    with pytest.raises(ValueError, match="expected 4 weights, received 5"):
        saving.load_weights_safetensors(path, wrong)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="weights.safetensors"):
        saving.load_weights_safetensors(path, weights)
