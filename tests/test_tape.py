"""The tape: what it records, what it refuses, what it keeps, and that the gradients are right."""

import copy
import gc
import operator
import pickle
import threading
import tracemalloc

import numpy as np
import pytest

from bnnlayers.bits import pack_bits
from bnnlayers.tape import (
    GradientTape,
    Readable,
    Tensor,
    Variable,
    constant,
    convert_to_tensor,
    custom_gradient,
    is_traced,
    operation,
    plain,
    read,
    stop_gradient,
)


def numeric(function, args, which, weights):
    """Central differences of sum(weights * function(*args)) with respect to args[which]."""
    args = [np.array(a, np.float64) for a in args]
    x = args[which]
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        before = x[i]
        sides = []
        for step in (1e-6, -1e-6):
            x[i] = before + step
            sides.append(np.sum(weights * np.asarray(function(*args))))
        x[i] = before
        gradient[i] = (sides[0] - sides[1]) / 2e-6
    return gradient


def check_gradients(function, *args):
    """Every gradient of `function` on float64 Tensors against central differences."""
    tensors = [constant(np.array(a, np.float64)) for a in args]
    with GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    expected = function(*[np.array(a, np.float64) for a in args])
    assert type(value) is Tensor
    np.testing.assert_array_equal(value, expected)
    weights = np.cos(np.arange(value.size)).reshape(value.shape)
    for i, gradient in enumerate(tape.gradient(value, tensors, output_gradients=weights)):
        assert type(gradient) is Tensor
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, numeric(function, args, i, weights), rtol=1e-5, atol=1e-7)


# ---- operators ---------------------------------------------------------------------------------

KINDS = {
    "tensor": lambda a: constant(a),
    "variable": lambda a: Variable(a),
    "array": lambda a: a,
    "number": lambda a: 1.5,
    "scalar": lambda a: np.float32(1.5),
}
PAIRS = [(a, b) for a in KINDS for b in KINDS if {a, b} & {"tensor", "variable"}]
SMOOTH = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
STEPS = [operator.floordiv, operator.mod, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("function", SMOOTH + STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_operators_in_both_orders(left, right, function):
    a = np.array([[0.5, 1.5, 2.5]], np.float32)
    b = np.array([[1.5], [3.0]], np.float32)
    x, y = KINDS[left](a), KINDS[right](b)
    expected = function(plain(x) if left != "number" else x, plain(y) if right != "number" else y)
    assert expected.dtype in (np.float32, bool)
    outside = function(x, y)
    with GradientTape() as tape:
        tape.watch([t for t in (x, y) if isinstance(t, Tensor)])
        value = function(x, y)
    for result in (outside, value):
        assert type(result) is Tensor
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)
    if function not in SMOOTH:
        return
    for i, (source, kind) in enumerate(((x, left), (y, right))):
        if kind not in ("tensor", "variable"):
            continue
        with GradientTape() as tape:
            if kind == "tensor":
                tape.watch(source)
            value = function(x, y)
        gradient = tape.gradient(value, source)
        assert gradient.dtype == np.float32
        assert gradient.shape == source.shape
        exact = numeric(function, (plain(x), plain(y)), i, np.ones(value.shape))
        np.testing.assert_allclose(gradient, exact, rtol=1e-5)


@pytest.mark.parametrize("left", ["tensor", "variable", "array"])
@pytest.mark.parametrize("right", ["tensor", "variable", "array"])
def test_matmul_in_both_orders(left, right):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((3, 2), np.float32)
    x, y = KINDS[left](a), KINDS[right](b)
    with GradientTape(persistent=True) as tape:
        tape.watch([t for t in (x, y) if isinstance(t, Tensor)])
        value = x @ y
    np.testing.assert_array_equal(value, a @ b)
    ones = np.ones((2, 2), np.float32)
    if left != "array":
        np.testing.assert_array_equal(tape.gradient(value, x), ones @ b.T)
    if right != "array":
        np.testing.assert_array_equal(tape.gradient(value, y), a.T @ ones)


@pytest.mark.parametrize("kind", ["tensor", "variable"])
def test_unary_operators(kind):
    x = KINDS[kind](np.array([-1.0, 2.0], np.float32))
    with GradientTape() as tape:
        if kind == "tensor":
            tape.watch(x)
        value = -x + abs(x) + (+x)
    np.testing.assert_array_equal(value, [1, 2])
    np.testing.assert_array_equal(tape.gradient(value, x), [-1, 1])


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
def test_an_augmented_assignment_gives_a_new_tensor(name):
    x = constant([2.0, 3.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = x
        y = getattr(operator, f"i{name}")(y, 2.0)
    np.testing.assert_array_equal(x, [2, 3])
    np.testing.assert_array_equal(y, getattr(operator, name)(np.array([2, 3], np.float32), 2.0))
    assert tape.gradient(y, x) is not None


# ---- NumPy functions ---------------------------------------------------------------------------

A = np.array([[0.3, -0.7, 1.2], [0.9, 0.4, -1.6]])
B = np.array([[1.1, 0.2, -0.5], [-0.3, 0.8, 0.6]])
P = np.abs(A) + 0.1
S = np.array([[2.0, 0.3], [0.1, 1.5]])


def names(text):
    return text.split()


UNARY = names("""negative positive absolute abs exp exp2 expm1 sin cos tan arctan sinh cosh tanh arcsinh square
    fabs rad2deg deg2rad degrees radians reciprocal conj conjugate real nan_to_num""")
POSITIVE = names("log log2 log10 log1p sqrt")
BINARY = names("""add subtract multiply divide true_divide maximum minimum fmax fmin logaddexp logaddexp2
    arctan2 hypot""")
REDUCTIONS = names("sum mean max min amax amin prod std var")
OTHERS = {
    "power": (lambda x, y: np.power(x, y), P, B),
    "matmul": (lambda x, y: np.matmul(x, y.T), A, B),
    "dot": (lambda x, y: np.dot(x, y.T), A, B),
    "inner": (lambda x, y: np.inner(x, y), A, B),
    "outer": (lambda x, y: np.outer(x[0], y[0]), A, B),
    "tensordot": (lambda x, y: np.tensordot(x, y, 2), A, B),
    "einsum": (lambda x, y: np.einsum("ij,kj->ik", x, y), A, B),
    "kron": (lambda x, y: np.kron(x, y), A, B),
    "where": (lambda x, y: np.where(x > 0, x * y, y), A, B),
    "where broadcast": (lambda x, y: np.where(B > 0, x, y[0, 0]), A, B),
    "clip": (lambda x: np.clip(x, -1, 0.5), A),
    "clip keywords": (lambda x: np.clip(x, max=0.5), A),
    "reshape": (lambda x: np.reshape(x, (3, 2)), A),
    "ravel": (lambda x: np.ravel(x), A),
    "transpose": (lambda x: np.transpose(x, (1, 0)), A),
    "swapaxes": (lambda x: np.swapaxes(x, 0, 1), A),
    "moveaxis": (lambda x: np.moveaxis(x, 0, 1), A),
    "expand_dims": (lambda x: np.expand_dims(x, 1), A),
    "squeeze": (lambda x: np.squeeze(x[:1], 0), A),
    "broadcast_to": (lambda x: np.broadcast_to(x, (4, 2, 3)), A),
    "astype": (lambda x: np.astype(x, np.float64), A),
    "copy": (lambda x: np.copy(x), A),
    "roll": (lambda x: np.roll(x, 1, 1), A),
    "flipud": (lambda x: np.flipud(x), A),
    "fliplr": (lambda x: np.fliplr(x), A),
    "rot90": (lambda x: np.rot90(x), A),
    "repeat": (lambda x: np.repeat(x, 2, 1), A),
    "tile": (lambda x: np.tile(x, (2, 1)), A),
    "pad": (lambda x: np.pad(x, ((1, 0), (0, 2)), "constant"), A),
    "concatenate": (lambda x, y: np.concatenate([x, y], axis=1), A, B),
    "stack": (lambda x, y: np.stack([x, y], axis=1), A, B),
    "vstack": (lambda x, y: np.vstack([x, y]), A, B),
    "hstack": (lambda x, y: np.hstack([x, y]), A, B),
    "column_stack": (lambda x, y: np.column_stack([x, y]), A, B),
    "append": (lambda x, y: np.append(x, y, axis=0), A, B),
    "split": (lambda x: np.split(x, 3, axis=1)[1], A),
    "array_split": (lambda x: np.concatenate(np.array_split(x, 2, axis=1)[::-1], axis=1), A),
    "cumsum": (lambda x: np.cumsum(x, axis=1), A),
    "diff": (lambda x: np.diff(x, axis=1), A),
    "sort": (lambda x: np.sort(x[0]), A),
    "take by index": (lambda x: x[:, [2, 0, 2]], A),
    "mask": (lambda x: x[B > 0], A),
    "slice": (lambda x: x[::-1, 1:, None], A),
    "diagonal": (lambda x: np.diagonal(x, axis1=-1, axis2=-2), S),
    "diag": (lambda x: np.diag(x), S),
    "trace": (lambda x: np.trace(x), S),
    "tril": (lambda x: np.tril(x), A),
    "triu": (lambda x: np.triu(x), A),
    "atleast_2d": (lambda x: np.atleast_2d(x[0]), A),
    "linalg.norm": (lambda x: np.linalg.norm(x), A),
    "linalg.inv": (lambda x: np.linalg.inv(x), S),
    "linalg.det": (lambda x: np.linalg.det(x), S),
    "linalg.solve": (lambda x, y: np.linalg.solve(x, y), S, B),
    "linalg.cholesky": (lambda x: np.linalg.cholesky(x @ x.T), S),
    "methods": (lambda x: x.reshape(3, 2).T.sum(0).mean() + x.max(1).min() + x.flatten().std() + x.var(), A),
    "more methods": (lambda x, y: x.dot(y.transpose()).ravel().cumsum().squeeze()[1:].prod(), A, B),
    "clip method": (lambda x: x.clip(-1, 1).swapaxes(0, 1).repeat(2, 0).copy(), A),
    "mT": (lambda x: x.mT, A),
    "iteration": (lambda x: [row * 2 for row in x][1], A),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions(name):
    check_gradients(getattr(np, name), A)


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name):
    check_gradients(getattr(np, name), P)


@pytest.mark.parametrize("name", ["arcsin", "arccos", "arctanh"])
def test_functions_of_the_unit_interval(name):
    check_gradients(getattr(np, name), A / 2)


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_and_broadcasting(name):
    check_gradients(getattr(np, name), P, B + 2.05)
    check_gradients(getattr(np, name), P, (B + 2.05)[:, :1])
    check_gradients(getattr(np, name), P[0], B + 2.05)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name, axis, keepdims):
    check_gradients(lambda x: getattr(np, name)(x, axis=axis, keepdims=keepdims), A)


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(name):
    function, *args = OTHERS[name]
    check_gradients(function, *args)


@pytest.mark.parametrize("name", ["where", "maximum", "mean", "var", "max", "std", "sum"])
def test_float32_stays_float32(name):
    x = constant([[0.5, -1.0], [2.0, 3.0]])
    with GradientTape() as tape:
        tape.watch(x)
        y = (
            np.where(x > 0, x, 0.0)
            if name == "where"
            else (np.maximum(x, 0.0) if name == "maximum" else getattr(np, name)(x))
        )
    assert y.dtype == np.float32
    assert tape.gradient(y, x).dtype == np.float32


@pytest.mark.parametrize(
    "function",
    [
        np.sign,
        np.floor,
        np.round,
        np.argmax,
        np.isnan,
        np.zeros_like,
        lambda x: x > 0,
        lambda x: x == 1,
        lambda x: x // 1,
        lambda x: x.astype(int),
        lambda x: np.any(x),
    ],
)
def test_steps_are_constants(function):
    x = constant([0.5, -1.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    assert not is_traced(y)
    np.testing.assert_array_equal(y, function(np.array([0.5, -1.0], np.float32)))
    assert tape.gradient(y, x) is None


# ---- nothing is lost silently ------------------------------------------------------------------

ERF = np.frompyfunc(lambda x: x, 1, 1)
REFUSED = {
    "fmod": lambda x: np.fmod(x, 2.0),
    "float_power": lambda x: np.float_power(x, 2.0),
    "median": lambda x: np.median(x),
    "percentile": lambda x: np.percentile(x, 50),
    "dstack": lambda x: np.dstack([x, x]),
    "block": lambda x: np.block([x, x]),
    "interp": lambda x: np.interp(x, [0.0, 1.0], [0.0, 1.0]),
    "cumprod": lambda x: x.cumprod(),
    "(vectorized)": lambda x: ERF(x),
    "reduce": lambda x: np.add.reduce(x),
    "outer": lambda x: np.add.outer(x, x),
    "where": lambda x: np.sum(x, where=[True, False]),
    "initial": lambda x: np.max(x, initial=0.0),
    "keyword": lambda x: np.sum(a=x),
    "flip": lambda x: np.flip(x),
    "np.add": lambda x: np.add(x, 1.0, where=np.array([True, False])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_without_derivative_is_refused_by_name(name):
    x = constant([0.5, -1.0])
    with GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(NotImplementedError, match=name.replace("(", r"\(").replace(")", r"\)")):
            tape.gradient(REFUSED[name](x), x)


WRITES = {
    "np.add": lambda x, buffer: np.add(buffer, x, out=buffer),
    "np.multiply": lambda x, buffer: np.multiply(buffer, 2, out=x),
    "np.subtract": lambda x, buffer: operator.isub(buffer, x),
    "np.sum": lambda x, buffer: np.sum(x, axis=0, out=buffer[0]),
    "np.copyto": lambda x, buffer: np.copyto(x, buffer),
    "np.put": lambda x, buffer: np.put(x, [0], [1.0]),
    "Tensor": lambda x, buffer: operator.setitem(x, 0, 1.0),
    "sort": lambda x, buffer: x.sort(),
    "fill": lambda x, buffer: x.fill(0),
    "flat": lambda x, buffer: x.flat,
}


@pytest.mark.parametrize("name", WRITES)
def test_writing_in_place_is_refused_by_name(name):
    x, buffer = constant([0.5, -1.0]), np.zeros(2, np.float32)
    with GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(TypeError, match=name):
            WRITES[name](x, buffer)
    np.testing.assert_array_equal(x, [0.5, -1.0])
    np.testing.assert_array_equal(buffer, 0)


def test_an_untraced_tensor_can_be_written():
    x = constant([0.5, -1.0])
    x[0] = constant(2.0)
    np.add(x, 1, out=x)
    np.testing.assert_array_equal(x, [3, 0])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.view(np.int32),
        lambda x: x.view(),
        lambda x: x.imag,
        lambda x: np.lib.stride_tricks.as_strided(x, (1,), subok=True),
        lambda x: x.compress([True, False]),
    ],
)
def test_a_view_that_no_tape_saw_is_refused_by_the_operation_that_meets_it(view):
    x = constant([0.5, -1.0])
    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        lost = view(x * 2)
        with pytest.raises(RuntimeError, match=r"np\.multiply"):
            lost * 2
        with pytest.raises(RuntimeError, match="times"):
            times(lost, lost, alpha=1.0)
        (stop_gradient(lost) * 2).sum()
    with pytest.raises(RuntimeError, match="gradient"):
        tape.gradient(lost, x)
    lost + 1  # no tape, nothing to lose


def test_a_traced_keyword_of_an_operation_is_refused_by_name():
    x = constant([0.5])
    with GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(TypeError, match="times: argument 'alpha'"):
            times(x, x, alpha=x)


def test_wrong_arguments_give_numpys_own_error():
    x = constant([0.5, 1.0])
    with GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(ValueError, match="broadcast"):
            x + np.zeros(3)
        with pytest.raises(ValueError, match="reshape"):
            x.reshape(3)
        with pytest.raises(IndexError):
            x[5]
        y = x * 2
    np.testing.assert_array_equal(tape.gradient(y, x), [2, 2])


# ---- what users write --------------------------------------------------------------------------


def test_a_users_quantizer_activation_and_loss_in_plain_numpy():
    @custom_gradient
    def ste(x):
        return np.where(x < 0, -1.0, 1.0).astype(x.dtype), lambda dy: dy * (np.abs(x) <= 1)

    def activation(x):
        return x / (1 + np.exp(-x))

    def loss(y_true, y_pred):
        return np.mean(np.square(y_true - y_pred), axis=-1)

    x = np.array([[0.5, -2.0], [-0.25, 0.0]], np.float32)
    w = Variable(np.array([[0.5, -0.5], [1.5, 0.25]], np.float32))
    target = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    with GradientTape() as tape:
        result = loss(target, activation(x @ ste(w))).mean()
    assert f"{result:.3f}" == f"{float(result):.3f}"
    q = np.where(w.numpy() < 0, -1.0, 1.0)
    z = x @ q
    s = 1 / (1 + np.exp(-z))
    dz = (2 * (z * s - target) / 4) * (s + z * s * (1 - s))
    expected = (x.T @ dz) * (np.abs(w.numpy()) <= 1)
    gradient = tape.gradient(result, w)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_custom_gradient_several_arguments_and_values():
    @custom_gradient
    def swap(x, y):
        assert not is_traced(x * 2)
        return (y, x), lambda dy0, dy1: (10 * dy1, 100 * dy0)

    x, y = constant([1.0]), Variable([2.0])
    with GradientTape() as tape:
        tape.watch(x)
        a, b = swap(x, y)
        z = 2 * a + 3 * b
    np.testing.assert_array_equal(z, [7])
    dx, dy = tape.gradient(z, [x, y])
    np.testing.assert_array_equal(dx, [30])
    np.testing.assert_array_equal(dy, [200])


def test_custom_gradient_that_reads_variables():
    w = Variable([2.0, 3.0])

    @custom_gradient
    def scaled(x):
        def gradient(dy, variables):
            assert variables == [w]
            return dy * w, [dy * x * 7]

        return x * w, gradient

    @custom_gradient
    def forgetful(x):
        return x * w, lambda dy: dy

    x = constant([1.0, 1.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = scaled(x)
    dx, dw = tape.gradient(y, [x, w])
    np.testing.assert_array_equal(dx, [2, 3])
    np.testing.assert_array_equal(dw, [7, 7])
    with GradientTape(), pytest.raises(TypeError, match="forgetful"):
        forgetful(x)
    np.testing.assert_array_equal(forgetful(x), [2, 3])


def test_custom_gradient_of_the_wrong_kind():
    wrong = custom_gradient(lambda x: (x * 1, lambda dy: (dy, dy)))
    shape = custom_gradient(lambda x: (x * 1, lambda dy: dy[:1]))
    x = constant([1.0, 2.0])
    for function in (wrong, shape):
        with GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        with pytest.raises(ValueError, match="<lambda>"):
            tape.gradient(y, x)


# ---- Tensor ------------------------------------------------------------------------------------


def test_tensor_is_an_array_and_0d_where_numpy_has_scalars():
    x = constant([[1.0, 2.0], [3.0, 4.0]])
    for result in (x.sum(), np.mean(x), x[0, 0], x.max(), np.argmax(x), (x > 0).all(), np.float32(2) * x[0, 1]):
        assert type(result) is Tensor
        assert result.shape == ()
    assert isinstance(x, np.ndarray)
    assert type(np.asarray(x)) is np.ndarray
    assert bool(x[0, 0] == 1)
    assert int(x[0, 1]) == 2
    assert "abc"[constant(1)] == "b"
    assert f"{x.mean():.2f}" == "2.50"
    assert repr(constant(1.0)) == "Tensor(1., dtype=float32)"
    assert len(x) == 2
    with pytest.raises(TypeError):
        hash(x)


def test_numpy_gives_a_plain_copy():
    x = constant([1.0, 2.0])
    y = x.numpy()
    assert type(y) is np.ndarray
    y[0] = 5
    assert x[0] == 1
    assert isinstance(constant(1.0).numpy(), np.float32)


def test_pickle_and_copies_are_untraced():
    x = constant([1.0, 2.0])
    with GradientTape() as tape:
        tape.watch(x)
        for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            assert type(y) is Tensor
            assert not is_traced(y * 2)
            np.testing.assert_array_equal(x, y)
        assert is_traced(copy.copy(x))


def test_constant_and_convert_to_tensor():
    array = np.ones(3)
    assert constant(1.0).dtype == np.float32
    assert constant([1, 2]).dtype == np.int32
    assert constant(array).dtype == np.float64
    assert constant([np.float64(1)]).dtype == np.float64
    assert constant(True).dtype == bool
    assert constant(2, shape=(2, 3)).shape == (2, 3)
    assert constant([1, 2], "float64").dtype == np.float64
    array_tensor = constant(array)
    array[0] = 7
    assert array_tensor[0] == 1
    x = constant([1.0])
    assert convert_to_tensor(x) is x
    assert convert_to_tensor(Variable([1.0])).dtype == np.float32
    with GradientTape() as tape:
        tape.watch(x)
        y = convert_to_tensor([x, [2.0]])
        z = convert_to_tensor(x, np.float64)
    assert y.shape == (2, 1)
    assert z.dtype == np.float64
    np.testing.assert_array_equal(tape.gradient([y, z], x), [2])


def test_stop_gradient():
    x = constant([3.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = x * stop_gradient(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [3])


# ---- Variable ----------------------------------------------------------------------------------


def test_variable_attributes():
    v = Variable([[1.0, 2.0]], name="kernel", constraint=abs)
    assert v.name == "kernel:0"
    assert Variable(1.0, name="a/b:0").name == "a/b:0"
    assert v.shape == (1, 2)
    assert v.dtype == np.float32
    assert v.ndim == 2
    assert v.size == 2
    assert v.trainable
    assert v.constraint is abs
    assert v.version == 0
    assert len(v) == 1
    assert v[0, 1] == 2
    assert type(v.value()) is Tensor
    assert type(v.numpy()) is np.ndarray
    assert "kernel:0" in repr(v)
    assert f"{Variable(1.5):.2f}" == "1.50"
    assert float(Variable(1.5)) == 1.5
    assert [float(x) for x in Variable([1.0, 2.0])] == [1, 2]
    assert {v: 1}[v] == 1
    assert Variable(lambda: np.ones(2)).shape == (2,)


def test_assign():
    v = Variable(np.zeros((2, 2), np.float32), name="w")
    assert v.assign(np.ones((2, 2))) is v
    v.assign_add(Variable(np.ones((2, 2))))
    v.assign_sub([[1, 0], [0, 1]])
    np.testing.assert_array_equal(v, [[1, 2], [2, 1]])
    assert v.version == 3
    assert v.dtype == np.float32


@pytest.mark.parametrize("method", ["assign", "assign_add", "assign_sub"])
@pytest.mark.parametrize(
    ("value", "error"), [(np.ones(3), ValueError), (1.0, ValueError), ([1j, 1j], TypeError), (["a", "b"], TypeError)]
)
def test_a_failed_assignment_changes_nothing(method, value, error):
    v = Variable([1.0, 2.0], name="w")
    with pytest.raises(error, match="w:0"):
        getattr(v, method)(value)
    np.testing.assert_array_equal(v, [1, 2])
    assert v.version == 0


def test_a_variable_leaves_its_memory_to_nobody():
    v = Variable([1.0, 2.0])
    for read_only in (v.value(), np.asarray(v), plain(v), v[1:], v.value().T, np.asarray(v.value()[::-1])):
        assert not read_only.flags.writeable
    for own in (v.numpy(), np.array(v)):
        own[0] = 9
    with pytest.raises(TypeError, match="assign_add"):
        v += 1
    with pytest.raises(TypeError, match="assign"):
        np.add(v, 1, out=v)
    np.testing.assert_array_equal(v, [1, 2])


def test_what_was_read_keeps_its_value():
    v = Variable([1.0, 2.0])
    kept = [v.value(), np.asarray(v), v[::-1][1:], plain(v).reshape(2, 1), memoryview(np.asarray(v))]
    v.assign([5.0, 6.0])
    v.assign_add([1.0, 1.0])
    np.testing.assert_array_equal(kept[0], [1, 2])
    np.testing.assert_array_equal(kept[1], [1, 2])
    np.testing.assert_array_equal(kept[2], [1])
    np.testing.assert_array_equal(kept[3], [[1], [2]])
    np.testing.assert_array_equal(kept[4], [1, 2])
    np.testing.assert_array_equal(v, [6, 7])
    v.assign(v[::-1])
    np.testing.assert_array_equal(v, [7, 6])


def test_an_update_is_in_place_if_nobody_reads():
    v = Variable(np.zeros(4))
    where = plain(v).ctypes.data
    v.assign_add(np.ones(4))
    with GradientTape() as tape:
        y = (v * v).sum()
    v.assign_sub(tape.gradient(y, v))
    assert plain(v).ctypes.data == where
    reader = v[1:]
    v.assign_add(np.ones(4))
    assert plain(v).ctypes.data != where
    np.testing.assert_array_equal(reader, -1)


def test_variables_can_be_copied_and_pickled():
    v = Variable([1.0, 2.0], name="w", trainable=False)
    for other in (copy.deepcopy(v), pickle.loads(pickle.dumps(v)), copy.copy(v)):
        other.assign([3.0, 4.0])
        assert other.name == "w:0"
        assert not other.trainable
    np.testing.assert_array_equal(v, [1, 2])


def test_an_update_inside_the_tape_does_not_corrupt_gradients():
    weight, average = Variable([2.0, 3.0]), Variable([4.0, 5.0], trainable=False)
    x = constant([1.0, 1.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = x * average * weight
        average.assign([0.0, 0.0])
        weight.assign([7.0, 7.0])
        z = y + x * weight * times(average, x, alpha=1.0)
    dx, dw, da = tape.gradient(z, [x, weight, average])
    np.testing.assert_array_equal(dx, [8, 15])
    np.testing.assert_array_equal(dw, [4, 5])
    assert da is None


def test_a_readable_reads_before_dispatch():
    class Doubled(Readable):
        def __init__(self, source):
            self._source_ = source

        def _read_(self):
            return read(self._source_) * 2

    v = Variable([1.0, 2.0])
    d = Doubled(v)
    with GradientTape() as tape:
        y = np.sum(3 * d + np.concatenate([d, [0.0, 0.0]])[:2]) + times(d, d, alpha=1.0).sum()
    assert y == 44
    np.testing.assert_array_equal(tape.gradient(y, d), [2 * 4 + 8, 2 * 4 + 16])
    np.testing.assert_array_equal(np.asarray(d), [2, 4])
    assert d.shape == (2,)


def test_a_subclass_may_read_something_else():
    class Signed(Variable):
        def _read_(self):
            return np.where(super()._read_() < 0, -1.0, 1.0) * super()._read_()

    v = Signed([-2.0, 3.0])
    with GradientTape() as tape:
        y = v * 1.0
    np.testing.assert_array_equal(y, [2, 3])
    np.testing.assert_array_equal(tape.gradient(y, v), [-1, 1])
    np.testing.assert_array_equal(v.numpy(), [-2, 3])


# ---- GradientTape ------------------------------------------------------------------------------


def test_structures_of_sources_and_targets():
    x, v = constant([1.0, 2.0]), Variable(3.0)
    with GradientTape(persistent=True) as tape:
        tape.watch({"x": [x]})
        y, z = x * v, x + 1
    found = tape.gradient({"a": y, "b": [z]}, {"x": x, "rest": (v, [x])})
    np.testing.assert_array_equal(found["x"], [4, 4])
    np.testing.assert_array_equal(found["rest"][0], 3)
    assert isinstance(found["rest"], tuple)
    np.testing.assert_array_equal(found["rest"][1][0], [4, 4])
    weighted = tape.gradient([y, z], x, output_gradients=[constant([1.0, 10.0]), np.array([2, 3])])
    np.testing.assert_array_equal(weighted, [5, 33])
    np.testing.assert_array_equal(tape.gradient(y, y), [1, 1])
    np.testing.assert_array_equal(tape.gradient(v, v), 1)
    assert tape.watched_variables() == (v,)


def test_unconnected():
    x, v = constant([1.0, 2.0]), Variable(3.0)
    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * 2
    assert tape.gradient(y, v) is None
    assert tape.gradient(constant(1.0), [x]) == [None]
    zero = tape.gradient(y, v, unconnected_gradients="zero")
    assert type(zero) is Tensor
    assert zero == 0
    with pytest.raises(ValueError, match="unconnected_gradients"):
        tape.gradient(y, v, unconnected_gradients="nothing")


def test_a_tape_can_be_asked_once_unless_persistent():
    x = constant([1.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = x * x
    np.testing.assert_array_equal(tape.gradient(y, x), [2])
    with pytest.raises(RuntimeError, match="once"):
        tape.gradient(y, x)
    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * x
        np.testing.assert_array_equal(tape.gradient(y, x), [2])
        z = y * x
    np.testing.assert_array_equal(tape.gradient(z, x), [3])
    np.testing.assert_array_equal(tape.gradient(z, [y, x])[0], [1])


def test_bad_arguments_leave_the_tape_as_it_was():
    x = constant([1.0, 2.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = x * x
        for plain_value in (np.ones(2), 1.0):
            with pytest.raises(ValueError, match="constant"):
                tape.watch(plain_value)
        with pytest.raises(TypeError, match="int32"):
            tape.watch(constant([1, 2]))
        with pytest.raises(ValueError, match="already"):
            tape.__enter__()
    for bad in (
        {"sources": np.ones(2)},
        {"sources": x, "output_gradients": np.ones(3)},
        {"sources": x, "output_gradients": [1, 2, 3]},
        {"sources": x, "unconnected_gradients": 1},
    ):
        with pytest.raises((TypeError, ValueError), match=r"GradientTape\.gradient"):
            tape.gradient(y, **bad)
    np.testing.assert_array_equal(tape.gradient(y, x), [2, 4])


def test_only_what_is_watched_inside_the_tape():
    x, v, frozen = constant([1.0]), Variable([2.0]), Variable([3.0], trainable=False)
    before = x * v
    with GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        assert not is_traced(v)
        tape.watch(frozen)
        y = x * v * frozen * before
    after = y * frozen
    assert not is_traced(after)
    assert tape.gradient(after, frozen) is None
    assert tape.gradient(y, [x, v]) == [None, None]
    np.testing.assert_array_equal(tape.gradient(y, frozen), [4])


def test_a_later_tape_knows_nothing_of_an_earlier_one():
    x = constant([1.0])
    with GradientTape(persistent=True) as first:
        first.watch(x)
        y = x * 2
    with GradientTape(persistent=True) as second:
        assert not is_traced(y)
        z = y * 3
        second.watch(y)
        w = y * 4
    assert second.gradient(z, y) is None
    np.testing.assert_array_equal(second.gradient(w, y), [4])
    assert second.gradient(w, x) is None
    np.testing.assert_array_equal(first.gradient(y, x), [2])


def test_stop_recording_and_reset():
    x = constant([1.0])
    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        with tape.stop_recording():
            hidden = x * 5
        y = x * 2 + hidden
        np.testing.assert_array_equal(tape.gradient(y, x), [2])
        tape.reset()
        assert tape.gradient(y, x) is None
        tape.watch(x)
        y = x * 3
    np.testing.assert_array_equal(tape.gradient(y, x), [3])
    with pytest.raises(RuntimeError, match="stop_recording"), tape.stop_recording():
        pass


def test_nested_tapes_over_smooth_functions():
    x = constant(np.array([0.5, 1.5, 2.0]))
    with GradientTape() as outer:
        outer.watch(x)
        with GradientTape() as inner:
            inner.watch(x)
            y = (np.tanh(x[::-1]) * np.where(x > 1, x**3, x) + x.reshape(3, 1).sum()).sum()
        first = inner.gradient(y, x)
    second = outer.gradient(first, x)

    def gradient(v):
        t = np.tanh(v[::-1])
        own = np.where(v > 1, 3 * v**2, 1)
        return t * own + (1 - np.tanh(v) ** 2) * np.where(v > 1, v**3, v)[::-1] + 3

    np.testing.assert_allclose(first, gradient(plain(x)), rtol=1e-12)
    np.testing.assert_allclose(second, numeric(gradient, [plain(x)], 0, np.ones(3)), rtol=1e-6)


def test_second_derivatives_of_variables():
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = (v**3).sum()
        first = inner.gradient(y, v)
    np.testing.assert_allclose(outer.gradient(first, v), [6, 12])


def test_nested_tapes_over_a_function_with_several_values():
    x = constant(np.array([1.0, 2.0, 3.0, 4.0]))
    with GradientTape() as outer:
        outer.watch(x)
        with GradientTape() as inner:
            inner.watch(x)
            a, b = np.split(x**2, 2)
            y = (a * b).sum()
        first = inner.gradient(y, x)
    np.testing.assert_allclose(first, [18, 64, 6, 32])
    np.testing.assert_allclose(outer.gradient(first, x), [18 + 12, 32 + 32, 2 + 12, 8 + 32])


def test_an_operation_without_second_derivative_says_so_only_if_asked():
    x = constant([1.0, 2.0])
    with GradientTape(persistent=True) as outer:
        outer.watch(x)
        with GradientTape() as inner:
            inner.watch(x)
            y = times(x, x, alpha=2.0)
        first = inner.gradient(y, x)
    np.testing.assert_array_equal(first, [4, 8])
    np.testing.assert_array_equal(outer.gradient(y, x), [4, 8])
    with pytest.raises(NotImplementedError, match="times"):
        outer.gradient(first, x)


def test_errors_leave_the_thread_without_a_tape():
    x = constant([1.0])
    with pytest.raises(ZeroDivisionError), GradientTape() as tape:
        tape.watch(x)
        _ = x * 2
        raise ZeroDivisionError
    assert not is_traced(x)

    @operation
    def fails(x, *, forward):
        if forward:
            raise ArithmeticError("forward")
        return x * 1, None

    @fails.backward
    def fails(residual, dy, needed):
        raise ArithmeticError("backward")

    @custom_gradient
    def custom(x):
        raise ArithmeticError("custom")

    with GradientTape(persistent=True) as tape:
        tape.watch(x)
        with pytest.raises(ArithmeticError):
            fails(x, forward=True)
        with pytest.raises(ArithmeticError):
            custom(x)
        y, z = fails(x, forward=False), x * 3
        with pytest.raises(ArithmeticError):
            tape.gradient(y, x)
        assert is_traced(x)
    np.testing.assert_array_equal(tape.gradient(z, x), [3])
    assert not is_traced(x)


def test_threads_have_their_own_tapes():
    shared, v, errors = constant(np.arange(4.0)), Variable(np.arange(4.0)), []

    def work(factor):
        try:
            for _ in range(30):
                assert not is_traced(shared)
                with GradientTape() as tape:
                    tape.watch(shared)
                    y = np.tanh(shared * factor) * v + times(shared, v, alpha=factor)
                dx, dv = tape.gradient(y, [shared, v])
                t = np.tanh(np.arange(4.0) * factor)
                np.testing.assert_allclose(dv, t + np.arange(4.0) * factor)
                np.testing.assert_allclose(dx, ((1 - t**2) * factor + factor) * np.arange(4.0))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f,)) for f in (0.5, 1.0, 2.0)]
    with GradientTape() as mine:
        mine.watch(shared)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        y = shared * 2
    assert not errors
    np.testing.assert_array_equal(mine.gradient(y, shared), [2, 2, 2, 2])


# ---- operations --------------------------------------------------------------------------------


@operation
def times(x, w, *, alpha, traced):
    """The product."""
    assert type(x) is np.ndarray or not isinstance(x, np.ndarray)
    times.seen = traced
    return alpha * x * w, (x, w, alpha)


@times.backward
def times(residual, dy, needed):
    x, w, alpha = residual
    assert type(dy) is np.ndarray
    times.needed = needed
    return (alpha * dy * w if needed[0] else None, alpha * dy * x if needed[1] else None)


def test_an_operation_and_its_signature():
    assert str(times.__signature__) == "(x, w, *, alpha)"
    assert times.__doc__ == "The product."
    x, v = constant([1.0, 2.0]), Variable([[3.0], [4.0]])
    assert type(times(x, v, alpha=2.0)) is Tensor
    assert times.seen == (False, False)
    with GradientTape() as tape:
        y = times(x, v, alpha=constant(2.0))
        assert times.seen == (False, True)
    gradient = tape.gradient(y, v)
    assert times.needed == (False, True)
    np.testing.assert_array_equal(gradient, [[6], [6]])


def test_gradients_are_summed_over_broadcast_axes_and_cast():
    x, w = constant(np.ones((2, 3, 4), np.float32)), constant(np.full((3, 1), 2.0))
    with GradientTape() as tape:
        tape.watch([x, w])
        y = times(x, w, alpha=1.0)
    dx, dw = tape.gradient(y, [x, w])
    assert (dx.dtype, dx.shape) == (np.float32, (2, 3, 4))
    assert (dw.dtype, dw.shape) == (np.float64, (3, 1))
    np.testing.assert_array_equal(dw, 8)


def test_only_what_leads_to_a_source_is_computed():
    x, v = constant([1.0]), Variable([2.0])
    with GradientTape() as tape:
        tape.watch(x)
        y = times(x, v, alpha=1.0)
    tape.gradient(y, v)
    assert times.needed == (False, True)


def test_an_operation_without_backward_is_refused_by_name():
    @operation
    def silent(x):
        return x * 1, None

    x = constant([1.0])
    np.testing.assert_array_equal(silent(x), [1])
    with GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(NotImplementedError, match="silent"):
            silent(x)


def test_an_operation_with_several_values():
    @operation
    def parts(x):
        return (x * 2, x * 3, np.arange(2)), None

    @parts.backward
    def parts(residual, dy, needed):
        return (2 * dy[0] + 3 * dy[1],)

    x = constant([1.0, 2.0])
    with GradientTape() as tape:
        tape.watch(x)
        a, b, c = parts(x)
        assert not is_traced(c)
        y = b * 10 + b
    np.testing.assert_array_equal(a, [2, 4])
    np.testing.assert_array_equal(tape.gradient(y, x), [33, 33])


@operation
def encode(x):
    return pack_bits(x), np.abs(x) <= 1


@encode.backward
def encode(mask, dy, needed):
    assert dy.shape == mask.shape
    return (dy * mask,)


@operation(recompute=True)
def product(x, w):
    """Bits by bits; counts how often it runs."""
    product.runs += 1
    return x.numpy() @ w.numpy().T, (x, w)


@product.backward
def product(residual, dy, needed):
    x, w = residual
    return (dy @ w.numpy() if needed[0] else None, dy.T @ x.numpy() if needed[1] else None)


product.runs = 0


def positive(recompute):
    @operation(recompute=recompute)
    def positive(x):
        return np.maximum(x, 0), x > 0

    @positive.backward
    def positive(mask, dy, needed):
        return (dy * mask,)

    return positive


def scaled(recompute):
    @operation(recompute=recompute)
    def scaled(x, w):
        return x * w, (x, w)

    @scaled.backward
    def scaled(residual, dy, needed):
        x, w = residual
        return dy * w, dy * x

    return scaled


def network(recompute, tape_kind=None):
    """Products of bits, each followed by what reads its float output."""
    product.runs = 0
    relu, scale = positive(recompute), scaled(recompute)
    float_product = product if recompute else operation(product._forward).backward(product._backward)
    rng = np.random.default_rng(5)
    x = constant(rng.standard_normal((8, 40)).astype(np.float32))
    kernels = [Variable(rng.standard_normal((40, 40)).astype(np.float32)) for _ in range(3)]
    gains = [Variable(rng.standard_normal(40).astype(np.float32)) for _ in range(3)]
    with GradientTape() as tape:
        tape.watch(x)
        y = x
        for kernel, gain in zip(kernels, gains, strict=True):
            y = float_product(encode(y), encode(kernel))
            y = scale(scale(relu(y), gain), gain)
        loss = scale(y, constant(rng.standard_normal(40).astype(np.float32)))
    return tape, loss, [x, *kernels, *gains]


def test_an_encoding_carries_the_node():
    x = constant([[0.5, -2.0], [-0.1, 3.0]])
    with GradientTape() as tape:
        tape.watch(x)
        bits = encode(x)
        assert is_traced(bits)
        y = product(bits, pack_bits(np.ones((1, 2))))
        with pytest.raises(NotImplementedError, match="BitArray"):
            np.concatenate([x, bits])
    np.testing.assert_array_equal(y, [[0], [0]])
    np.testing.assert_array_equal(tape.gradient(y, x), [[1, 0], [1, 0]])


@pytest.fixture
def nothing_is_few(monkeypatch):
    monkeypatch.setattr("bnnlayers.tape.again._ROW", 0)


def test_recomputation_gives_the_same_bits_and_keeps_less(nothing_is_few):
    tape, loss, sources = network(False)
    kept = tape.kept()
    expected = tape.gradient(loss, sources)
    tape, same, sources = network(True)
    assert product.runs == 3
    less = tape.kept()
    gradients = tape.gradient(same, sources)
    assert product.runs == 6, "each product runs again once, however many read it"
    np.testing.assert_array_equal(loss, same)
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [name for name, _ in kept] == [name for name, _ in less]
    floats = 8 * 40 * 4
    assert sum(n for _, n in kept) - sum(n for _, n in less) == 7 * floats
    assert all(n < floats for name, n in less if name == "scaled")


def test_recomputation_sees_the_weights_of_its_time(nothing_is_few):
    tape, loss, sources = network(True)
    expected = tape.gradient(loss, sources)
    tape, loss, sources = network(True)
    for variable in sources[1:]:
        variable.assign(variable * 0)
    for a, b in zip(tape.gradient(loss, sources), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_array_is_kept_where_it_cannot_be_computed_again(nothing_is_few):
    scale = scaled(True)
    x = constant(np.ones(100, np.float32))
    with GradientTape() as tape:
        tape.watch(x)
        y = scale(scale(x, np.ones(100, np.float32)), Variable(np.ones(100)))
    assert [n for _, n in tape.kept()] == [800, 0], "what the first keeps gives the second its argument"
    np.testing.assert_array_equal(tape.gradient(y, x), 1)


@pytest.mark.parametrize("persistent", [False, True])
def test_what_is_asked_for_again_is_not_written_over(persistent):
    @operation
    def square(x):
        return x * x, (x.copy(),)

    @square.backward
    def square(residual, dy, needed, spare):
        return (np.multiply(residual[0], 2 * dy, out=spare.same(residual[0])),)

    x = constant(np.arange(5, dtype=np.float32))
    with GradientTape(persistent) as one, GradientTape() as other:
        one.watch(x)
        other.watch(x)
        y = square(x)
    for tape in (one, one, other) if persistent else (one, other):
        np.testing.assert_array_equal(tape.gradient(y, x), 2 * x)


def test_a_buffer_counts_once_and_a_variables_never():
    x, v = constant(np.ones(100, np.float32)), Variable(np.ones(100, np.float32))
    with GradientTape() as tape:
        tape.watch(x)
        y = times(x, v, alpha=1.0)
        z = times(x[::2], v[::2], alpha=1.0), x * v
    assert tape.kept()[0] == ("times", 400)
    assert sum(n for _, n in tape.kept()) == 400
    del y, z
    assert tape.kept() == []


# ---- memory ------------------------------------------------------------------------------------


def step(v, kept):
    x = constant(np.ones((50, 100), np.float32))
    with GradientTape() as tape:
        tape.watch(x)
        loss = np.mean(np.tanh(times(x, v, alpha=2.0)) * v)
    kept.append((loss, tape.gradient(loss, v).sum()))


def test_kept_losses_keep_no_graph():
    v, kept = Variable(np.ones(100, np.float32)), []
    step(v, kept)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        step(v, kept)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            step(v, kept)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    # A loss and a gradient are two small Tensors with one freed node; an activation has 20,000 bytes.
    assert grown / 200 < 3000
    assert all(loss._node.residual is None and not loss._node.parents for loss, _ in kept)


def test_a_tape_that_is_dropped_frees_its_graph():
    v = Variable(np.ones(10))
    for persistent in (False, True):
        with GradientTape(persistent) as tape:
            loss = (np.tanh(v) * v).sum()
        assert loss._node.residual is not None
        del tape
        assert loss._node.residual is None


def test_what_nobody_holds_is_freed_before_the_walk():
    x = constant(np.ones(1000))
    with GradientTape() as tape:
        tape.watch(x)
        np.tanh(x)
        y = x * 2
    assert [name for name, _ in tape.kept()] == ["np.multiply"]
    np.testing.assert_array_equal(tape.gradient(y, x), 2)
