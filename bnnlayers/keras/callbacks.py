"""Callbacks: what happens around epochs and batches of `fit`, `evaluate` and `predict`."""

import contextlib
import csv
import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable as Function
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tape import plain
from . import backend
from .optimizers.schedules import LearningRateSchedule
from .saving import atomic_write


class Callback:
    """Base class; a subclass overrides the hooks it needs.

    Attributes
    ----------
    model : Model
        Set before training starts.
    params : dict
        ``verbose``, ``epochs`` and ``steps``.
    """

    def __init__(self):
        self.validation_data = None
        self.model: Any = None
        self.params = {}

    def set_params(self, params):
        """Take the parameters of the loop."""
        self.params = params

    def set_model(self, model):
        """Take the model."""
        self.model = model

    def on_batch_begin(self, batch, logs=None):
        """The old name of `on_train_batch_begin`."""

    def on_batch_end(self, batch, logs=None):
        """The old name of `on_train_batch_end`."""

    def on_train_batch_begin(self, batch, logs=None):
        """Called before a batch of `fit`."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        """Called after a batch of `fit`, with the loss and the metrics so far."""
        self.on_batch_end(batch, logs=logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Called before an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Called after an epoch, with its loss and metrics, those of validation as ``val_...``."""

    def on_test_batch_begin(self, batch, logs=None):
        """Called before a batch of `evaluate` or of validation."""

    def on_test_batch_end(self, batch, logs=None):
        """Called after a batch of `evaluate` or of validation."""

    def on_predict_batch_begin(self, batch, logs=None):
        """Called before a batch of `predict`."""

    def on_predict_batch_end(self, batch, logs=None):
        """Called after a batch of `predict`, with ``outputs``."""

    def on_train_begin(self, logs=None):
        """Called once before `fit`."""

    def on_train_end(self, logs=None):
        """Called once after `fit`."""

    def on_test_begin(self, logs=None):
        """Called before `evaluate` or validation."""

    def on_test_end(self, logs=None):
        """Called after `evaluate` or validation."""

    def on_predict_begin(self, logs=None):
        """Called before `predict`."""

    def on_predict_end(self, logs=None):
        """Called after `predict`."""


class CallbackList(Callback):
    """Several callbacks as one.

    Parameters
    ----------
    callbacks : Callback, iterable of Callback or CallbackList, optional
    add_history, add_progbar : bool
        Whether to append a `History` and a `ProgbarLogger` if there is none.
    model : Model, optional
    **params
        ``verbose``, ``epochs`` and ``steps``.
    """

    def __init__(self, callbacks=None, add_history=False, add_progbar=False, model=None, **params):
        super().__init__()
        self.callbacks: list[Callback] = list(_flatten(callbacks))
        self._history = self._find(History, add_history)
        self._find(ProgbarLogger, add_progbar)
        if model is not None:
            self.set_model(model)
        if params:
            self.set_params(params)

    def _find(self, kind, add):
        found = next((callback for callback in self.callbacks if isinstance(callback, kind)), None)
        if found is None and add:
            found = kind()
            self.callbacks.append(found)
        return found

    def __iter__(self):
        return iter(self.callbacks)

    def append(self, callback):
        """Add a callback at the end."""
        self.callbacks.append(callback)

    def set_params(self, params):
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model):
        self.model = model
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)


def _flatten(callbacks) -> Iterable[Callback]:
    if callbacks is None:
        return
    if isinstance(callbacks, CallbackList):
        callbacks = callbacks.callbacks
    if not isinstance(callbacks, (list, tuple)):
        callbacks = [callbacks]
    for callback in callbacks:
        if isinstance(callback, (list, tuple)):
            yield from _flatten(callback)
        else:
            yield callback


def _broadcast(hook: str) -> Function:
    # All callbacks get the same logs: each sees what those before it added.
    def with_index(self, index, logs=None):
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            getattr(callback, hook)(index, logs)

    def without_index(self, logs=None):
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            getattr(callback, hook)(logs)

    call = with_index if "batch" in hook or "epoch" in hook else without_index
    call.__name__ = hook
    call.__doc__ = getattr(Callback, hook).__doc__
    return call


for _hook in [name for name in vars(Callback) if name.startswith("on_")]:
    setattr(CallbackList, _hook, _broadcast(_hook))


class LambdaCallback(Callback):
    """A callback made of functions, given under the names of the hooks.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Of ``(epoch, logs)``.
    on_batch_begin, on_batch_end : callable, optional
        Of ``(batch, logs)``.
    on_train_begin, on_train_end : callable, optional
        Of ``(logs)``.
    **kwargs
        Any other hook.
    """

    def __init__(
        self,
        on_epoch_begin=None,
        on_epoch_end=None,
        on_batch_begin=None,
        on_batch_end=None,
        on_train_begin=None,
        on_train_end=None,
        **kwargs,
    ):
        super().__init__()
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_batch_begin": on_batch_begin,
            "on_batch_end": on_batch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            **kwargs,
        }
        for name, function in hooks.items():
            if function is not None:
                setattr(self, name, function)


class History(Callback):
    """What `fit` returns: ``history`` maps each name in the logs to its values, one per epoch."""

    def __init__(self):
        super().__init__()
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs=None):
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self

    def _repr_html_(self):
        """Curves where matplotlib is installed, else a table of the values."""
        names = [name for name in self.history if not name.startswith("val_")]
        with contextlib.suppress(ImportError):
            return _curves(self.epoch, self.history, names)
        rows = [("epoch", [epoch + 1 for epoch in self.epoch])]
        rows += [(name, [f"{np.mean(v):.4g}" for v in values]) for name, values in self.history.items()]
        cells = ("".join(f"<td>{value}</td>" for value in values) for _, values in rows)
        return "".join(
            ["<table>", *(f"<tr><th>{r[0]}</th>{c}</tr>" for r, c in zip(rows, cells, strict=True)), "</table>"]
        )


def _curves(epochs, history, names):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * max(len(names), 1), 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, max(len(names), 1), squeeze=False)[0], names, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            values = history.get(key, ())
            if values:
                # Validation may have run in some of the epochs only.
                axes.plot([epoch + 1 for epoch in epochs[-len(values) :]], values, marker=".", label=label)
        axes.set(xlabel="epoch", title=name)
        if f"val_{name}" in history:
            axes.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg")
    # HTML takes the picture without the declarations before it.
    return text.getvalue()[text.getvalue().index("<svg") :]


class TerminateOnNaN(Callback):
    """Stops training when the loss is NaN or infinite."""

    def on_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            print(f"Batch {batch}: Invalid loss, terminating training")
            self.model.stop_training = True


class ProgbarLogger(Callback):
    """Shows progress: with ``verbose=1`` a bar per epoch, with ``verbose=2`` a line per epoch."""

    def __init__(self, count_mode="samples", stateful_metrics=None):
        super().__init__()
        if count_mode not in ("samples", "steps"):
            raise ValueError(
                f'ProgbarLogger: count_mode: expected "samples" or "steps", received {count_mode!r}'
            )
        self._bar: Any = None
        self._training = False
        self._steps = None
        self._title = ""
        self._start = 0.0

    def set_params(self, params):
        super().set_params(params)
        self._steps = params.get("steps")

    def _open(self, title, unit="step"):
        self._close()
        self._title = title
        self._start = time.perf_counter()
        if self.params.get("verbose") == 1:
            # Imported here, since it looks for a notebook.
            from tqdm.auto import tqdm

            # Standard output is looked up now, for who redirects it.
            self._bar = tqdm(total=self._steps, desc=title or None, unit=unit, file=sys.stdout)

    def _advance(self, batch, logs=None):
        if self._bar is not None:
            self._bar.set_postfix_str(_format(logs), refresh=False)
            self._bar.update(batch + 1 - self._bar.n)

    def _finish(self, logs=None):
        if self._bar is not None:
            if self._steps is None:
                # A generator's length is known from the second epoch on.
                self._steps = self._bar.total = self._bar.n
            self._bar.set_postfix_str(_format(logs))
            self._close()
        elif self.params.get("verbose"):
            seconds = f"{time.perf_counter() - self._start:.0f}s"
            print(*filter(None, (self._title, seconds, _format(logs))), sep=" - ", flush=True)

    def _close(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_begin(self, logs=None):
        self._training = True

    def on_epoch_begin(self, epoch, logs=None):
        epochs = self.params.get("epochs") or 1
        self._open(f"Epoch {epoch + 1}/{epochs}" if epochs > 1 else "")

    def on_train_batch_end(self, batch, logs=None):
        self._advance(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._finish(logs)

    def on_train_end(self, logs=None):
        self._training = False
        self._close()

    # Validation during training is silent.

    def on_test_begin(self, logs=None):
        if not self._training:
            self._open("")

    def on_test_batch_end(self, batch, logs=None):
        if not self._training:
            self._advance(batch, logs)

    def on_test_end(self, logs=None):
        if not self._training:
            self._finish(logs)

    def on_predict_begin(self, logs=None):
        self._open("")

    def on_predict_batch_end(self, batch, logs=None):
        self._advance(batch)

    def on_predict_end(self, logs=None):
        self._finish()


def _format(logs) -> str:
    parts = []
    for name, value in (logs or {}).items():
        value = float(np.mean(plain(value)))
        parts.append(f"{name}: {value:.4f}" if abs(value) > 1e-3 else f"{name}: {value:.4e}")
    return " - ".join(parts)


class _Monitor(Callback):
    """Watches a value in the logs for improvement."""

    def __init__(self, monitor, mode, is_accuracy, min_delta=0.0):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"{type(self).__name__}: mode: expected auto, min or max, received {mode!r}; "
                "auto is used",
                stacklevel=3,
            )
            mode = "auto"
        if mode == "auto":
            mode = "max" if is_accuracy else "min"
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)

    @property
    def _worst(self) -> float:
        return -math.inf if self.mode == "max" else math.inf

    def _improves(self, value, reference) -> bool:
        if self.mode == "max":
            return bool(value - self.min_delta > reference)
        return bool(value + self.min_delta < reference)

    def _monitored(self, logs):
        logs = logs or {}
        if self.monitor not in logs:
            warnings.warn(
                f"{type(self).__name__}: {self.monitor!r} is not in the logs, which have "
                f"{sorted(logs)}",
                stacklevel=4,
            )
        return logs.get(self.monitor)


class EarlyStopping(_Monitor):
    """Stops training when a value no longer improves.

    Parameters
    ----------
    monitor : str
        Name in the logs.
    min_delta : float
        The least change that is an improvement.
    patience : int
        Epochs without one before training stops.
    verbose : int
        Whether to say so.
    mode : {"auto", "min", "max"}
        What improvement is; ``auto`` takes accuracies to the maximum.
    baseline : float, optional
        What must be beaten, too.
    restore_best_weights : bool
        Whether to return to the weights of the best epoch.
    start_from_epoch : int
        Epochs before it are not looked at.
    """

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0,
        patience=0,
        verbose=0,
        mode="auto",
        baseline=None,
        restore_best_weights=False,
        start_from_epoch=0,
    ):
        is_accuracy = monitor.endswith(("acc", "accuracy", "auc"))
        super().__init__(monitor, mode, is_accuracy, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._reset()

    def _reset(self):
        self.wait = 0
        self.stopped_epoch = 0
        self.best = self._worst
        self.best_epoch = 0
        self.best_weights = None

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        current = self._monitored(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        improves = self._improves(current, self.best)
        if self.restore_best_weights and (improves or self.best_weights is None):
            self.best_weights = self.model.get_weights()
            self.best_epoch = epoch
        self.wait += 1
        if improves:
            self.best = current
            self.best_epoch = epoch
            if self.baseline is None or self._improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                print(
                    "Restoring model weights from the end of the best epoch: "
                    f"{self.best_epoch + 1}."
                )
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model or its weights; a process killed meanwhile leaves the old file or the new.

    Parameters
    ----------
    filepath : str or path
        May hold ``{epoch:02d}``, ``{batch}`` and names in the logs, ``{val_loss:.2f}``.
    monitor : str
        Name in the logs that decides what is best.
    verbose : int
        Whether to say what is saved.
    save_best_only, save_weights_only : bool
    mode : {"auto", "min", "max"}
        What improvement is; ``auto`` takes accuracies to the maximum.
    save_freq : "epoch" or int
        Or after so many batches.
    initial_value_threshold : float, optional
        What the first value must beat.
    period : int
        Saves only after so many epochs.
    """

    def __init__(
        self,
        filepath,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        options=None,
        initial_value_threshold=None,
        period=1,
    ):
        is_accuracy = "acc" in monitor or monitor.startswith("fmeasure")
        super().__init__(monitor, mode, is_accuracy)
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(
                f'ModelCheckpoint: save_freq: expected "epoch" or an int, received {save_freq!r}'
            )
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.period = period
        self.best = self._worst if initial_value_threshold is None else initial_value_threshold
        self.epochs_since_last_save = 0
        self._batches = 0
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        if self.save_freq != "epoch" and self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch, logs=None):
        self.epochs_since_last_save += 1
        if self.save_freq == "epoch" and self.epochs_since_last_save >= self.period:
            self.epochs_since_last_save = 0
            self._save(epoch, None, logs or {})

    def _save(self, epoch, batch, logs):
        path = self._path(epoch, batch, logs)
        message = f"\nEpoch {epoch + 1}: saving model to {path}"
        if self.save_best_only:
            current = self._monitored(logs)
            if current is None:
                return
            if not self._improves(current, self.best):
                if self.verbose > 0:
                    print(
                        f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}"
                    )
                return
            message = (
                f"\nEpoch {epoch + 1}: {self.monitor} improved from {self.best:.5f} to "
                f"{current:.5f}, saving model to {path}"
            )
            self.best = current
        if self.verbose > 0:
            print(message)
        if os.path.isdir(path):
            raise OSError(f"ModelCheckpoint: filepath: expected a file, {path} is a directory")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)

    def _path(self, epoch, batch, logs):
        fields = {"epoch": epoch + 1, **logs}
        if batch is not None:
            fields.setdefault("batch", batch + 1)
        try:
            return self.filepath.format(**fields)
        except KeyError as error:
            raise KeyError(
                f"ModelCheckpoint: filepath: {self.filepath!r} names {error}, "
                f"known are {sorted(fields)}"
            ) from error


class BackupAndRestore(Callback):
    """Keeps what a training that was interrupted needs to go on as if it had not been.

    A `fit` that finds a backup starts where it was made. Weights, the state and hyperparameters of the optimizer and
    all random generators (order of the data, dropout) are kept, so the weights come out the same. What other callbacks
    count is not: put this one last, for it to see what they did to the learning rate.

    Parameters
    ----------
    backup_dir : str or path
        A folder that no other training uses.
    save_freq : "epoch" or int
        When to write: after each epoch, or after so many batches.
    delete_checkpoint : bool
        Whether a training that reaches its end deletes the backup.
    save_before_preemption : optional
        Accepted and without effect.

    Raises
    ------
    ValueError
        By `fit`, if the backup is of another network.
    """

    def __init__(self, backup_dir, save_freq="epoch", delete_checkpoint=True, save_before_preemption=False):
        super().__init__()
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(
                f'BackupAndRestore: save_freq: expected "epoch" or a positive int, received {save_freq!r}'
            )
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._path = os.path.join(self.backup_dir, "backup.npz")
        self._batches = self._epoch = 0
        # Random state and hyperparameters: what an epoch starts from, and what a batch amid it goes on with.
        self._before: Any = None
        self._amid: Any = None

    def on_train_begin(self, logs=None):
        self._batches, self._amid = 0, None
        if os.path.exists(self._path):
            self._restore()
        self._before = self._state()

    def _restore(self):
        with np.load(self._path, allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            values = [file[f"value{i}"] for i in range(state["values"])]
        model = self.model
        if not model.built:
            model.build(state["input_shape"])
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)
        count = len(model.weights)
        if len(values) != count + len(optimizer.weights):
            raise ValueError(f"BackupAndRestore: {self._path} is the backup of another network or optimizer")
        model.set_weights(values[:count])
        optimizer.set_weights(values[count:])
        # Where the batches of an epoch were left, the epoch begins as it did: its order is drawn again.
        self._set_state(state["before"])
        self._amid = state["amid"] if state["step"] else None
        self._batches = state["batches"]
        model._resume_at = state["epoch"], state["step"]

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self._amid is not None:
            self._set_state(self._amid)
            self._amid = None

    def on_train_batch_end(self, batch, logs=None):
        self._batches += 1
        if self.save_freq != "epoch" and self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self._amid is not None:
            # The backup was made at the last batch. The rate is what the callbacks before this one have made of it.
            self._set_state({**self._state(), "random": self._amid["random"]})
            self._amid = None
        self._before = self._state()
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        if self.delete_checkpoint:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _save(self, epoch, step):
        model = self.model
        values = [*model.get_weights(), *model.optimizer.get_weights()]
        state = {
            "epoch": epoch,
            "step": step,
            "batches": self._batches,
            "values": len(values),
            "before": self._before,
            "amid": self._state(),
            "input_shape": model._build_input_shape,
        }
        os.makedirs(self.backup_dir, exist_ok=True)
        with atomic_write(self._path) as temporary, open(temporary, "wb") as file:
            arrays = {f"value{i}": value for i, value in enumerate(values)}
            np.savez(file, state=json.dumps(state), **arrays)

    def _generators(self):
        owned = [vars(layer).get("_generator") for layer in self.model._flatten_layers()]
        return [backend.random_generator(), *(g for g in owned if isinstance(g, np.random.Generator))]

    def _state(self):
        return {
            "random": [generator.bit_generator.state for generator in self._generators()],
            "hyperparameters": [float(variable.numpy()) for variable in _hyperparameters(self.model.optimizer)],
        }

    def _set_state(self, state):
        for generator, value in zip(self._generators(), state["random"], strict=True):
            generator.bit_generator.state = value
        for variable, value in zip(_hyperparameters(self.model.optimizer), state["hyperparameters"], strict=True):
            variable.assign(np.asarray(value, variable.dtype))


def _hyperparameters(optimizer):
    """What may have been assigned during training, such as a learning rate."""
    parts = getattr(optimizer, "optimizers", (optimizer,))
    return [value for part in parts for value in part._hyper.values() if hasattr(value, "assign")]


class TensorBoard(Callback):
    """Writes losses and metrics for TensorBoard; the package `tensorboardX` must be installed.

    Values are in the folders ``train`` and ``validation`` under Keras's tags, ``epoch_loss`` and so on.

    Parameters
    ----------
    log_dir : str or path
    histogram_freq : int
        Write histograms of the weights every so many epochs; 0 for never.
    update_freq : "epoch", "batch" or int
        Whether to write each batch or every so many batches, too.
    write_graph, write_images, write_steps_per_second, profile_batch, embeddings_freq, embeddings_metadata : optional
        Accepted and without effect.

    Raises
    ------
    ModuleNotFoundError
        When training starts, if `tensorboardX` is missing.
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        write_images=False,
        write_steps_per_second=False,
        update_freq="epoch",
        profile_batch=0,
        embeddings_freq=0,
        embeddings_metadata=None,
    ):
        super().__init__()
        if update_freq not in ("epoch", "batch") and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(
                f'TensorBoard: update_freq: expected "epoch", "batch" or a positive int, received {update_freq!r}'
            )
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self._writers: dict[str, Any] = {}
        self._training = False
        self._steps = 0

    def _writer(self, name):
        if name not in self._writers:
            try:
                from tensorboardX import SummaryWriter
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "TensorBoard: expected the package tensorboardX to be installed "
                    "(pip install 'bnnlayers[tensorboard]')"
                ) from error
            self._writers[name] = SummaryWriter(os.path.join(self.log_dir, name))
        return self._writers[name]

    def _write(self, writer, pattern, logs, step):
        for name, value in logs.items():
            self._writer(writer).add_scalar(pattern.format(name), float(np.mean(plain(value))), step)

    def _close(self):
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def on_train_begin(self, logs=None):
        self._training, self._steps = True, 0
        self._writer("train")

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch" and self._steps % self.update_freq == 0:
            self._write("train", "batch_{}", logs or {}, self._steps)
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        training = {name: value for name, value in logs.items() if not name.startswith("val_")}
        optimizer = self.model.optimizer
        if isinstance(getattr(optimizer, "_hyper", {}).get("learning_rate"), LearningRateSchedule):
            training["learning_rate"] = optimizer.lr
        self._write("train", "epoch_{}", training, epoch)
        validation = {name.removeprefix("val_"): v for name, v in logs.items() if name.startswith("val_")}
        self._write("validation", "epoch_{}", validation, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for weight in self.model.weights:
                self._writer("train").add_histogram(weight.name.replace(":", "_"), weight.numpy(), epoch)

    def on_train_end(self, logs=None):
        self._training = False
        self._close()

    def on_test_end(self, logs=None):
        if getattr(self.model, "optimizer", None) is not None:
            step = int(self.model.optimizer.iterations.numpy())
            self._write("validation", "evaluation_{}_vs_iterations", logs or {}, step)
        if not self._training:
            self._close()


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        Of ``(epoch, lr)`` or ``(epoch)``, returns a float.
    verbose : int
        Whether to say so.
    """

    def __init__(self, schedule, verbose=0):
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch, logs=None):
        optimizer = self.model.optimizer
        if not hasattr(optimizer, "lr"):
            raise ValueError('LearningRateScheduler: the optimizer must have a "lr" attribute')
        try:
            lr = self.schedule(epoch, float(backend.get_value(optimizer.lr)))
        except TypeError:
            lr = self.schedule(epoch)
        value = plain(lr)
        if value.ndim or not np.issubdtype(value.dtype, np.floating):
            raise ValueError(
                f"LearningRateScheduler: schedule: expected it to return a float, received {lr!r}"
            )
        optimizer.lr = float(value)
        if self.verbose > 0:
            print(
                f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to "
                f"{float(value)}."
            )

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["lr"] = backend.get_value(self.model.optimizer.lr)


class ReduceLROnPlateau(_Monitor):
    """Multiplies the learning rate by a factor when a value no longer improves.

    Parameters
    ----------
    monitor : str
        Name in the logs.
    factor : float
        Below one.
    patience : int
        Epochs without improvement before the rate is reduced.
    verbose : int
        Whether to say so.
    mode : {"auto", "min", "max"}
        What improvement is; ``auto`` takes accuracies to the maximum.
    min_delta : float
        The least change that is an improvement.
    cooldown : int
        Epochs after a reduction in which patience is not counted.
    min_lr : float
        The rate does not go below it.
    """

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0,
    ):
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor: expected less than 1, received {factor}")
        super().__init__(monitor, mode, "acc" in monitor, min_delta)
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._reset()

    def _reset(self):
        self.best = self._worst
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs=None):
        self._reset()

    def in_cooldown(self) -> bool:
        """Whether patience is not counted now."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        if logs is not None:
            logs["lr"] = backend.get_value(optimizer.lr)
        current = self._monitored(logs)
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            old = float(backend.get_value(optimizer.lr))
            if self.wait >= self.patience and old > np.float32(self.min_lr):
                new = max(old * self.factor, self.min_lr)
                optimizer.lr = new
                if self.verbose > 0:
                    print(
                        f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {new}."
                    )
                self.cooldown_counter = self.cooldown
                self.wait = 0


class CSVLogger(Callback):
    """Writes the logs of each epoch as a line of a CSV file.

    Parameters
    ----------
    filename : str or path
    separator : str
    append : bool
        Whether to keep what is in the file.
    """

    def __init__(self, filename, separator=",", append=False):
        super().__init__()
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self._file: Any = None
        self._keys: list[str] | None = None

    def on_train_begin(self, logs=None):
        has_lines = self.append and os.path.exists(self.filename) and os.path.getsize(self.filename)
        self._header = not has_lines
        self._keys = None
        self._file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115
        # A second fit with this object goes on in the same file.
        self.append = True

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self._keys is None:
            self._keys = sorted(logs)
            # Keras reserves the columns of validation also for epochs without one.
            if not any(key.startswith("val_") for key in self._keys):
                self._keys += [f"val_{key}" for key in self._keys]
            self._writer = csv.DictWriter(self._file, ["epoch", *self._keys], delimiter=self.sep)
            if self._header:
                self._writer.writeheader()
        row = {key: _cell(logs.get(key, "NA")) for key in self._keys}
        self._writer.writerow({"epoch": epoch, **row})
        self._file.flush()

    def on_train_end(self, logs=None):
        if self._file is not None:
            self._file.close()
            self._file = None


def _cell(value):
    if np.ndim(value) == 0:
        return value
    return f'"[{", ".join(map(str, np.ravel(value)))}]"'


__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
