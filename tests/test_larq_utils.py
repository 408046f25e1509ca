"""Helpers under larq's names."""

import pytest

import bnnlayers as lq
from bnnlayers import keras, utils


def test_memory_as_readable_str():
    assert [utils.memory_as_readable_str(2**i) for i in range(4)] == ["0.12 B", "0.25 B", "0.50 B", "1.00 B"]
    for power, unit in enumerate(("B", "KiB", "MiB", "GiB")):
        for i in range(10):
            assert utils.memory_as_readable_str(8 * 1024**power * 2**i) == f"{2**i}.00 {unit}"
    assert utils.memory_as_readable_str(8 * 1024**4) == "1,024.00 GiB"
    assert utils.memory_as_readable_str(0) == "0.00 B"


def test_set_precision():
    @utils.set_precision(8)
    def quantizer(x):
        return x

    assert quantizer.precision == 8
    assert utils.set_precision()(lambda x: x).precision == 32


def test_registration():
    @utils.register_alias("degenerate")
    @utils.register_keras_custom_object
    class Degenerate(lq.quantizers.Quantizer):
        pass

    known = keras.utils.get_custom_objects()
    try:
        assert known["degenerate"] is known["Degenerate"] is Degenerate
        assert isinstance(lq.quantizers.get("degenerate"), Degenerate)
    finally:
        del known["degenerate"], known["Degenerate"]


def test_patch_object_is_undone_by_an_error():
    class Box:
        value = 1

    box = Box()
    with pytest.raises(KeyError), utils.patch_object(box, "value", 2):
        assert box.value == 2
        raise KeyError
    assert box.value == 1


def test_version():
    assert "." in lq.__version__
