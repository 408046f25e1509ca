"""Float matrix products: BLAS, on the threads that the kernels of this library have.

The threads of a BLAS wait for more work in a loop, each on a core, for a while after every product; kernels that run
next have to share those cores. So BLAS is kept to one thread while products run, and large ones are cut into one for
every thread.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from .. import _core

# Multiply-adds up to which OpenBLAS takes one thread by itself, and from which handing out parts is worth while: about
# half a millisecond of a core.
_SMALL, _LARGE = 1 << 18, 1 << 24

# A handler of signals may run a product inside of one.
_alone = threading.RLock()


def _forget() -> None:
    """A forked child has none of the threads of which one may be in a product."""
    global _alone
    _alone = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@functools.cache
def _libraries() -> list[Any]:
    return ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Where BLAS runs on OpenMP, its number of threads is one of the thread that asks."""
    # Not threadpoolctl's own context, which takes as long as a small product.
    before = [(library, count) for library in _libraries() if (count := library.get_num_threads()) != 1]
    try:
        for library, _ in before:
            library.set_num_threads(1)
        yield
    finally:
        for library, count in before:
            library.set_num_threads(count)


def matmul(a: Any, b: Any) -> Any:
    """``np.matmul(a, b)`` of stacks of matrices, (groups, M, K) and (groups, K, N)."""
    groups, rows, depth = a.shape
    columns = b.shape[-1]
    size = groups * rows * depth * columns
    if size <= _SMALL:
        return np.matmul(a, b)
    parts = _core.get_num_threads() if size >= _LARGE else 1
    if parts == 1:
        with _alone, _on_one_thread():
            return np.matmul(a, b)
    y = np.empty((groups, rows, columns), np.result_type(a, b))
    tall = rows >= columns
    ends = [(rows if tall else columns) * i // parts for i in range(parts + 1)]

    def run(i: int) -> None:
        part = slice(ends[i], ends[i + 1])
        with _on_one_thread():
            if tall:
                np.matmul(a[:, part], b, out=y[:, part])
            else:
                np.matmul(a, b[..., part], out=y[..., part])

    with _alone, _on_one_thread():
        _core.share(run, parts)
    return y
