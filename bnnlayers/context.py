"""Scopes: whether quantized variables read quantized, and which training metrics new quantizers carry."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

__all__ = ["get_training_metrics", "metrics_scope", "quantized_scope", "should_quantize"]

_scope = threading.local()
_AVAILABLE_METRICS = {"flip_ratio"}
_training_metrics: set[str] = set()


@contextlib.contextmanager
def quantized_scope(quantize: bool) -> Iterator[bool]:
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
    before = should_quantize()
    _scope.quantize = quantize
    try:
        yield quantize
    finally:
        _scope.quantize = before


def should_quantize() -> bool:
    """Whether a quantized variable would read as its quantized value here."""
    return getattr(_scope, "quantize", False)


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
