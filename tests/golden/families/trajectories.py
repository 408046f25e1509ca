"""A few training steps of four kinds of networks, and the files in which a trained one travels."""

import sys
from pathlib import Path

import larq as lq
import numpy as np
import tensorflow as tf

from .registry import family

sys.path.append(str(Path(__file__).parents[1]))
from archive import DATA
from trainable import NETWORKS, batches, numbers, residual, start, trained

keras = tf.keras


@family
def trajectories():
    for build in NETWORKS:
        model, compilation = build(lq, tf, keras)
        start(model)
        arrays = trained(model, compilation, batches(build.__name__))
        yield {"id": build.__name__, "weights": [variable.name for variable in model.weights]}, arrays


@family
def checkpoints():
    """`data/theirs.h5` is what tf_keras writes; what it predicts from `data/ours.h5`, which the tests write."""
    x = numbers("checkpoints", (4, 8, 8, 3))
    model, compilation = residual(lq, tf, keras)
    start(model)
    trained(model, compilation, batches("residual"))
    model.save(DATA / "theirs.h5")
    arrays = {"x": x}
    for name, trained_model in (("theirs", model), ("ours", keras.models.load_model(DATA / "ours.h5"))):
        arrays[name] = trained_model.predict(x, verbose=0)
        steps = [trained_model.train_on_batch(*batch) for batch in batches("residual")[:2]]
        arrays[f"{name}_next"] = np.array(steps, np.float32)
    yield {"id": "residual"}, arrays
