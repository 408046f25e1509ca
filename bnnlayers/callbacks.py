"""A callback that schedules any hyperparameter of any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .keras import backend, callbacks
from .tape import Variable

__all__ = ["HyperparameterScheduler"]


class HyperparameterScheduler(callbacks.Callback):
    """Sets a hyperparameter before each epoch or each step.

    Parameters
    ----------
    schedule : callable
        Of ``(t, value)`` or ``(t)``, with the epoch or step counted from zero and the current value; returns the new
        one.
    hyperparameter : str
        Name of an attribute of the optimizer.
    optimizer : Optimizer, optional
        By default the model's.
    update_freq : {"epoch", "step"}
        A step is one of the optimizer's iterations: they go on counting over epochs.
    verbose : int
        Whether to say so.
    log_name : str, optional
        Name in the logs, to tell apart a hyperparameter that two optimizers have; by default `hyperparameter`.

    Raises
    ------
    ValueError
        If `update_freq` is neither; when training begins, if the optimizer has no such attribute.

    Examples
    --------
    >>> bop = lq.optimizers.Bop(threshold=1e-6, gamma=1e-3)
    >>> lq.callbacks.HyperparameterScheduler(lambda epoch: 1e-3 * 0.1 ** (epoch // 30), "gamma", bop)
    """

    def __init__(
        self,
        schedule: Callable[..., Any],
        hyperparameter: str,
        optimizer: Any = None,
        update_freq: str = "epoch",
        verbose: int = 0,
        log_name: str | None = None,
    ) -> None:
        super().__init__()
        if update_freq not in ("epoch", "step"):
            raise ValueError(
                f"HyperparameterScheduler: update_freq: expected 'epoch' or 'step', received {update_freq!r}"
            )
        self.schedule = schedule
        self.hyperparameter = hyperparameter
        self.optimizer = optimizer
        self.update_freq = update_freq
        self.verbose = verbose
        self.log_name = log_name or hyperparameter

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self.optimizer is None:
            self.optimizer = model.optimizer
        if not hasattr(self.optimizer, self.hyperparameter):
            raise ValueError(
                f"HyperparameterScheduler: hyperparameter: optimizer {self.optimizer.name!r} has no attribute "
                f"{self.hyperparameter!r}"
            )

    def _value(self) -> Any:
        return backend.get_value(getattr(self.optimizer, self.hyperparameter))

    def set_hyperparameter(self, t: int) -> Any:
        """Set the hyperparameter to the schedule's value at an epoch or step, and return it."""
        try:
            value = self.schedule(t, self._value())
        except TypeError:  # it takes the time alone
            value = self.schedule(t)
        current = getattr(self.optimizer, self.hyperparameter)
        if isinstance(current, Variable):
            backend.set_value(current, value)
        else:
            setattr(self.optimizer, self.hyperparameter, value)
        return getattr(self.optimizer, self.hyperparameter)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.update_freq == "epoch":
            self._update("Epoch", epoch)

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.update_freq == "step":
            self._update("Step", int(backend.get_value(self.optimizer.iterations)))

    def _update(self, what: str, t: int) -> None:
        self.set_hyperparameter(t)
        if self.verbose > 0:
            print(f"{what} {t}: {self.log_name} is now {self._value()}.")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs[self.log_name] = self._value()
