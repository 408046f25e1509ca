"""Scopes: whether quantized variables read quantized, and which training metrics new quantizers carry."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["get_training_metrics", "metrics_scope", "quantized_scope", "should_quantize"]


class _Scope(threading.local):
    quantize = False


scope = _Scope()
_AVAILABLE_METRICS = {"flip_ratio"}
_training_metrics: set[str] = set()


class quantized_scope(contextlib.ContextDecorator):
    """Inside the scope a quantized variable reads as its quantized value, or with False as its latent one.

    Parameters
    ----------
    quantize : bool

    Notes
    -----
    The scope is the thread's own, and ends with an exception too.

    Examples
    --------
    >>> latent = model.get_weights()
    >>> with lq.context.quantized_scope(True):
    ...     binary = model.get_weights()
    """
    def __init__(self, quantize: bool) -> None:
        self._quantize = quantize

    def __enter__(self) -> bool:
        self._before, scope.quantize = scope.quantize, self._quantize
        return self._quantize

    def __exit__(self, *error: Any) -> None:
        scope.quantize = self._before


def should_quantize() -> bool:
    """Whether a quantized variable would read as its quantized value here."""
    return scope.quantize


@contextlib.contextmanager
def metrics_scope(metrics: Iterable[str] = ()) -> Iterator[set[str]]:
    """Kernel quantizers made inside the scope carry these training metrics.

    Parameters
    ----------
    metrics : iterable of str
        Only "flip_ratio" exists.

    Raises
    ------
    ValueError
        If a metric is unknown.
    """
    metrics = tuple(metrics)
    for metric in metrics:
        if metric not in _AVAILABLE_METRICS:
            raise ValueError(
                f"metrics_scope(): argument 'metrics' must name some of {sorted(_AVAILABLE_METRICS)}, got {metric!r}"
            )
    before = set(_training_metrics)
    _training_metrics.update(metrics)
    try:
        yield _training_metrics
    finally:
        _training_metrics.clear()
        _training_metrics.update(before)


def get_training_metrics() -> set[str]:
    """The live set of training metrics of the current scope."""
    return _training_metrics
