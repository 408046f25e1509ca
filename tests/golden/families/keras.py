"""The Keras parts around quantized layers: batch norm, pooling, losses, metrics, weight files."""

import h5py
import larq as lq
import numpy as np
import tensorflow as tf
from archive import DATA

from .registry import family, generator

keras = tf.keras


def record(layer, x, dy, weights, **call):
    """Output and gradients of a Keras layer with given weights; its weights after the call."""
    x = tf.constant(x)
    layer.build(x.shape)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **call)
    dy = dy(y.shape)
    dx, *dweights = tape.gradient(y, [x, *layer.trainable_weights], output_gradients=dy)
    arrays = {"x": x.numpy(), "y": y.numpy(), "dy": dy, "dx": dx.numpy()}
    arrays |= {f"w{i}": w for i, w in enumerate(weights)}
    arrays |= {f"dw{i}": w.numpy() for i, w in enumerate(dweights)}
    return arrays | {f"after{i}": w for i, w in enumerate(layer.get_weights())}


@family
def batch_normalization():
    rng = generator("batch_normalization")
    arguments = [
        {},
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"momentum": 0.9, "epsilon": 1e-5},
        {"momentum": 0.5, "epsilon": 0.1, "scale": False},
    ]
    shapes = [[6, 3], [1, 3], [4, 5, 3], [2, 3, 4, 3], [2, 2, 3, 2, 3]]
    for shape in shapes:
        for kwargs in [*arguments, {"axis": 1}, {"trainable": False}]:
            for training in (True, False):
                channels = shape[kwargs.get("axis", -1)]
                count = 2 + kwargs.get("scale", True) + kwargs.get("center", True)
                weights = [rng.normal(size=channels).astype(np.float32) for _ in range(count)]
                weights[-1] = np.abs(weights[-1]) + 0.1
                x = (3 * rng.normal(size=shape) + 1).astype(np.float32)
                layer = keras.layers.BatchNormalization(**kwargs)
                name = ",".join(f"{k}={v}" for k, v in kwargs.items())
                mode = "training" if training else "inference"
                yield (
                    {
                        "id": f"{len(shape)}d{shape[0]}-{name}-{mode}",
                        "kwargs": kwargs,
                        "training": training,
                    },
                    record(
                        layer,
                        x,
                        lambda s: rng.normal(size=s).astype(np.float32),
                        weights,
                        training=training,
                    ),
                )


@family
def max_pooling():
    """Small integers, so that most windows hold their maximum more than once."""
    rng = generator("max_pooling")
    for kwargs in [
        {},
        {"pool_size": 2},
        {"pool_size": 3},
        {"pool_size": [2, 3]},
        {"pool_size": 3, "strides": 1},
        {"pool_size": 2, "strides": 3},
        {"pool_size": 3, "strides": 2, "padding": "same"},
        {"pool_size": 2, "padding": "same"},
        {"pool_size": [3, 2], "strides": [1, 2], "padding": "same"},
        {"pool_size": 2, "data_format": "channels_first"},
        {"pool_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"},
    ]:
        for size in ([6, 6], [7, 5]):
            first = kwargs.get("data_format") == "channels_first"
            x = rng.integers(-3, 4, [2, *size, 3]).astype(np.float32)
            if size[0] == 7:
                x[0] = -np.abs(x[0]) - 1
            layer = keras.layers.MaxPooling2D(**{**kwargs, "data_format": "channels_last"})
            arrays = record(layer, x, lambda s: rng.integers(-4, 5, s).astype(np.float32), [])
            if first:
                arrays = {name: np.moveaxis(array, -1, 1) for name, array in arrays.items()}
            name = ",".join(f"{k}={v}" for k, v in kwargs.items())
            yield (
                {
                    "id": f"{size[0]}x{size[1]}-{name}",
                    "kwargs": kwargs,
                    "reference": "decomposed" if first else "direct",
                },
                arrays,
            )


# -- losses and metrics -------------------------------------------------------------------------


def targets(rng, kind, batch, classes):
    labels = rng.integers(0, classes, batch)
    if kind == "sparse":
        return labels.astype(np.int32)
    if kind == "onehot":
        return np.eye(classes, dtype=np.float32)[labels]
    if kind == "signs":
        return rng.choice([-1, 1], (batch, classes)).astype(np.float32)
    if kind == "binary":
        return rng.integers(0, 2, (batch, classes)).astype(np.float32)
    y = rng.random((batch, classes)).astype(np.float32)
    return y / y.sum(-1, keepdims=True) if kind == "distribution" else y


def predictions(rng, kind, batch, classes):
    logits = rng.normal(size=(batch, classes)) * 2
    if kind == "probabilities":
        y = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        y[0] = np.eye(classes)[1]
        y[1] = 1 / classes
        return y.astype(np.float32)
    if kind == "logits":
        logits[0] = 0
        logits[1, 0] = 50
    if kind == "unit":
        logits = 1 / (1 + np.exp(-logits))
        logits[0, :2] = 0, 1
    return logits.astype(np.float32)


LOSSES = [
    ("SparseCategoricalCrossentropy", {}, "sparse", "probabilities"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "sparse", "logits"),
    ("CategoricalCrossentropy", {}, "onehot", "probabilities"),
    ("CategoricalCrossentropy", {}, "distribution", "probabilities"),
    ("CategoricalCrossentropy", {"from_logits": True}, "onehot", "logits"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "onehot", "probabilities"),
    (
        "CategoricalCrossentropy",
        {"from_logits": True, "label_smoothing": 0.2},
        "onehot",
        "logits",
    ),
    ("BinaryCrossentropy", {}, "binary", "unit"),
    ("BinaryCrossentropy", {"from_logits": True}, "binary", "logits"),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, "binary", "unit"),
    ("MeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
    ("Hinge", {}, "signs", "real"),
    ("Hinge", {}, "binary", "real"),
    ("SquaredHinge", {}, "signs", "real"),
    ("CategoricalHinge", {}, "onehot", "real"),
    ("KLDivergence", {}, "distribution", "probabilities"),
]


@family
def losses():
    rng = generator("losses")
    for name, kwargs, target, prediction in LOSSES:
        for reduction in ("sum_over_batch_size", "sum", "none"):
            for weighted in (False, True):
                y_true = targets(rng, target, 6, 5)
                y_pred = tf.constant(predictions(rng, prediction, 6, 5))
                weight = rng.random(6).astype(np.float32) if weighted else None
                loss = getattr(keras.losses, name)(**kwargs, reduction=reduction)
                with tf.GradientTape() as tape:
                    tape.watch(y_pred)
                    value = loss(y_true, y_pred, sample_weight=weight)
                options = ",".join(f"{k}={v}" for k, v in kwargs.items())
                arrays = {
                    "y_true": y_true,
                    "y_pred": y_pred.numpy(),
                    "value": value.numpy(),
                    "gradient": tape.gradient(value, y_pred).numpy(),
                }
                if weighted:
                    arrays["sample_weight"] = weight
                yield (
                    {
                        "id": f"{name}-{options}-{target}-{reduction}" + ("-weighted" if weighted else ""),
                        "loss": name,
                        "kwargs": {**kwargs, "reduction": reduction},
                    },
                    arrays,
                )


@family
def softmax_losses():
    """Cross-entropy after a softmax layer, which Keras computes from the logits."""
    rng = generator("softmax_losses")
    for name, target in [
        ("sparse_categorical_crossentropy", "sparse"),
        ("categorical_crossentropy", "onehot"),
    ]:
        for where in ("layer", "activation"):
            tail = [keras.layers.Dense(4, activation="softmax" if where == "activation" else None)]
            if where == "layer":
                tail.append(keras.layers.Activation("softmax"))
            model = keras.models.Sequential([keras.layers.Input((3,)), *tail])
            weights = [rng.normal(size=s).astype(np.float32) * 20 for s in ((3, 4), (4,))]
            model.set_weights(weights)
            model.compile(keras.optimizers.SGD(0.1), name, metrics=["accuracy"])
            x = rng.normal(size=(8, 3)).astype(np.float32)
            y = targets(rng, target, 8, 4)
            history = [model.train_on_batch(x, y) for _ in range(5)]
            after = model.get_weights()
            yield (
                {"id": f"{name}-{where}", "loss": name, "softmax": where},
                {
                    "x": x,
                    "y": y,
                    "w0": weights[0],
                    "w1": weights[1],
                    "history": np.array(history, np.float32),
                    "after0": after[0],
                    "after1": after[1],
                },
            )


METRICS = [
    ("Accuracy", {}, "sparse", "sparse"),
    ("SparseCategoricalAccuracy", {}, "sparse", "probabilities"),
    ("CategoricalAccuracy", {}, "onehot", "probabilities"),
    ("BinaryAccuracy", {}, "binary", "unit"),
    ("BinaryAccuracy", {"threshold": 0.2}, "binary", "unit"),
    ("TopKCategoricalAccuracy", {"k": 2}, "onehot", "probabilities"),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, "sparse", "probabilities"),
    ("SparseCategoricalCrossentropy", {}, "sparse", "probabilities"),
    ("CategoricalCrossentropy", {}, "onehot", "probabilities"),
    ("BinaryCrossentropy", {}, "binary", "unit"),
    ("MeanSquaredError", {}, "real", "real"),
    ("MeanAbsoluteError", {}, "real", "real"),
]


@family
def metrics():
    """Three batches of different size; ties among the predictions; with and without weights."""
    rng = generator("metrics")
    for name, kwargs, target, prediction in METRICS:
        for weighted in (False, True):
            metric = getattr(keras.metrics, name)(**kwargs)
            arrays, results = {}, []
            for i, batch in enumerate((7, 3, 5)):
                y_true = targets(rng, target, batch, 4)
                if prediction == "sparse":
                    y_pred = targets(rng, "sparse", batch, 4)
                else:
                    y_pred = np.round(predictions(rng, prediction, batch, 4), 1)
                arrays |= {f"y_true{i}": y_true, f"y_pred{i}": y_pred}
                weight = None
                if weighted:
                    weight = arrays[f"sample_weight{i}"] = rng.random(batch).astype(np.float32)
                metric.update_state(y_true, y_pred, sample_weight=weight)
                results.append(float(metric.result()))
            arrays["results"] = np.array(results, np.float32)
            options = ",".join(f"{k}={v}" for k, v in kwargs.items())
            suffix = "-weighted" if weighted else ""
            yield {"id": f"{name}-{options}{suffix}", "metric": name, "kwargs": kwargs}, arrays


# -- files --------------------------------------------------------------------------------------


def small_network():
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", input_shape=(8, 8, 1), name="first"),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.BatchNormalization(scale=False, name="norm"),
            lq.layers.QuantConv2D(5, 2, padding="same", pad_values=1.0, **binary, name="second"),
            keras.layers.BatchNormalization(name="norm_2"),
            keras.layers.Flatten(name="flat"),
            lq.layers.QuantDense(3, use_bias=False, **binary, name="last"),
            keras.layers.Activation("softmax", name="softmax"),
        ],
        name="small",
    )


@family
def weights_file():
    """A small network, its predictions, and `data/weights.h5` as tf_keras writes it."""
    rng = generator("weights_file")
    model = small_network()
    weights = [rng.normal(size=w.shape).astype(np.float32) for w in model.get_weights()]
    weights = [np.abs(w) if "variance" in v.name else w for w, v in zip(weights, model.weights, strict=True)]
    model.set_weights(weights)
    path = DATA / "weights.h5"
    model.save_weights(path)
    with h5py.File(path) as file:
        names = []
        file.visititems(lambda n, item: names.append([n, list(getattr(item, "shape", []))]))
    x = (rng.integers(-8, 9, (5, 8, 8, 1)) / 8).astype(np.float32)
    arrays = {f"w{i}": w for i, w in enumerate(weights)}
    yield (
        {"id": "small", "names": [v.name for v in model.weights], "tree": names},
        arrays | {"x": x, "prediction": model.predict(x, verbose=0)},
    )
