"""Memory that training frees stays in the process for the next step, and is given back when training ends.

A step allocates again what the one before freed. If the C library gives that back to the system in between, the
system must find and clear every page of it again. Only glibc does, and only there do these change anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import _core

holders = _core.memory_holders


@contextmanager
def held() -> Iterator[None]:
    """Keep freed memory inside this ``with`` block, or call of a function that this decorates."""
    _core.hold_memory()
    try:
        yield
    finally:
        _core.release_memory()


class Hold:
    """Keeps freed memory for as long as it lives."""

    def __init__(self) -> None:
        _core.hold_memory()

    def __del__(self, release=_core.release_memory) -> None:
        release()

    def __reduce__(self):
        return Hold, ()
