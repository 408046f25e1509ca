"""Memory that training frees waits in the process for the next step, and is given back when training ends.

A step allocates again what the one before freed. Given back in between, the system must find and clear
every page of it again. While somebody holds memory, NumPy's new arrays of this thread are made by
`_core`, which keeps what was freed but hardly lets the process grow for it. Between the batches of a
prediction the very large ones are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import _core

holders = _core.memory_holders
slack = _core.memory_slack


@contextmanager
def held(modest: bool = False) -> Iterator[None]:
    """Hold memory inside this ``with`` block, or call of a function that this decorates; if `modest`, only that of very
    large arrays."""
    _core.hold_memory(modest)
    try:
        yield
    finally:
        _core.release_memory(modest)


class Hold:
    """Holds memory for as long as it lives."""

    def __init__(self) -> None:
        _core.hold_memory(False)

    def __del__(self, release=_core.release_memory) -> None:
        release(False)

    def __reduce__(self):
        return Hold, ()
