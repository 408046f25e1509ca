"""larq_zoo's architectures: names, shapes and tables, and what they compute from weights drawn by rule."""

import larq_zoo
import numpy as np
import tensorflow as tf
from architectures import ARCHITECTURES, CLASSES, draw_images, draw_photographs, draw_weights
from larq.models import ModelProfile
from larq_zoo.literature import real_to_bin_nets

from .registry import family

keras = tf.keras


def network(name, **kwargs):
    for module in (larq_zoo.literature, larq_zoo.sota):
        if hasattr(module, name):
            return getattr(module, name)(weights=None, **kwargs)
    return getattr(real_to_bin_nets, f"{name}Factory")(weights=None, **kwargs).build()


def spreads(model, images):
    """For each normalization the power of two nearest to the variance of what comes in, in a step of training."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.moving_variance.numpy() for layer in layers]
    model(images, training=True)
    exponents = []
    for layer, old in zip(layers, before, strict=True):
        variance = (layer.moving_variance.numpy() - layer.momentum * old) / (1 - layer.momentum)
        exponents.append(int(np.rint(np.log2(max(np.mean(variance), 2.0**-20)))))
    return exponents


@family
def zoo():
    for name, size in ARCHITECTURES.items():
        keras.backend.clear_session()
        model = network(name, input_shape=(size, size, 3), num_classes=CLASSES)
        images = draw_images(size)
        model.set_weights(draw_weights(model))
        exponents = spreads(model, images)
        model.set_weights(draw_weights(model, exponents))
        # In front of the softmax differences show as what they are.
        logits = keras.Model(model.input, model.layers[-2].output)
        profile = ModelProfile(model)
        meta = {
            "id": name,
            "size": size,
            "model": model.name,
            "layers": [layer.name for layer in model.layers],
            "weights": [weight.name for weight in model.weights],
            "shapes": [weight.shape.as_list() for weight in model.weights],
            "trainable": [weight.name for weight in model.trainable_weights],
            "params": model.count_params(),
            "table": profile.generate_table(),
            "totals": profile.generate_summary(),
            "exponents": exponents,
        }
        yield meta, {"logits": logits(images).numpy(), "probabilities": model(images).numpy()}


@family
def zoo_images():
    """`preprocess_input`, every 41st value of it."""
    for image in draw_photographs():
        result = larq_zoo.preprocess_input(image)
        yield {"id": f"{image.shape} {image.dtype}"}, {"sample": result.ravel()[::41]}
