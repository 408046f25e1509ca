"""`HyperparameterScheduler`."""

import numpy as np
import pytest
from larq_checks import small_network, two_classes

import bnnlayers as lq
from bnnlayers import keras
from bnnlayers.callbacks import HyperparameterScheduler


def schedule(t):
    return 1.0 / (1.0 + t)


def fit(rng, optimizer, *callbacks, samples=40, epochs=2, batch_size=16):
    x, y = two_classes(rng, samples)
    model = small_network()
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=epochs, batch_size=batch_size, callbacks=list(callbacks), verbose=0)
    return model, history.history


def test_the_models_optimizer_by_epoch(rng, capsys):
    model, history = fit(rng, keras.optimizers.Adam(0.01), HyperparameterScheduler(schedule, "lr", verbose=1))
    assert keras.backend.get_value(model.optimizer.lr) == schedule(1)
    assert history["lr"] == [schedule(0), schedule(1)]
    assert capsys.readouterr().out.splitlines() == ["Epoch 0: lr is now 1.0.", "Epoch 1: lr is now 0.5."]


def test_by_step(rng, capsys):
    callback = HyperparameterScheduler(schedule, "lr", update_freq="step", verbose=1, log_name="rate")
    model, history = fit(rng, keras.optimizers.SGD(0.01), callback)
    steps = 2 * 3
    assert keras.backend.get_value(model.optimizer.lr) == schedule(steps - 1)
    # Steps go on counting in the second epoch.
    assert history["rate"] == [schedule(2), schedule(5)]
    assert "Step 5: rate is now" in capsys.readouterr().out


def test_a_schedule_may_read_the_value(rng):
    callback = HyperparameterScheduler(lambda epoch, value: value / 2, "learning_rate")
    _, history = fit(rng, keras.optimizers.SGD(1.0), callback, epochs=3)
    assert history["learning_rate"] == [0.5, 0.25, 0.125]


def test_parts_of_a_case_optimizer(rng):
    bop, adam = lq.optimizers.Bop(threshold=1e-6, gamma=1e-3), keras.optimizers.legacy.Adam(0.01)
    optimizer = lq.optimizers.CaseOptimizer((lq.optimizers.Bop.is_binary_variable, bop), default_optimizer=adam)
    model, history = fit(
        rng,
        optimizer,
        HyperparameterScheduler(schedule, "gamma", bop),
        HyperparameterScheduler(lambda t: schedule(t) / 3, "threshold", bop, log_name="t"),
        HyperparameterScheduler(lambda t: schedule(t) / 9, "lr", adam),
        epochs=3,
    )
    assert model.optimizer is optimizer
    for value, factor in ((bop.gamma, 1), (bop.threshold, 3), (adam.lr, 9)):
        np.testing.assert_allclose(keras.backend.get_value(value), schedule(2) / factor, rtol=1e-7)
    assert history["t"] == [schedule(t) / 3 for t in range(3)]


def test_wrong_names(rng):
    with pytest.raises(ValueError, match=r"update_freq.*wrong"):
        HyperparameterScheduler(schedule, "lr", update_freq="wrong")
    with pytest.raises(ValueError, match="no attribute 'invalid_param'"):
        fit(rng, keras.optimizers.Adam(0.01), HyperparameterScheduler(schedule, "invalid_param"))


def test_what_a_schedule_computes_cannot_be_set(rng):
    bop = lq.optimizers.Bop(gamma=keras.optimizers.schedules.InverseTimeDecay(0.1, 1.0, 0.5))
    optimizer = lq.optimizers.CaseOptimizer(
        (lq.optimizers.Bop.is_binary_variable, bop), default_optimizer=keras.optimizers.SGD(0.1)
    )
    with pytest.raises(TypeError, match="gamma"):
        fit(rng, optimizer, HyperparameterScheduler(schedule, "gamma", bop))
