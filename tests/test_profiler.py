"""`Profile`: what it times, that it adds up, and that nothing is left of it afterwards."""

import json
import threading

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import keras, tape


@pytest.fixture
def model():
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    model = keras.models.Sequential(
        [
            lq.layers.QuantConv2D(4, 3, input_shape=(6, 6, 2), use_bias=False, **binary),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            lq.layers.QuantDense(3, **binary),
            keras.layers.Activation("softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def data(steps):
    return np.ones((4 * steps, 6, 6, 2), np.float32), np.zeros(4 * steps)


def fit(model, steps):
    x, y = data(steps)
    with lq.profiler.Profile() as profile:
        model.fit(x, y, batch_size=4, verbose=0)
    return profile


def test_rows_add_up_to_the_steps(model):
    profile = fit(model, 3)
    assert profile.steps == 3
    assert sum(row.milliseconds for row in profile.rows) == pytest.approx(profile.milliseconds)
    assert min(row.milliseconds for row in profile.rows) > 0
    *operations, left = profile.rows
    assert left.name == "python"
    times = [row.milliseconds for row in operations]
    assert times == sorted(times, reverse=True)


def test_every_phase_of_every_operation_is_counted(model):
    calls = {(row.phase, row.name): row.calls for row in fit(model, 3).rows}
    assert calls["forward", "product, xnor"] == calls["backward", "product, xnor"] == 6
    # Two kernels and two inputs. The model's input has no gradient, and that of clipped kernels passes through.
    assert calls["forward", "ste_sign"] == 12
    assert calls["backward", "ste_sign"] == 3
    assert calls["update", "Adam"] == 3 * len(model.trainable_variables)
    assert ("update", "WeightClip") not in calls  # Adam clips what it writes


def test_results_are_those_without_it(model):
    x, y = data(2)
    start = model.get_weights()
    fit(model, 2)
    profiled = model.get_weights()
    model.set_weights(start)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=4, verbose=0)
    for one, other in zip(profiled, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_steps_the_rows_add_up_to_the_block():
    @lq.custom_gradient
    def double(x):
        return 2 * x, lambda dy: 2 * dy

    with lq.profiler.Profile() as profile:
        with lq.GradientTape() as recording:
            x = lq.constant([1.0, 2.0])
            recording.watch(x)
            y = np.exp(double(x))
        recording.gradient(y, x)
    assert profile.steps == 0
    assert sum(row.milliseconds for row in profile.rows) == pytest.approx(profile.milliseconds)
    names = {(row.phase, row.name) for row in profile.rows}
    assert names == {
        ("forward", "double"),
        ("backward", "double"),
        ("forward", "np.exp"),
        ("backward", "np.exp"),
        ("", "python"),
    }


def test_an_event_does_not_count_what_is_inside_of_it():
    @tape.operation
    def inner(x):
        return x + 1, None

    @tape.operation
    def outer(x):
        return np.asarray(inner(x)), None

    with lq.profiler.Profile() as profile:
        outer(np.ones(3))
    first, second = profile.events
    assert (first.name, second.name) == ("inner", "outer")
    assert second.own == second.duration - first.duration
    assert first.own == first.duration


def test_nothing_is_timed_afterwards(model):
    profile = fit(model, 1)
    count = len(profile.events)
    model.fit(*data(1), verbose=0)
    assert len(profile.events) == count
    assert tape.observed("", "", fit) is fit


def test_an_exception_ends_it():
    @tape.operation
    def wrong(x):
        raise KeyError

    profile = lq.profiler.Profile()
    with pytest.raises(KeyError), profile:
        wrong(np.ones(3))
    assert [event.name for event in profile.events] == ["wrong"]
    assert tape.observed("", "", fit) is fit


def test_there_is_one_at_a_time():
    with lq.profiler.Profile(), pytest.raises(RuntimeError, match="nested"), lq.profiler.Profile():
        pass
    assert tape.observed("", "", fit) is fit


def test_threads_are_told_apart(model):
    model.predict(data(1)[0], verbose=0)  # which packs the weights, once for both
    with lq.profiler.Profile() as profile:
        thread = threading.Thread(target=model.predict, args=(data(1)[0],), kwargs={"verbose": 0})
        thread.start()
        thread.join()
        model.predict(data(1)[0], verbose=0)
    by_thread = {}
    for event in profile.events:
        by_thread.setdefault(event.thread, []).append(event.name)
    one, other = by_thread.values()
    assert one == other


def test_trace(model, tmp_path):
    profile = fit(model, 2)
    profile.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == len(profile.events)
    assert all(event["ph"] == "X" and event["ts"] >= 0 and event["dur"] >= 0 for event in events)
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    step, *others = [event for event in events if event["ts"] < events[0]["ts"] + events[0]["dur"]]
    assert step["name"] == "step"
    assert {event["cat"] for event in others} >= {"forward", "backward", "update"}
    assert all(event["ts"] + event["dur"] <= step["ts"] + step["dur"] + 1e-3 for event in others)


def test_table(model):
    text = str(fit(model, 2))
    lines = text.splitlines()
    assert lines[0].split() == ["phase", "operation", "calls", "ms", "%"]
    assert lines[-2].split()[0] == "step"
    assert lines[-2].split()[-1] == "100.0"
    assert lines[-1].startswith("2 steps")
    assert sum(float(line.split()[-1]) for line in lines[1:-2]) == pytest.approx(100, abs=0.1 * len(lines))


def test_empty():
    with lq.profiler.Profile() as profile:
        pass
    assert [row.name for row in profile.rows] == ["python"]
    assert "block" in str(profile)
    assert str(lq.profiler.Profile()).splitlines()[0].startswith("phase")
