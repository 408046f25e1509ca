"""Constraints that keep latent weights where their pseudo-gradient lives."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import utils
from .keras import constraints


@utils.register_alias("weight_clip")
@utils.register_keras_custom_object
class WeightClip(constraints.Constraint):
    """Clip every weight to ``[-clip_value, clip_value]``.

    Without it the latent weights of a binary layer leave the interval in which the straight-through estimator has a
    gradient, and never move again.

    Parameters
    ----------
    clip_value : float
    """

    def __init__(self, clip_value: float = 1) -> None:
        self.clip_value = clip_value

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls._limit_ = None  # type: ignore[assignment]

    def __call__(self, x: Any) -> Any:
        return np.clip(x, -self.clip_value, self.clip_value)

    @property
    def _limit_(self) -> float:
        """The magnitude to which an optimizer may clip in the pass that updates a weight."""
        return self.clip_value

    def get_config(self) -> dict[str, Any]:
        return {"clip_value": self.clip_value}


weight_clip = WeightClip
