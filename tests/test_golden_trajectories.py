"""Training steps of four kinds of networks against larq, and trained networks that move between the two."""

import numpy as np
import pytest
from golden import trainable
from golden.archive import DATA, read

import bnnlayers as lq
from bnnlayers import keras

CASES = {case["id"]: case for case in read("trajectories")}


@pytest.mark.parametrize("build", trainable.NETWORKS, ids=lambda build: build.__name__)
def test_trajectory(build):
    """Losses and metrics of each step, weights after the last.

    The weights are compared in the median and loosely at worst: where an activation is within a rounding of zero its
    sign may differ, and Adam and RMSprop follow the sign of a gradient however small.
    """
    case = CASES[build.__name__]
    keras.backend.clear_session()
    model, compilation = build(lq, lq, keras)
    trainable.start(model)
    found = trainable.trained(model, compilation, trainable.batches(case["id"]))
    assert [name.partition("/")[2] for name in case["weights"]] == [w.name.partition("/")[2] for w in model.weights]
    np.testing.assert_allclose(found["history"][0], case.arrays["history"][0], 1e-6)
    np.testing.assert_allclose(found["history"], case.arrays["history"], 1e-3, 1 / trainable.BATCH)
    for i, name in enumerate(case["weights"]):
        expected = case.arrays[f"after{i}"]
        error = np.abs(found[f"after{i}"] - expected)
        scale = max(1, np.abs(expected).max())
        assert np.median(error) <= 1e-5 * scale, name
        assert error.max() <= 1e-2 * scale, name


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_a_trained_network_moves(name):
    """A file of each writer, read by both: the same predictions, and training goes on alike."""
    case = read("checkpoints")[0]
    model = keras.models.load_model(DATA / f"{name}.h5")
    np.testing.assert_allclose(model.predict(case.arrays["x"], verbose=0), case.arrays[name], 1e-5, 1e-6)
    steps = [model.train_on_batch(*batch) for batch in trainable.batches("residual")[:2]]
    np.testing.assert_allclose(steps, case.arrays[f"{name}_next"], 1e-4)
