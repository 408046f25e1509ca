"""Float matrix products: BLAS, on as many threads as the kernels of this library have.

The threads of a BLAS wait for more work in a loop, each on a core, for a while after every product; kernels that run
next have to share those cores. So BLAS is kept to one thread while products run, and large ones are cut into one for
every thread.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from .. import _core

# Multiply-adds up to which OpenBLAS takes one thread by itself, and from which handing out parts is worth while: about
# half a millisecond of a core.
_SMALL, _LARGE = 1 << 18, 1 << 24

# A handler of signals may run a product inside of one.
_alone = threading.RLock()


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _to_one_thread() -> Any:
    """A context, as long as which and at once BLAS has one thread."""
    if all(library.num_threads == 1 for library in _libraries().lib_controllers):
        return contextlib.nullcontext()
    return _libraries().limit(limits=1)


@functools.cache
def _workers(count: int) -> ThreadPoolExecutor:
    # Where BLAS runs on OpenMP, each thread has a number of its own.
    return ThreadPoolExecutor(count, "bnnlayers", _to_one_thread)


def _forget() -> None:
    """A forked child has none of the threads, nor the one that may have been in a product."""
    global _alone
    _alone = threading.RLock()
    _workers.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def matmul(a: Any, b: Any) -> Any:
    """``np.matmul(a, b)`` of stacks of matrices, (groups, M, K) and (groups, K, N)."""
    groups, rows, depth = a.shape
    columns = b.shape[-1]
    size = groups * rows * depth * columns
    if size <= _SMALL:
        return np.matmul(a, b)
    parts = _core.get_num_threads() if size >= _LARGE else 1
    y = np.empty((groups, rows, columns), np.result_type(a, b))
    tall = rows >= columns
    ends = [(rows if tall else columns) * i // parts for i in range(parts + 1)]

    def run(i: int) -> None:
        part = slice(ends[i], ends[i + 1])
        if tall:
            np.matmul(a[:, part], b, out=y[:, part])
        else:
            np.matmul(a, b[..., part], out=y[..., part])

    with _alone, _to_one_thread():
        others = [_workers(parts - 1).submit(run, i) for i in range(1, parts)]
        run(0)
        for other in others:
            other.result()
    return y
