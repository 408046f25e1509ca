"""Optimizers and schedules against tf_keras and larq: twenty steps with given gradients."""

import numpy as np
import pytest
from golden.archive import read, resolve
from golden.checks import EPS, assert_close

import bnnlayers as lq
from bnnlayers import keras

CASES = [case for file in ("optimizers", "case_optimizers") for case in read(file)]


def claims(rank):
    return lambda variable: len(variable.shape) == rank


def make(spec):
    if spec["optimizer"] == "CaseOptimizer":
        pairs = [(claims(rank), make(part)) for rank, part in spec["by_rank"]]
        return lq.optimizers.CaseOptimizer(*pairs, default_optimizer=spec["default"] and make(spec["default"]))
    space = keras.optimizers.legacy if spec["legacy"] else keras.optimizers
    if spec["optimizer"] == "Bop":
        space = lq.optimizers
    kwargs = {n: resolve(v, keras.optimizers.schedules) for n, v in spec["kwargs"].items()}
    return getattr(space, spec["optimizer"])(**kwargs)


def run(optimizer, case):
    names = [key.removeprefix("start/") for key in case.arrays if key.startswith("start/")]
    clip = case.get("weight_clip")
    constraints = {"kernel": lq.constraints.WeightClip(clip)} if clip else {}
    variables = {
        name: lq.Variable(case.arrays[f"start/{name}"], name=name, constraint=constraints.get(name)) for name in names
    }
    changes = dict(case.get("changes", []))
    for step in range(len(case.arrays[f"value/{names[0]}"])):
        if step in changes:
            optimizer.learning_rate = changes[step]
        slopes = [case.arrays[f"gradient/{name}"][step] for name in names]
        optimizer.apply_gradients(zip(slopes, variables.values(), strict=True))
        for name, variable in variables.items():
            path = case.arrays[f"value/{name}"]
            travelled = np.abs(path[: step + 1]).max() + np.abs(case.arrays[f"start/{name}"]).max()
            # Each step rounds the variable once and its update a few times.
            assert_close(
                variable.numpy(),
                path[step],
                4 * EPS * (step + 1) * travelled,
                name=f"{name} {step}",
            )


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_trajectory(case):
    run(make(case), case)


@pytest.mark.parametrize("case", read("schedules"), ids=repr)
def test_schedule(case):
    schedule = resolve(case["schedule"], keras.optimizers.schedules)
    values = [float(schedule(int(step))) for step in case.arrays["step"]]
    assert_close(np.float32(values), case.arrays["value"], 1e-8, rtol=8 * EPS)
    twin = type(schedule).from_config(schedule.get_config())
    assert [float(twin(int(step))) for step in case.arrays["step"]] == values
