"""Scopes: nested, restored after an error, one per thread."""

import threading

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import context


def test_metrics_scope():
    assert context.get_training_metrics() == set()
    with context.metrics_scope(["flip_ratio"]) as metrics:
        assert metrics is context.get_training_metrics()
        assert metrics == {"flip_ratio"}
        with context.metrics_scope():
            assert metrics == {"flip_ratio"}
    assert context.get_training_metrics() == set()


def test_metrics_scope_names_what_it_does_not_know():
    with (
        pytest.raises(ValueError, match=r"flip_ratio.*unknown_metric"),
        context.metrics_scope(["flip_ratio", "unknown_metric"]),
    ):
        pass
    assert context.get_training_metrics() == set()


def test_metrics_scope_ends_with_an_error():
    with pytest.raises(KeyError), context.metrics_scope(["flip_ratio"]):
        raise KeyError
    assert context.get_training_metrics() == set()


def test_training_metrics_are_live():
    metrics = context.get_training_metrics()
    metrics.add("flip_ratio")
    try:
        assert lq.quantizers.get_kernel_quantizer("ste_sign")._custom_metrics == ["flip_ratio"]
    finally:
        metrics.clear()


@pytest.mark.parametrize("quantize", [True, False])
def test_quantized_scope(quantize):
    assert not context.should_quantize()
    with context.quantized_scope(quantize) as given:
        assert given is quantize
        assert context.should_quantize() is quantize
        with context.quantized_scope(not quantize):
            assert context.should_quantize() is not quantize
        assert context.should_quantize() is quantize
    assert not context.should_quantize()


def test_quantized_scope_ends_with_an_error():
    layer = lq.layers.QuantDense(3, kernel_quantizer=lambda x: x / None)
    with pytest.raises(TypeError):
        layer(np.zeros((1, 2), np.float32))
    assert not context.should_quantize()


def test_quantized_scope_belongs_to_its_thread():
    seen = []
    with context.quantized_scope(True):
        thread = threading.Thread(target=lambda: seen.append(context.should_quantize()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_weights_in_the_scope_are_quantized():
    layer = lq.layers.QuantDense(3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    layer.build((None, 4))
    latent = layer.get_weights()[0]
    with context.quantized_scope(True):
        quantized = layer.get_weights()[0]
    np.testing.assert_array_equal(quantized, np.where(latent < 0, -1, 1))
    assert not np.array_equal(latent, quantized)
