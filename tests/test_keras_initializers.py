"""Initializers, regularizers, constraints and activations: values, gradients, names and configurations."""

import json
import math

import numpy as np
import pytest

from bnnlayers.keras import activations, backend, constraints, initializers, regularizers, utils
from bnnlayers.tape import GradientTape, Variable, constant, plain

FAMILIES = {
    "initializers": (initializers, "he_normal", initializers.HeNormal),
    "regularizers": (regularizers, "l2", regularizers.L2),
    "constraints": (constraints, "max_norm", constraints.MaxNorm),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_get_serialize_deserialize(name):
    module, identifier, cls = FAMILIES[name]
    for given in (identifier, cls.__name__, cls, cls()):
        assert type(module.get(given)) is cls
    obj = cls()
    config = json.loads(json.dumps(module.serialize(obj)))
    twin = module.deserialize(config)
    assert type(twin) is cls and twin.get_config() == obj.get_config()
    assert module.get(obj) is obj
    assert module.get(None) is None and module.serialize(None) is None
    # As tf_keras 2.13 and later write it.
    config |= {"module": f"keras.{name}", "registered_name": None}
    assert type(module.get(config)) is cls
    with pytest.raises(ValueError, match="Unknown .*'nonsense'"):
        module.get("nonsense")
    with pytest.raises(ValueError, match="identifier"):
        module.get(5)
    with pytest.raises(ValueError, match="class_name"):
        module.get({"class": "L2"})


def test_every_initializer_has_its_snake_name():
    for cls in (v for v in vars(initializers).values() if isinstance(v, type)):
        if issubclass(cls, initializers.Initializer) and cls.__name__[0] != "_":
            if cls is initializers.Initializer:
                continue
            snake = utils.to_snake_case(cls.__name__)
            assert getattr(initializers, snake) is cls
            assert type(initializers.get(snake)) is cls


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "name", ["zeros", "ones", "glorot_uniform", "truncated_normal", "he_normal", "orthogonal"]
)
def test_shape_and_dtype(name, dtype):
    value = initializers.get(name)((3, 4, 5), dtype=dtype)
    assert value.shape == (3, 4, 5) and value.dtype == dtype
    assert initializers.get(name)((3, 4)).dtype == backend.floatx()


@pytest.mark.parametrize(
    ("name", "variance", "bound"),
    [
        ("glorot_uniform", 2 / (9 * 16 + 9 * 32), math.sqrt(3)),
        ("glorot_normal", 2 / (9 * 16 + 9 * 32), 2 / 0.8796),
        ("lecun_uniform", 1 / (9 * 16), math.sqrt(3)),
        ("lecun_normal", 1 / (9 * 16), 2 / 0.8796),
        ("he_uniform", 2 / (9 * 16), math.sqrt(3)),
        ("he_normal", 2 / (9 * 16), 2 / 0.8796),
        ("random_uniform", 0.1**2 / 12, math.sqrt(3)),
        ("truncated_normal", (0.05 * 0.8796) ** 2, 2 / 0.8796),
    ],
)
def test_variance_and_bound(name, variance, bound):
    backend.seed_random_generator(3)
    value = initializers.get(name)((3, 3, 16, 32)).astype(np.float64)
    # The standard error of a variance estimate is below sqrt(2 / n); five of them.
    assert abs(value.var() / variance - 1) < 5 * math.sqrt(2 / value.size)
    assert np.abs(value).max() <= bound * math.sqrt(variance) * 1.0001
    assert np.abs(value).max() > 0.98 * bound * math.sqrt(variance)


def test_seeds():
    seeded = initializers.GlorotUniform(seed=7)
    np.testing.assert_array_equal(seeded((4, 5)), seeded((4, 5)))
    np.testing.assert_array_equal(seeded((4, 5)), initializers.GlorotUniform(seed=7)((4, 5)))
    free = initializers.GlorotUniform()
    assert not np.array_equal(free((4, 5)), free((4, 5)))
    utils.set_random_seed(5)
    first = free((4, 5))
    utils.set_random_seed(5)
    np.testing.assert_array_equal(free((4, 5)), first)


def test_closed_forms():
    np.testing.assert_array_equal(initializers.Constant(2)((2, 2)), np.full((2, 2), 2, np.float32))
    np.testing.assert_array_equal(initializers.Constant([1, 2])((3, 2)), [[1, 2]] * 3)
    np.testing.assert_array_equal(initializers.Identity(3)((2, 3)), [[3, 0, 0], [0, 3, 0]])
    for shape in ((6, 4), (4, 6), (2, 3, 4)):
        q = initializers.Orthogonal(gain=2)(shape).reshape(-1, shape[-1])
        gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: initializers.VarianceScaling(scale=0),
        lambda: initializers.VarianceScaling(mode="fan"),
        lambda: initializers.VarianceScaling(distribution="cauchy"),
        lambda: initializers.Orthogonal()((3,)),
        lambda: initializers.Identity()((3, 3, 3)),
        lambda: initializers.RandomNormal()((3,), dtype="int32"),
    ],
)
def test_initializer_errors(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_regularizers():
    w = Variable(np.array([[1.0, -2.0], [0.5, 0.0]], np.float32))
    for regularizer, value, slope in [
        (regularizers.L1(0.1), 0.35, 0.1 * np.sign(w.numpy())),
        (regularizers.L2(0.1), 0.525, 0.2 * w.numpy()),
        (regularizers.l1_l2(0.1, 0.2), 0.35 + 1.05, 0.1 * np.sign(w.numpy()) + 0.4 * w.numpy()),
    ]:
        with GradientTape() as tape:
            penalty = regularizer(w)
        assert penalty.dtype == np.float32
        np.testing.assert_allclose(penalty, value, rtol=1e-6)
        np.testing.assert_allclose(tape.gradient(penalty, w), slope, rtol=1e-6)


def test_regularizer_defaults():
    assert regularizers.get("l1_l2").get_config() == {"l1": 0.01, "l2": 0.01}
    assert regularizers.get("L1L2").get_config() == {"l1": 0.0, "l2": 0.0}
    assert regularizers.l1(l=0.5).get_config() == {"l1": 0.5}
    assert regularizers.L1L2()(np.ones(3)) == 0
    for bad in ("0.1", math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            regularizers.L2(bad)


def test_constraints():
    w = np.array([[3.0, 0.3], [-4.0, 0.4]], np.float32)
    norms = np.array([5.0, 0.5])
    np.testing.assert_allclose(constraints.MaxNorm(2)(w), w * [0.4, 1], rtol=1e-6)
    np.testing.assert_allclose(constraints.UnitNorm()(w), w / norms, rtol=1e-6)
    np.testing.assert_array_equal(constraints.NonNeg()(w), np.float32([[3, 0.3], [0, 0.4]]))
    scaled = constraints.MinMaxNorm(1, 2, rate=0.5)(w)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=0), [3.5, 0.75], rtol=1e-6)
    variable = Variable(w)
    assert plain(constraints.MaxNorm(2)(variable)).dtype == np.float32


X = [-3.0, -2.5, -1.0, 0.0, 0.5, 2.5, 6.0, 7.0]
# Value, and gradient of the sum of the values times 1, 2, ..., from tf_keras 2.19.
ACTIVATIONS = {
    "relu": ([0, 0, 0, 0, 0.5, 2.5, 6, 7], [0, 0, 0, 0, 5, 6, 7, 8]),
    "elu": (
        [-0.9502130, -0.9179150, -0.6321205, 0, 0.5, 2.5, 6, 7],
        [0.04978704, 0.16417003, 1.1036384, 4, 5, 6, 7, 8],
    ),
    "selu": (
        [-1.6705687, -1.6137857, -1.1113307, 0, 0.5253505, 2.6267526, 6.304206, 7.354907],
        [0.08753061, 0.28862715, 1.9403057, 4.2028041, 5.2535052, 6.3042059, 7.3549070, 8.4056082],
    ),
    "softplus": (
        [0.04858736, 0.07888974, 0.3132617, 0.6931472, 0.9740769, 2.5788898, 6.0024757, 7.0009117],
        [0.04742587, 0.15171634, 0.8068242, 2, 3.1122968, 5.5448509, 6.9826918, 7.9927115],
    ),
    "softsign": (
        [-0.75, -0.7142857, -0.5, 0, 0.3333333, 0.7142857, 0.8571429, 0.875],
        [0.0625, 0.1632653, 0.75, 4, 2.2222223, 0.4897960, 0.1428571, 0.125],
    ),
    "swish": (
        [-0.1422776, -0.1896454, -0.2689414, 0, 0.3112297, 2.3103545, 5.9851642, 6.9936228],
        [-0.0881041, -0.1988022, 0.2169884, 2, 3.6998060, 6.5964069, 7.0862856, 8.0436850],
    ),
    "gelu": (
        [-0.0040497, -0.0155242, -0.1586553, 0, 0.3457312, 2.4844759, 6, 7],
        [-0.0119457, -0.0752222, -0.2499464, 2, 4.3374758, 6.2256665, 7, 8],
    ),
    "sigmoid": (
        [0.0474259, 0.0758582, 0.2689414, 0.5, 0.6224594, 0.9241418, 0.9975274, 0.9990889],
        [0.0451767, 0.1402074, 0.5898358, 1, 1.1750185, 0.4206223, 0.0172657, 0.0072818],
    ),
    "hard_sigmoid": (
        [0, 0, 0.3, 0.5, 0.6, 1, 1, 1],
        [0, 0.4, 0.6, 0.8, 1, 1.2, 0, 0],
    ),
    "tanh": (
        [-0.9950547, -0.9866143, -0.7615942, 0, 0.4621172, 0.9866143, 0.9999878, 0.9999983],
        [0.0098661, 0.0531845, 1.2599230, 4, 3.9322386, 0.1595535, 0.0001702, 0.0000267],
    ),
    "exponential": (
        [0.0497871, 0.0820850, 0.3678795, 1, 1.6487212, 12.182494, 403.42877, 1096.6332],
        [0.0497871, 0.1641700, 1.1036384, 4, 8.2436066, 73.094963, 2824.0015, 8773.0654],
    ),
    "softmax": (
        [
            3.2854e-5,
            5.4167e-5,
            2.42762e-4,
            6.59895e-4,
            1.087983e-3,
            0.0080392,
            0.2662206,
            0.7236626,
        ],
        [
            -2.20453e-4,
            -3.09298e-4,
            -1.143415e-3,
            -2.448230e-3,
            -2.948466e-3,
            -0.0137472,
            -0.1890245,
            0.2098407,
        ],
    ),
}
RELUS = [
    ({"max_value": 6}, [0, 0, 0, 0, 0.5, 2.5, 6, 6], [0, 0, 0, 0, 1, 1, 0, 0]),
    ({"max_value": 2.5}, [0, 0, 0, 0, 0.5, 2.5, 2.5, 2.5], [0, 0, 0, 0, 1, 1, 0, 0]),
    ({"alpha": 0.1}, [-0.3, -0.25, -0.1, 0, 0.5, 2.5, 6, 7], [0.1, 0.1, 0.1, 0.1, 1, 1, 1, 1]),
    (
        {"alpha": 0.1, "max_value": 2.5, "threshold": 0.5},
        [-0.35, -0.3, -0.15, -0.05, 0, 2.5, 2.5, 2.5],
        [0.1, 0.1, 0.1, 0.1, 0, 1, 0, 0],
    ),
    ({"threshold": 0.5}, [0, 0, 0, 0, 0, 2.5, 6, 7], [0, 0, 0, 0, 0, 1, 1, 1]),
    (
        {"alpha": 0.1, "max_value": 6},
        [-0.3, -0.25, -0.1, 0, 0.5, 2.5, 6, 6],
        [0.1, 0.1, 0.1, 0, 1, 1, 0, 0],
    ),
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    value, slope = ACTIVATIONS[name]
    x = Variable(np.array([X], np.float32))
    with GradientTape() as tape:
        y = activations.get(name)(x)
        total = np.sum(y * np.arange(1, 9, dtype=np.float32))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y[0], value, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(total, x)[0], slope, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(("arguments", "value", "slope"), RELUS)
def test_relu(arguments, value, slope):
    x = constant(np.array(X, np.float32))
    with GradientTape() as tape:
        tape.watch(x)
        y = activations.relu(x, **arguments)
    np.testing.assert_allclose(y, value, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, x), slope, rtol=1e-6)


def test_relu_keeps_a_bit_per_element(rng):
    x = Variable(rng.standard_normal(8000).astype(np.float32))
    with GradientTape() as tape:
        y = activations.relu(x * 2.0)
    assert y.shape == x.shape
    assert dict(tape.kept())["relu"] <= 8000 // 8 + 16


def test_extreme_inputs_warn_nowhere():
    x = np.array([-np.inf, -1e4, 1e4, np.inf], np.float32)
    np.testing.assert_array_equal(activations.sigmoid(x), [0, 0, 1, 1])
    np.testing.assert_array_equal(activations.softplus(x), [0, 0, 1e4, np.inf])
    np.testing.assert_array_equal(activations.elu(x), [-1, -1, 1e4, np.inf])
    np.testing.assert_array_equal(activations.softmax(x[1:3]), [0, 1])
    assert np.isnan(activations.relu(np.float32([np.nan])))


def test_activation_registry():
    assert activations.get(None) is activations.linear
    assert activations.serialize(activations.relu) == "relu"
    assert activations.deserialize("relu") is activations.relu
    config = {
        "module": "builtins",
        "class_name": "function",
        "config": "relu",
        "registered_name": "function",
    }
    assert activations.get(config) is activations.relu

    def double(x):
        return 2 * x

    with utils.custom_object_scope({"double": double}):
        assert activations.get("double") is double
    with pytest.raises(ValueError, match="'double'"):
        activations.get("double")
    with pytest.raises(TypeError, match="activation"):
        activations.get(3)
