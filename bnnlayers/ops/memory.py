"""Memory of large arrays, used again from one step of training to the next."""

from __future__ import annotations

from typing import Any

from .. import _core


class reused:
    """Inside this ``with`` block, large arrays get memory that is used again when they are gone.

    What is kept for that is at most 64 MiB, and never makes the process larger than it has been. An array may outlive
    the block. The block belongs to its thread or task, as a context variable does.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before: Any = _core.set_memory(None)

    def __exit__(self, *error: Any) -> None:
        _core.set_memory(self._before)
