"""`Bop` and `CaseOptimizer`: checks, who trains what, configurations, files, accuracy. Golden data has the numbers."""

import json
import warnings

import numpy as np
import pytest
from larq_checks import small_network, two_classes

import bnnlayers as lq
from bnnlayers import keras
from bnnlayers.optimizers import Bop, CaseOptimizer

BINARY = Bop.is_binary_variable


def bop_and_adam(**kwargs):
    return CaseOptimizer((BINARY, Bop(**kwargs)), default_optimizer=keras.optimizers.legacy.Adam(0.01))


def noop_network():
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": lq.quantizers.NoOp(precision=1)}
    return keras.models.Sequential(
        [lq.layers.QuantDense(8, activation="relu", input_shape=(10,), **quantizers), keras.layers.Dense(2)]
    )


def one_step(model, optimizer, rng):
    x, _ = two_classes(rng, 16)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(x, rng.integers(0, 2, 16), epochs=1, verbose=0)


class TestArguments:
    @pytest.mark.parametrize(
        ("pairs", "kwargs", "message"),
        [
            ([(False, Bop())], {}, "predicate 0.*bool"),
            ([(BINARY, Bop()), (BINARY, False)], {}, "optimizer 1.*bool"),
            ([(BINARY, "adam")], {}, "optimizer 0.*str"),
            ([BINARY], {}, "pairs"),
            ([(BINARY, Bop())], {"default_optimizer": False}, "default_optimizer.*bool"),
        ],
    )
    def test_types(self, pairs, kwargs, message):
        with pytest.raises(TypeError, match=message):
            CaseOptimizer(*pairs, **kwargs)

    def test_two_claims(self, rng):
        everything = CaseOptimizer((lambda var: True, Bop()), (lambda var: True, Bop()))
        with pytest.raises(ValueError, match="claimed by optimizers"):
            one_step(small_network(), everything, rng)

    def test_no_claim(self, rng):
        nothing = CaseOptimizer((lambda var: False, Bop()), default_optimizer=keras.optimizers.Adam(0.01))
        model = keras.models.Sequential([keras.layers.Dense(2, input_shape=(10,))])
        before = model.get_weights()
        with pytest.raises(ValueError, match="claims no variable"):
            one_step(model, nothing, rng)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        # And it is no different the second time.
        with pytest.raises(ValueError, match="claims no variable"):
            one_step(model, nothing, rng)

    def test_no_default(self, rng):
        model = noop_network()
        before = model.get_weights()
        with pytest.warns(UserWarning, match="bias.*default_optimizer"):
            one_step(model, CaseOptimizer((BINARY, Bop())), rng)
        kernel, *others = zip(before, model.get_weights(), strict=True)
        assert not np.array_equal(*kernel)
        assert all(np.array_equal(a, b) for a, b in others)

    def test_iterations_cannot_be_set(self):
        with pytest.raises(NotImplementedError):
            bop_and_adam().iterations = 3


class TestMapping:
    def test_each_trains_its_own(self, rng):
        model, optimizer = noop_network(), bop_and_adam()
        assert optimizer.var_opt_mapping is None
        one_step(model, optimizer, rng)
        names = [variable.name for variable in model.trainable_variables]
        assert optimizer.var_opt_mapping == dict(zip(names, [0, 1, 1, 1], strict=True))
        assert optimizer.iterations.numpy() == 1
        assert [part.iterations.numpy() for part in optimizer.optimizers] == [1, 1]
        np.testing.assert_array_equal(np.abs(model.get_weights()[0]), 1)

    def test_weights_are_those_of_its_optimizers(self, rng):
        model = noop_network()
        optimizer = CaseOptimizer((BINARY, Bop()), default_optimizer=keras.optimizers.legacy.SGD(0.1, momentum=0.9))
        one_step(model, optimizer, rng)
        # A moving average or momentum for each weight, and the iterations of each optimizer.
        assert len(optimizer.weights) == len(model.weights) + 2
        parts = [weight for part in optimizer.optimizers for weight in part.weights]
        assert all(a is b for a, b in zip(optimizer.weights, parts, strict=True))
        assert len(optimizer.variables()) == len(optimizer.variables) == len(parts)

    def test_equal_names_are_told_apart(self):
        variables = [lq.Variable(np.float32([0.5, -0.5])) for _ in range(3)]
        optimizer = CaseOptimizer(
            (lambda variable: variable is variables[1], Bop()), default_optimizer=keras.optimizers.SGD(1.0)
        )
        gradient = np.float32([0.25, 0.25])
        optimizer.apply_gradients([(gradient, variable) for variable in variables])
        assert list(optimizer.var_opt_mapping.values()) == [1, 0, 1]
        # A part of them later on is still trained as it was.
        optimizer.apply_gradients([(gradient, variables[1]), (gradient, variables[2])])
        assert [variable.numpy().tolist() for variable in variables] == [[0.25, -0.75], [-1, -1], [0, -1]]

    def test_nothing_changes_where_one_gradient_is_wrong(self):
        binary, other = lq.Variable(np.ones(2), dtype=np.float32), lq.Variable(np.ones(3), dtype=np.float32)
        optimizer = CaseOptimizer((lambda v: v is binary, Bop(gamma=1.0)), default_optimizer=keras.optimizers.SGD(1.0))
        with pytest.raises(ValueError, match="expected shape"):
            optimizer.apply_gradients([(np.float32([1, 1]), binary), (np.float32([1, 1]), other)])
        np.testing.assert_array_equal(binary, [1, 1])

    def test_variables_without_gradient_stay(self):
        binary, other = lq.Variable(np.float32([1, 1])), lq.Variable(np.float32([1, 1]))
        optimizer = CaseOptimizer((lambda v: v is binary, Bop(gamma=1.0)), default_optimizer=keras.optimizers.SGD(1.0))
        with pytest.warns(UserWarning, match="no gradients"):
            optimizer.apply_gradients([(None, binary), (np.float32([1, 1]), other)])
        np.testing.assert_array_equal(binary, [1, 1])
        np.testing.assert_array_equal(other, [0, 0])

    def test_state_goes_on(self):
        variable = lq.Variable([2.0])
        optimizer = CaseOptimizer((lambda var: True, keras.optimizers.legacy.SGD(1.0, momentum=1.0)))
        optimizer.minimize(lambda: variable + 1.0, var_list=[variable])
        saved, value = optimizer.get_weights(), variable.numpy()
        optimizer.minimize(lambda: variable + 1.0, var_list=[variable])
        after = variable.numpy()
        optimizer.set_weights(saved)
        variable.assign(value)
        optimizer.minimize(lambda: variable + 1.0, var_list=[variable])
        assert variable.numpy() == after == -1


class TestBop:
    def test_flips(self):
        # m = gamma g; at equality, and from zero, the new value is +1.
        kernel = lq.Variable(np.float32([1, 1, -1, -1, 1, -1, 0, 0.3]))
        gradient = np.float32([1, -1, 1, -1, 0.5, -0.5, 7, 0])
        Bop(threshold=0.25, gamma=0.5).apply_gradients([(gradient, kernel)])
        np.testing.assert_array_equal(kernel, [-1, 1, -1, 1, 1, 1, 1, 1])

    def test_moving_average(self, rng):
        kernel, gradients = lq.Variable(np.ones(50), dtype=np.float32), rng.normal(size=(6, 50)).astype(np.float32)
        bop, m, w = Bop(threshold=0.01, gamma=0.1), np.zeros(50, np.float32), np.ones(50, np.float32)
        for gradient in gradients:
            bop.apply_gradients([(gradient, kernel)])
            m += np.float32(0.1) * (gradient - m)
            w = np.where(m * w > np.float32(0.01), -w, w)
            np.testing.assert_array_equal(kernel, w)
        np.testing.assert_array_equal(bop.get_slot(kernel, "m"), m)

    def test_schedules(self):
        kernel = lq.Variable([1.0])
        decay = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.0, 1.0])
        bop = Bop(gamma=decay)
        bop.apply_gradients([(np.float32([1]), kernel)])
        assert kernel.numpy() == 1
        bop.apply_gradients([(np.float32([1]), kernel)])
        assert kernel.numpy() == -1

    def test_predicate(self):
        variable = lq.Variable([1.0])
        wrap = lq.quantized_variable.QuantizedVariable.from_variable
        assert BINARY(wrap(variable, lq.quantizers.NoOp(precision=1)))
        assert BINARY(wrap(variable, lq.quantizers.SteSign()))
        assert BINARY(wrap(variable, precision=1))
        assert not BINARY(wrap(variable, lq.quantizers.SteTern()))
        assert not BINARY(variable)


class TestConfiguration:
    def test_bop(self):
        assert Bop().get_config() == {"name": "Bop", "threshold": 1e-8, "gamma": 1e-4}
        config = keras.optimizers.serialize(Bop(0.1, 0.2, clipnorm=1.0))
        again = keras.optimizers.deserialize(config)
        assert type(again) is Bop
        assert keras.optimizers.serialize(again) == config

    @pytest.mark.parametrize("hyper", [5e-4, keras.optimizers.schedules.PolynomialDecay(5e-4, 100)])
    def test_bop_schedule(self, hyper):
        bop = Bop(gamma=hyper, threshold=hyper)
        config = bop.get_config()
        again = Bop.from_config(config)
        for name in ("gamma", "threshold"):
            assert type(again._get_hyper(name)) is type(bop._get_hyper(name))
        assert again.get_config() == config

    def test_case(self, rng):
        optimizer = bop_and_adam(gamma=0.1)
        config = keras.optimizers.serialize(optimizer)
        assert set(config["config"]) == {"name", "optimizer_configs", "default_config", "var_opt_mapping"}
        again = keras.optimizers.deserialize(json.loads(json.dumps(config)))
        assert [type(part) for part in again.optimizers] == [Bop, keras.optimizers.legacy.Adam]
        assert keras.optimizers.serialize(again) == config

    def test_without_default(self):
        config = CaseOptimizer((BINARY, Bop()), name="case").get_config()
        assert CaseOptimizer.from_config(config).get_config() == config

    def test_a_mapping_replaces_the_predicates(self, rng):
        keras.backend.clear_session()
        model, optimizer = noop_network(), bop_and_adam(gamma=0.5)
        one_step(model, optimizer, rng)
        config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
        keras.backend.clear_session()
        twin, again = noop_network(), keras.optimizers.deserialize(config)
        twin.set_weights(model.get_weights())
        again.build(twin.trainable_variables)
        again.set_weights(optimizer.get_weights())
        gradients = [rng.normal(size=w.shape).astype(np.float32) for w in model.trainable_variables]
        for part, network in ((optimizer, model), (again, twin)):
            part.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_before_the_first_update_there_is_none(self, rng):
        again = CaseOptimizer.from_config(bop_and_adam().get_config())
        with pytest.raises(ValueError, match="claims no variable"):
            one_step(noop_network(), again, rng)


HALVING = keras.optimizers.schedules.InverseTimeDecay(3.0, decay_steps=1.0, decay_rate=0.5)


@pytest.mark.parametrize(
    ("trainable_bn", "kwargs", "target"),
    [(True, {}, 0.75), (False, {}, 0), (True, {"threshold": HALVING, "gamma": HALVING}, 0.6)],
    ids=["default", "only binary", "schedules"],
)
def test_accuracy(rng, trainable_bn, kwargs, target):
    keras.utils.set_random_seed(1337)
    x, y = two_classes(rng)
    model = small_network(trainable_bn=trainable_bn)
    model.compile(bop_and_adam(**kwargs), "categorical_crossentropy", metrics=["acc"])
    before = [w.numpy() for w in model.trainable_weights]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(x, y, epochs=2, batch_size=16, verbose=0).history
    for a, b in zip(before, model.trainable_weights, strict=True):
        assert np.any(a != b.numpy())
    for layer in (model.layers[0], model.layers[2]):
        np.testing.assert_array_equal(np.abs(layer.kernel.numpy()), 1)
    assert history["acc"][-1] >= target


def test_a_saved_model_trains_on(rng, tmp_path):
    keras.backend.clear_session()
    x, y = two_classes(rng, 32)
    model = small_network()
    model.compile(bop_and_adam(threshold=1e-3, gamma=0.1), "categorical_crossentropy")
    model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    assert again.optimizer.var_opt_mapping == model.optimizer.var_opt_mapping
    for network in (model, again):
        network.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
