"""Where the time of training goes, operation by operation.

>>> with lq.profiler.Profile() as profile:
...     model.fit(x, y, epochs=1)
>>> print(profile)
>>> profile.save("trace.json")
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import tape

__all__ = ["Event", "Profile", "Row"]


class Event(NamedTuple):
    """One run of an operation; times are nanoseconds of `time.perf_counter_ns`.

    `own` is the duration without that of the events inside of it.
    """

    phase: str
    name: str
    thread: int
    start: int
    duration: int
    own: int


class Row(NamedTuple):
    """What all events of a phase and a name took together, in milliseconds."""

    phase: str
    name: str
    calls: int
    milliseconds: float


class _Open(threading.local):
    """Of the events that this thread is inside of: what the events within each took so far."""

    def __init__(self) -> None:
        self.nested: list[int] = []


class Profile:
    """Inside its ``with`` block, every operation of every thread is timed.

    Printed, it is a table of the operations, forward, backward and update, per training step. What is left of the step
    is Python's: layers, tape, losses and metrics; so the rows add up to the step. What lies between the steps of `fit`,
    data and callbacks, stands below it.

    Attributes
    ----------
    events : list of Event
        In the order in which they ended. A training step is an event with others inside.

    Raises
    ------
    RuntimeError
        If another profile is running.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._open = _Open()
        self._start = self._stop = 0

    def __enter__(self) -> Profile:
        tape.observe(self._timed)
        self._start = self._stop = time.perf_counter_ns()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop = time.perf_counter_ns()
        tape.observe(None)

    def _timed(self, phase: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its runs among the events."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            nested = self._open.nested
            nested.append(0)
            start = time.perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                duration = time.perf_counter_ns() - start
                own = duration - nested.pop()
                if nested:
                    nested[-1] += duration
                self.events.append(Event(phase, name.lstrip("_"), threading.get_ident(), start, duration, own))

        return timed

    @property
    def steps(self) -> int:
        """Training steps inside the block."""
        return sum(event.phase == "step" for event in self.events)

    @property
    def rows(self) -> list[Row]:
        """The operations, the slowest first, and last what is left: they add up to `milliseconds`."""
        found: dict[tuple[str, str], list[int]] = {}
        for event in self.events:
            found.setdefault((event.phase, event.name), []).append(event.own)
        within_steps = found.pop(("step", "step"), None)
        rows = [Row(*key, len(own), sum(own) / 1e6) for key, own in found.items()]
        rows.sort(key=lambda row: -row.milliseconds)
        left = sum(within_steps or ()) / 1e6
        if within_steps is None:
            left = self.milliseconds - sum(row.milliseconds for row in rows)
        return [*rows, Row("", "python", self.steps, left)]

    @property
    def milliseconds(self) -> float:
        """Time of the steps; of the whole block if there was none."""
        if self.steps:
            return sum(event.duration for event in self.events if event.phase == "step") / 1e6
        return (self._stop - self._start) / 1e6

    def __str__(self) -> str:
        steps, total = max(self.steps, 1), self.milliseconds
        table = [f"{'phase':<10}{'operation':<28}{'calls':>9}{'ms':>11}{'%':>8}"]
        for row in self.rows:
            share = 100 * row.milliseconds / total if total else 0.0
            table.append(
                f"{row.phase:<10}{row.name:<28}{row.calls / steps:>9.4g}{row.milliseconds / steps:>11.3f}{share:>8.1f}"
            )
        table.append(f"{'':<10}{'step' if self.steps else 'block':<37}{total / steps:>11.3f}{100:>8.1f}")
        if self.steps:
            around = (self._stop - self._start) / 1e6 - total
            table.append(f"{self.steps} steps; between them {around / steps:.3f} ms")
        return "\n".join(table)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the events as JSON for a trace viewer: chrome://tracing, Perfetto, Speedscope."""
        process = os.getpid()
        events = [
            {
                "name": event.name,
                "cat": event.phase,
                "ph": "X",
                "ts": (event.start - self._start) / 1e3,
                "dur": event.duration / 1e3,
                "pid": process,
                "tid": event.thread,
            }
            for event in sorted(self.events, key=lambda event: event.start)
        ]
        with open(path, "w") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)
