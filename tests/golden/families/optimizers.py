"""Twenty steps of every optimizer over three variables with given gradients, and the schedules."""

import larq as lq
import numpy as np
import tensorflow as tf
from archive import resolve

from .quantizers import obj
from .registry import family, generator

keras = tf.keras

SCHEDULES = {
    "exponential": obj("ExponentialDecay", initial_learning_rate=0.1, decay_steps=5, decay_rate=0.6),
    "exponential_staircase": obj(
        "ExponentialDecay",
        initial_learning_rate=0.1,
        decay_steps=4,
        decay_rate=0.5,
        staircase=True,
    ),
    "piecewise": obj("PiecewiseConstantDecay", boundaries=[3, 11], values=[0.1, 0.03, 0.002]),
    "polynomial": obj("PolynomialDecay", initial_learning_rate=0.1, decay_steps=12, power=2.0),
    "polynomial_cycle": obj(
        "PolynomialDecay",
        initial_learning_rate=0.1,
        decay_steps=7,
        end_learning_rate=0.01,
        cycle=True,
    ),
    "inverse_time": obj("InverseTimeDecay", initial_learning_rate=0.1, decay_steps=3, decay_rate=0.5),
    "inverse_time_staircase": obj(
        "InverseTimeDecay",
        initial_learning_rate=0.1,
        decay_steps=3,
        decay_rate=0.5,
        staircase=True,
    ),
    "cosine": obj("CosineDecay", initial_learning_rate=0.1, decay_steps=15, alpha=0.1),
    "cosine_warmup": obj(
        "CosineDecay",
        initial_learning_rate=0.0,
        decay_steps=12,
        warmup_target=0.1,
        warmup_steps=5,
    ),
    "cosine_restarts": obj(
        "CosineDecayRestarts",
        initial_learning_rate=0.1,
        first_decay_steps=4,
        t_mul=2.0,
        m_mul=0.8,
        alpha=0.05,
    ),
}


def spec(optimizer, legacy=False, **kwargs):
    return {"optimizer": optimizer, "legacy": legacy, "kwargs": kwargs}


BOTH = {
    "adam": spec("Adam"),
    "adam_fast": spec("Adam", learning_rate=0.05),
    "adam_betas": spec("Adam", learning_rate=0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-3),
    "adam_amsgrad": spec("Adam", learning_rate=0.05, amsgrad=True),
    "adam_clipnorm": spec("Adam", learning_rate=0.05, clipnorm=0.5),
    "adam_clipvalue": spec("Adam", learning_rate=0.05, clipvalue=0.1),
    "adam_global_clipnorm": spec("Adam", learning_rate=0.05, global_clipnorm=1.0),
    "sgd": spec("SGD"),
    "sgd_fast": spec("SGD", learning_rate=0.3),
    "sgd_momentum": spec("SGD", learning_rate=0.05, momentum=0.9),
    "sgd_nesterov": spec("SGD", learning_rate=0.05, momentum=0.9, nesterov=True),
    "sgd_clipnorm": spec("SGD", learning_rate=0.1, clipnorm=1.0),
    "sgd_clipvalue": spec("SGD", learning_rate=0.1, clipvalue=0.2),
    "rmsprop": spec("RMSprop", learning_rate=0.01),
    "rmsprop_momentum": spec("RMSprop", learning_rate=0.01, rho=0.8, momentum=0.5, epsilon=1e-4),
    "rmsprop_centered": spec("RMSprop", learning_rate=0.01, centered=True),
    "rmsprop_centered_momentum": spec("RMSprop", learning_rate=0.01, centered=True, momentum=0.9),
} | {f"sgd_{name}": spec("SGD", learning_rate=schedule) for name, schedule in SCHEDULES.items()}

# Only the legacy classes know `lr=`: tf_keras's newer ones warn, and then ignore it.
LEGACY = {
    "adam_lr": spec("Adam", lr=0.05),
    "sgd_lr": spec("SGD", lr=0.3),
    "adam_decay": spec("Adam", lr=0.05, decay=0.1),
    "sgd_decay": spec("SGD", lr=0.1, decay=0.05, momentum=0.9),
    "rmsprop_decay": spec("RMSprop", lr=0.01, decay=0.1),
}

ADAM = spec("Adam", legacy=True, learning_rate=0.02)
BOPS = {
    "bop": spec("Bop"),
    "bop_flips": spec("Bop", threshold=0.02, gamma=0.1),
    "bop_schedule": spec("Bop", threshold=0.05, gamma=SCHEDULES["polynomial"]),
    "bop_zero_threshold": spec("Bop", threshold=0.0, gamma=1.0),
}


def make(description):
    optimizers = keras.optimizers.legacy if description["legacy"] else keras.optimizers
    if description["optimizer"] == "Bop":
        optimizers = lq.optimizers
    kwargs = {name: resolve(value, keras.optimizers.schedules) for name, value in description["kwargs"].items()}
    return getattr(optimizers, description["optimizer"])(**kwargs)


STEPS = 20
SHAPES = {"kernel": (3, 4), "bias": (4,), "filter": (2, 2, 3)}


def problem():
    """Initial values and gradients, with zero, tiny and huge ones among them."""
    rng = generator("optimizers")
    start = {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
    start["kernel"].flat[:4] = [1, -1, 0.3, 0.0]
    slopes = {}
    for name, shape in SHAPES.items():
        slope = rng.normal(size=(STEPS, *shape)) + 0.3 * rng.normal(size=shape)
        slope *= rng.random(slope.shape) < 0.9
        slope[:, ..., 0] *= 1e-9
        slope[3, ..., 1] = 1e3
        slopes[name] = slope.astype(np.float32)
    return start, slopes


def trajectory(optimizer, constraint=None, changes=()):
    start, slopes = problem()
    variables = [
        tf.Variable(value, name=name, constraint=constraint if name == "kernel" else None)
        for name, value in start.items()
    ]
    path = {name: [] for name in SHAPES}
    for step in range(STEPS):
        if step in dict(changes):
            optimizer.learning_rate = dict(changes)[step]
        gradients = [tf.constant(slopes[name][step]) for name in SHAPES]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for name, variable in zip(SHAPES, variables, strict=True):
            path[name].append(variable.numpy())
    arrays = {f"start/{name}": value for name, value in start.items()}
    arrays |= {f"gradient/{name}": value for name, value in slopes.items()}
    return arrays | {f"value/{name}": np.stack(values) for name, values in path.items()}


@family
def optimizers():
    legacy = {f"legacy_{name}": {**s, "legacy": True} for name, s in (BOTH | LEGACY).items()}
    for name, description in (BOTH | legacy | BOPS).items():
        keras.backend.clear_session()
        yield {"id": name, **description}, trajectory(make(description))

    for name, description in {"adam": BOTH["adam_fast"], "sgd": BOTH["sgd_momentum"]}.items():
        clip = lq.constraints.WeightClip(0.9)
        yield (
            {"id": f"{name}_constraint", **description, "weight_clip": 0.9},
            trajectory(make(description), constraint=clip),
        )
        changes = {7: 0.001, 13: 0.2}
        yield (
            {"id": f"{name}_changed", **description, "changes": list(changes.items())},
            trajectory(make(description), changes=changes.items()),
        )


@family
def case_optimizers():
    sgd = spec("SGD", legacy=True, learning_rate=0.1)
    for name, by_rank, default in [
        ("bop_adam", {2: BOPS["bop_flips"]}, ADAM),
        ("bop_sgd_adam", {2: BOPS["bop_flips"], 1: sgd}, ADAM),
        ("no_default", {2: BOPS["bop_flips"], 1: sgd}, None),
    ]:
        # A predicate sees the variable; these claim it by its rank.
        pairs = [(lambda v, rank=rank: v.shape.rank == rank, make(s)) for rank, s in by_rank.items()]
        optimizer = lq.optimizers.CaseOptimizer(*pairs, default_optimizer=default and make(default))
        yield (
            {"id": f"case_{name}", "optimizer": "CaseOptimizer", "by_rank": list(by_rank.items()), "default": default},
            trajectory(optimizer),
        )


@family
def schedules():
    steps = np.arange(40)
    for name, description in SCHEDULES.items():
        schedule = resolve(description, keras.optimizers.schedules)
        values = np.array([float(schedule(int(step))) for step in steps], np.float32)
        yield {"id": name, "schedule": description}, {"step": steps, "value": values}
