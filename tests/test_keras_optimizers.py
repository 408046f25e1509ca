"""Optimizers and schedules: numbers of tf_keras 2.19, hyperparameters, state, errors."""

import copy
import json
import pickle

import numpy as np
import pytest

from bnnlayers.keras import backend, constraints, initializers, optimizers
from bnnlayers.tape import GradientTape, Variable, constant

legacy, schedules = optimizers.legacy, optimizers.schedules

GRADIENTS = np.array([[0.5, -2.0, 1e-3], [-0.25, 1.5, 1e-3], [3.0, 0.0, -2e-4]], np.float32)
# The variable, [1, -1, 0.5] at first, after these three updates.
TRAJECTORIES = [
    (optimizers.SGD(0.1), [0.6749999523, -0.9500000477, 0.4998200238]),
    (optimizers.SGD(0.1, momentum=0.9), [0.6119999886, -0.7430000305, 0.4995590150]),
    (optimizers.SGD(0.1, momentum=0.9, nesterov=True), [0.3258000016, -0.7187000513, 0.4994231164]),
    (optimizers.Adam(0.1), [0.8067979217, -0.8841635585, 0.2331038862]),
    (optimizers.Adam(0.1, amsgrad=True), [0.8067979217, -0.8841670156, 0.2331038862]),
    (optimizers.RMSprop(0.1), [0.5194368362, -0.8798882961, 0.1288363636]),
    (optimizers.RMSprop(0.1, momentum=0.5), [0.3559873104, -0.7407755852, -0.1317164302]),
    (optimizers.RMSprop(0.1, centered=True), [0.4848066568, -0.8629338741, 0.1119515002]),
    (
        optimizers.RMSprop(0.1, centered=True, momentum=0.5),
        [0.3090463281, -0.7110674977, -0.1593392938],
    ),
    (optimizers.Adam(0.1, clipnorm=0.5), [0.8220337033, -0.9108049870, 0.2313628793]),
    (optimizers.SGD(0.1, clipnorm=0.5), [0.9460931420, -1.0008126497, 0.4999462068]),
    (optimizers.SGD(0.1, clipvalue=0.5), [0.9249999523, -1.0, 0.4998200238]),
    (optimizers.SGD(0.1, global_clipnorm=0.5), [0.9460931420, -1.0008125305, 0.4999462068]),
    (legacy.SGD(0.1, momentum=0.9, decay=0.5), [0.7461667061, -0.6480000615, 0.4996123314]),
    (legacy.Adam(0.1), [0.8067966700, -0.8841628432, 0.2331021279]),
    (legacy.Adam(0.1, amsgrad=True, decay=0.1), [0.8203129768, -0.8861285448, 0.2534121871]),
    (legacy.RMSprop(0.1), [0.5194366574, -0.8798884153, 0.0023068488]),
    (legacy.RMSprop(0.1, momentum=0.5), [0.3559874594, -0.7407757044, -0.1317163110]),
    (legacy.RMSprop(0.1, centered=True), [0.4848063290, -0.8629338741, -0.0368114039]),
    (
        legacy.RMSprop(0.1, centered=True, momentum=0.5),
        [0.3090463281, -0.7110674977, -0.1593392938],
    ),
]


def run(optimizer, steps=GRADIENTS, **kwargs):
    variable = Variable(np.array([1.0, -1.0, 0.5], np.float32), name="w", **kwargs)
    for gradient in steps:
        optimizer.apply_gradients([(gradient, variable)])
    return variable


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    TRAJECTORIES,
    ids=[f"{o.__class__.__module__[-6:]}-{o.name}-{i}" for i, (o, _) in enumerate(TRAJECTORIES)],
)
def test_trajectory(optimizer, expected):
    optimizer = type(optimizer).from_config(optimizer.get_config())
    variable = run(optimizer)
    # The second moment of the third element nearly cancels when centered.
    np.testing.assert_allclose(variable.numpy(), expected, rtol=0, atol=2e-6)
    assert variable.dtype == np.float32
    assert optimizer.iterations.numpy() == 3 and optimizer.iterations.dtype == np.int64


STEPS = (0, 3, 5, 7, 12, 25, 40)
SCHEDULES = [
    (
        schedules.ExponentialDecay(0.1, 10, 0.5),
        [0.1, 0.08122524, 0.07071068, 0.06155722, 0.04352752, 0.01767767, 0.00625],
    ),
    (
        schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True),
        [0.1, 0.1, 0.1, 0.1, 0.05, 0.025, 0.00625],
    ),
    (
        schedules.InverseTimeDecay(0.1, 10, 0.5),
        [0.1, 0.08695652, 0.08, 0.07407407, 0.0625, 0.04444445, 0.03333334],
    ),
    (
        schedules.PolynomialDecay(0.1, 20, 0.01, power=2.0),
        [0.1, 0.075025, 0.060625, 0.048025, 0.0244, 0.01, 0.01],
    ),
    (
        schedules.PolynomialDecay(0.1, 20, 0.01, cycle=True),
        [0.1, 0.0865, 0.0775, 0.0685, 0.046, 0.04375, 0.01],
    ),
    (schedules.PiecewiseConstantDecay([5, 12], [1.0, 0.5, 0.1]), [1, 1, 1, 0.5, 0.5, 0.1, 0.1]),
    (
        schedules.CosineDecay(0.1, 20, 0.1),
        [0.1, 0.09509529, 0.08681981, 0.07542957, 0.04109422, 0.01, 0.01],
    ),
    (
        schedules.CosineDecay(0.01, 20, 0.1, warmup_target=0.1, warmup_steps=4),
        [0.01, 0.0775, 0.09944598, 0.09509529, 0.06890576, 0.01, 0.01],
    ),
    (
        schedules.CosineDecayRestarts(0.1, 7, alpha=0.1),
        [0.1, 0.06501344, 0.02694295, 0.1, 0.07452477, 0.09554359, 0.03105855],
    ),
    (
        schedules.CosineDecayRestarts(0.1, 7, t_mul=1.0, m_mul=0.5),
        [0.1, 0.06112604, 0.0188255, 0.05, 0.00941275, 0.00485924, 0.0005882966],
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES)
def test_schedule(schedule, expected):
    config = json.loads(json.dumps(schedules.serialize(schedule)))
    for twin in (schedule, schedules.deserialize(config)):
        values = [twin(step) for step in STEPS]
        assert all(value.dtype == np.float32 and value.shape == () for value in values)
        np.testing.assert_allclose(values, expected, rtol=2e-6)
    np.testing.assert_array_equal(schedule(constant(np.int64(5))), schedule(5))


def test_optimizer_follows_its_schedule():
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([0], [1.0, 0.5]))
    variable = run(optimizer, np.ones((3, 3), np.float32))
    np.testing.assert_array_equal(variable.numpy(), [-1, -3, -1.5])
    assert float(optimizer.lr) == 0.5
    with pytest.raises(TypeError, match="schedule"):
        optimizer.lr = 0.1

    class Halving(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 1 / 2**step

    variable = run(optimizers.SGD(Halving()), np.ones((3, 3), np.float32))
    np.testing.assert_array_equal(variable.numpy(), np.float32([1, -1, 0.5]) - np.float32(1.75))
    with pytest.raises(NotImplementedError, match="get_config"):
        Halving().get_config()
    with pytest.raises(ValueError, match="one fewer"):
        schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2])


def test_hyperparameters_read_as_variables():
    optimizer = optimizers.Adam(lr=0.25)
    assert backend.get_value(optimizer.lr) == backend.get_value(optimizer.learning_rate) == 0.25
    backend.set_value(optimizer.lr, 0.5)
    backend.set_value(optimizer.beta_1, 0.8)
    assert optimizer.get_config()["learning_rate"] == 0.5 and float(optimizer.beta_1) == 0.8
    optimizer.learning_rate = 0.125
    assert float(optimizer.lr) == 0.125
    optimizer.lr = schedules.ExponentialDecay(1.0, 1, 0.5)
    assert float(optimizer.lr) == 1
    assert {"lr", "beta_1"} <= set(dir(optimizer))
    with pytest.raises(AttributeError, match="momentum"):
        _ = optimizer.momentum
    momentum = optimizers.SGD(1.0)
    run(momentum, GRADIENTS[:1])
    momentum.momentum = 0.5
    np.testing.assert_array_equal(
        run(momentum, np.ones((2, 3), np.float32)).numpy(), [-1.5, -3.5, -2]
    )


def test_decay_means_the_legacy_class():
    optimizer = optimizers.Adam(lr=0.1, decay=0.5)
    assert type(optimizer) is legacy.Adam and optimizer.decay == 0.5
    assert isinstance(optimizer, optimizers.Adam) and isinstance(optimizer, legacy.Optimizer)
    assert type(optimizers.RMSprop(decay=0.0)) is legacy.RMSprop
    assert type(optimizers.Adam(0.1)) is optimizers.Adam


@pytest.mark.parametrize(
    "optimizer", [optimizers.Adam(0.1, clipnorm=1.0), legacy.SGD(0.1, decay=0.1)]
)
def test_configuration(optimizer):
    config = json.loads(json.dumps(optimizers.serialize(optimizer)))
    twin = optimizers.deserialize(config)
    assert type(twin) is type(optimizer) and twin.get_config() == optimizer.get_config()
    assert type(optimizers.get(config)) is type(optimizer)


def test_configurations_of_keras():
    config = {
        "module": "keras.optimizers",
        "class_name": "Adam",
        "registered_name": None,
        "config": {
            "name": "Adam",
            "weight_decay": None,
            "clipnorm": None,
            "global_clipnorm": None,
            "clipvalue": None,
            "use_ema": False,
            "ema_momentum": 0.99,
            "ema_overwrite_frequency": None,
            "jit_compile": False,
            "is_legacy_optimizer": False,
            "learning_rate": {
                "module": "keras.optimizers.schedules",
                "class_name": "ExponentialDecay",
                "config": {
                    "initial_learning_rate": 0.25,
                    "decay_steps": 10,
                    "decay_rate": 0.5,
                    "staircase": False,
                    "name": None,
                },
                "registered_name": None,
            },
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-07,
            "amsgrad": False,
        },
    }
    optimizer = optimizers.deserialize(config)
    assert type(optimizer) is optimizers.Adam and float(optimizer.lr) == 0.25
    old = {"class_name": "SGD", "config": {"name": "SGD", "lr": 0.5, "momentum": 0.0}}
    assert type(optimizers.get(old)) is legacy.SGD
    config["config"]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="weight_decay"):
        optimizers.deserialize(config)


def test_names():
    for name in ("adam", "Adam", "sgd", "SGD", "rmsprop", "RMSprop"):
        assert optimizers.get(name).name.lower() == name.lower()
    optimizer = optimizers.SGD()
    assert optimizers.get(optimizer) is optimizer
    for bad in ("nonsense", 3):
        with pytest.raises(ValueError, match="optimizer"):
            optimizers.get(bad)


def test_state_goes_on_where_it_stopped():
    first, second = (optimizers.Adam(0.1, amsgrad=True) for _ in range(2))
    variable = run(first)
    twin = Variable(variable.numpy(), name="w")
    with pytest.raises(ValueError, match="expected 1 arrays, received 4"):
        second.set_weights(first.get_weights())
    second.build([twin])
    wrong = first.get_weights()
    wrong[1] = wrong[1][:2]
    before = second.get_weights()
    with pytest.raises(ValueError, match=r"w/m.*expected shape \(3,\), received \(2,\)"):
        second.set_weights(wrong)
    for a, b in zip(second.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    second.set_weights(first.get_weights())
    assert [v.name for v in first.variables()] == [v.name for v in first.variables]
    for gradient in GRADIENTS:
        first.apply_gradients([(gradient, variable)])
        second.apply_gradients([(gradient, twin)])
    np.testing.assert_array_equal(variable.numpy(), twin.numpy())


def test_what_was_read_keeps_its_value():
    variable = Variable(np.ones(3, np.float32))
    with GradientTape() as tape:
        before = variable.value()
        loss = np.sum(np.square(variable))
    optimizers.Adam(0.1).apply_gradients([(tape.gradient(loss, variable), variable)])
    np.testing.assert_array_equal(before, 1)
    assert np.all(variable.numpy() < 1)


def test_constraint_and_missing_gradients():
    optimizer = optimizers.SGD(1.0)
    clipped = Variable(np.ones(2, np.float32), constraint=constraints.NonNeg(), name="a")
    idle = Variable(np.ones(2, np.float32), name="b")
    with pytest.warns(UserWarning, match="b:0"):
        optimizer.apply_gradients([(np.float32([0.5, 3]), clipped), (None, idle)])
    np.testing.assert_array_equal(clipped.numpy(), [0.5, 0])
    np.testing.assert_array_equal(idle.numpy(), 1)
    with pytest.raises(ValueError, match="no gradients"):
        optimizer.apply_gradients([(None, idle)])
    with pytest.raises(ValueError, match=r"expected shape \(2,\), received \(3,\)"):
        optimizer.apply_gradients([(np.ones(2, np.float32), clipped), (np.ones(3), idle)])
    np.testing.assert_array_equal(clipped.numpy(), [0.5, 0])
    assert optimizer.iterations.numpy() == 1


def test_minimize():
    variable = Variable(np.float32(10))
    optimizers.RMSprop(0.1).minimize(lambda: variable**2 / 2, [variable])
    np.testing.assert_allclose(variable.numpy(), 9.683772, rtol=1e-6)
    with pytest.raises(ValueError, match="tape"):
        optimizers.SGD().minimize(constant(1.0), [variable])


def test_subclass():
    class Sign(optimizers.Optimizer):
        def __init__(self, learning_rate=0.1, name="Sign", **kwargs):
            super().__init__(name, **kwargs)
            self._set_hyper("learning_rate", learning_rate)

        def _create_slots(self, var_list):
            for variable in var_list:
                self.add_slot(variable, "seen", initializers.Ones())

        def update_step(self, gradient, variable):
            variable.assign_sub(self._decayed_lr(variable.dtype) * np.sign(gradient))
            self.get_slot(variable, "seen").assign_add(np.abs(gradient))

    optimizer = Sign(0.5)
    variable = run(optimizer, GRADIENTS[:1])
    np.testing.assert_array_equal(variable.numpy(), [0.5, -0.5, 0])
    np.testing.assert_allclose(optimizer.get_slot(variable, "seen"), [1.5, 3, 1.001])


@pytest.mark.parametrize(
    "arguments",
    [
        {"clipnorm": -1.0},
        {"clipvalue": -1.0},
        {"decay": -1.0},
        {"clipnorm": 1.0, "global_clipnorm": 1.0},
        {"momentum": 2.0},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="expected"):
        optimizers.SGD(**arguments)
    with pytest.raises(TypeError, match="nonsense"):
        optimizers.Adam(nonsense=1)


def test_copies():
    for twin in (
        copy.deepcopy(optimizers.Adam(0.25)),
        pickle.loads(pickle.dumps(legacy.Adam(0.25))),
    ):
        assert float(twin.lr) == 0.25
        run(twin)
