"""Compiling, training, evaluating and predicting."""

from __future__ import annotations

import contextlib

import numpy as np

from ...ops import memory
from ...tape import GradientTape, observed, plain
from .. import callbacks as callbacks_module
from .. import optimizers
from ..structure import flatten, map_structure, pack_as
from .compiled import CompiledLoss, CompiledMetrics
from .data import Data, split, unpack_x_y_sample_weight


class Trainer:
    """What a model can do with data; mixed into `Model`."""

    def _init_training(self):
        self.__dict__.update(
            optimizer=None,
            loss=None,
            compiled_loss=None,
            compiled_metrics=None,
            history=None,
            stop_training=False,
            _resume_at=(0, 0),
            _compile_arguments=None,
        )

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        metrics=None,
        loss_weights=None,
        weighted_metrics=None,
        run_eagerly=None,
        steps_per_execution=None,
        jit_compile=None,
        **kwargs,
    ):
        """Choose how the model is trained.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, callable, or list or dict of them by output, optional
        metrics, weighted_metrics : list of str, callable or Metric, optional
            For every output, or by output as a list of lists or a dict.
        loss_weights : list or dict of float, optional
        run_eagerly, steps_per_execution, jit_compile : optional
            Accepted and without effect: there is no graph to compile.

        Raises
        ------
        TypeError, ValueError
            If an argument names nothing known. Nothing has changed then.
        """
        unknown = set(kwargs) - {"from_serialized", "experimental_run_tf_function"}
        if unknown:
            raise TypeError(f"Invalid keyword argument(s) in `compile()`: {sorted(unknown)}")
        names = self.output_names
        compiled_loss = CompiledLoss(loss, loss_weights, names)
        named = kwargs.get("from_serialized", False)
        compiled_metrics = CompiledMetrics(metrics, weighted_metrics, names, named)
        self.__dict__.update(
            optimizer=optimizers.get(optimizer),
            loss=loss,
            compiled_loss=compiled_loss,
            compiled_metrics=compiled_metrics,
            _compile_arguments={
                "loss": loss,
                "metrics": metrics,
                "loss_weights": loss_weights,
                "weighted_metrics": weighted_metrics,
            },
        )

    @property
    def _is_compiled(self):
        return self.compiled_loss is not None

    def _assert_compiled(self):
        if not self._is_compiled:
            raise RuntimeError(
                "You must compile your model before training/testing. Use `model.compile(optimizer, loss)`."
            )

    # One batch

    @property
    def metrics(self):
        """Metrics of the losses, of `compile` and of the layers."""
        found = []
        if self._is_compiled:
            found += [*self.compiled_loss.metrics, *self.compiled_metrics.metrics]
        return found + super().metrics

    @property
    def metrics_names(self):
        """Names of `metrics`; those of `compile` exist once a batch has been seen."""
        return [metric.name for metric in self.metrics]

    def reset_metrics(self):
        """Set all metrics back to their start."""
        for metric in self.metrics:
            metric.reset_state()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The total loss of a batch; override it for another one."""
        return self.compiled_loss(y, y_pred, sample_weight, regularization_losses=self.losses)

    def compute_metrics(self, x, y, y_pred, sample_weight):
        """Update the compiled metrics with a batch and return all results by name."""
        self.compiled_metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """The current values of all metrics by name."""
        results = {}
        for metric in self.metrics:
            value = metric.result()
            if isinstance(value, dict):
                results.update(value)
            else:
                results[metric.name] = value
        return results

    def _check_loss(self, y, loss):
        if self.loss is not None and y is None:
            raise ValueError(
                f"Target data is missing. Your model was compiled with loss={self.loss}, and "
                "therefore expects target data to be provided in `fit()`."
            )
        if loss is None:
            raise TypeError(
                f"At least one loss is needed to train. Your model was compiled with "
                f"loss={self.loss}: give `compile()` a loss, or call `add_loss` in a layer."
            )

    def train_step(self, data):
        """Learn from one batch; override it for another way to learn.

        Parameters
        ----------
        data : tuple
            ``(x, y, sample_weight)``, some of them perhaps None.

        Returns
        -------
        dict of str to scalar
            What is shown as logs.
        """
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        with GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        self._check_loss(y, loss)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _train_step(self, data):
        return observed("step", "step", self.train_step)(data)

    def test_step(self, data):
        """Evaluate one batch."""
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        self.compute_loss(x, y, y_pred, sample_weight)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def predict_step(self, data):
        """The outputs for one batch."""
        return self(unpack_x_y_sample_weight(data)[0], training=False)

    def make_train_function(self, force=False):
        """The function that `fit` calls with an iterator of batches."""
        return lambda batches: self._train_step(next(batches))

    # Many batches

    @memory.held()
    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        max_queue_size=10,
        workers=1,
        use_multiprocessing=False,
    ):
        """Train.

        Parameters
        ----------
        x : array, list or dict of arrays, `Sequence`, generator, or iterable of batches
        y : array, list or dict of arrays, optional
        batch_size : int, optional
            32 by default; only for arrays.
        epochs : int
        verbose : {"auto", 0, 1, 2}
            Silent, a progress bar, or a line per epoch.
        callbacks : list of Callback, optional
        validation_split : float
            Share of the arrays, from their end, that is kept for validation.
        validation_data : tuple of arrays, or batches, optional
        shuffle : bool or "batch"
        class_weight : dict of int to float, optional
        sample_weight : array, optional
        initial_epoch : int
        steps_per_epoch, validation_steps : int, optional
            By default until the data ends.
        validation_batch_size : int, optional
        validation_freq : int or list of int
            Validate every so many epochs, or after these (counted from one).
        workers : int
            Unless it is zero, a thread prepares the next batch of a `Sequence`, generator or iterable while the model
            learns from the one before.
        max_queue_size, use_multiprocessing : optional
            Accepted and without effect.

        Returns
        -------
        History

        Raises
        ------
        RuntimeError
            If the model is not compiled.
        ValueError
            If arguments contradict each other.
        """
        self._assert_compiled()
        verbose = _verbosity(verbose)
        if validation_split:
            (x, y, sample_weight), held_out = split(x, y, sample_weight, validation_split)
            validation_data = validation_data if validation_data is not None else held_out
        validation = None
        if validation_data is not None:
            validation = _validation(validation_data, validation_batch_size or batch_size, validation_steps)
        data = Data(x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight)
        validates = _schedule(validation_freq)

        callbacks = self._callback_list(callbacks, add_history=True, verbose=verbose, epochs=epochs, steps=data.steps)
        self.stop_training = False
        logs = None
        # A callback that restores an interrupted training moves this on.
        self._resume_at = initial_epoch, 0
        callbacks.on_train_begin()
        initial_epoch, done = self._resume_at
        for epoch in range(initial_epoch, epochs):
            self.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs = {} if done else None
            for step, batch in enumerate(data.epoch(ahead=workers > 0)):
                if step < done:
                    continue
                callbacks.on_train_batch_begin(step)
                logs = _numbers(self._train_step(batch))
                callbacks.on_train_batch_end(step, logs)
                if self.stop_training:
                    break
            done = 0
            if logs is None:
                if epoch > initial_epoch:
                    break
                raise ValueError("Unexpected result of training: the data gave no batch.")
            logs = dict(logs)
            if validation is not None and validates(epoch):
                found = self._evaluate(validation, callbacks)
                logs.update({f"val_{name}": value for name, value in found.items()})
            callbacks.on_epoch_end(epoch, logs)
            if data.exhausted or self.stop_training:
                break
        callbacks.on_train_end(logs)
        return self.history

    def _callback_list(self, callbacks, add_history=False, verbose=0, epochs=1, steps=None):
        if isinstance(callbacks, callbacks_module.CallbackList):
            return callbacks
        return callbacks_module.CallbackList(
            callbacks,
            add_history=add_history,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
        )

    def _evaluate(self, data, callbacks):
        self.reset_metrics()
        callbacks.on_test_begin()
        logs = None
        with _memory_between_batches() as begin:
            for step, batch in enumerate(data.epoch()):
                begin(step)
                callbacks.on_test_batch_begin(step)
                logs = _numbers(self.test_step(batch))
                callbacks.on_test_batch_end(step, logs)
        if logs is None:
            raise ValueError("Unexpected result of evaluation: the data gave no batch.")
        callbacks.on_test_end(logs)
        return logs

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        max_queue_size=10,
        workers=1,
        use_multiprocessing=False,
        return_dict=False,
    ):
        """Loss and metrics on data; the arguments are those of `fit`.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss alone if there are no metrics; a dictionary if `return_dict`.
        """
        self._assert_compiled()
        data = Data(x, y, sample_weight, batch_size, steps)
        callbacks = self._callback_list(callbacks, verbose=_verbosity(verbose), steps=data.steps)
        logs = self._evaluate(data, callbacks)
        return logs if return_dict else _as_list(logs)

    def predict(
        self,
        x,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
        max_queue_size=10,
        workers=1,
        use_multiprocessing=False,
    ):
        """The outputs for data, batch by batch.

        Returns
        -------
        ndarray or nested structure of ndarray
        """
        data = Data(x, None, None, batch_size, steps)
        callbacks = self._callback_list(callbacks, verbose=_verbosity(verbose), steps=data.steps)
        callbacks.on_predict_begin()
        structure, parts = None, []
        with _memory_between_batches() as begin:
            for step, batch in enumerate(data.epoch()):
                begin(step)
                callbacks.on_predict_batch_begin(step)
                structure = map_structure(plain, self.predict_step(batch))
                parts.append(flatten(structure))
                callbacks.on_predict_batch_end(step, {"outputs": structure})
        callbacks.on_predict_end()
        if not parts:
            raise ValueError("Unexpected result of prediction: the data gave no batch.")
        joined = [np.concatenate(group) for group in zip(*parts, strict=True)]
        return pack_as(structure, joined)

    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        reset_metrics=True,
        return_dict=False,
    ):
        """Learn from one batch and return its loss and metrics.

        Memory that a step freed waits for the next one until the model is gone; `fit` gives it back at its end.
        """
        self._assert_compiled()
        (batch,) = _single(x, y, sample_weight, class_weight)
        if memory.holders() == 0:
            self.__dict__["_memory"] = memory.Hold()
        logs = _numbers(self._train_step(batch))
        if reset_metrics:
            self.reset_metrics()
        return logs if return_dict else _as_list(logs)

    def test_on_batch(self, x, y=None, sample_weight=None, reset_metrics=True, return_dict=False):
        """Loss and metrics of one batch."""
        self._assert_compiled()
        (batch,) = _single(x, y, sample_weight, None)
        logs = _numbers(self.test_step(batch))
        if reset_metrics:
            self.reset_metrics()
        return logs if return_dict else _as_list(logs)

    def predict_on_batch(self, x):
        """The outputs for one batch, as plain arrays."""
        (batch,) = _single(x, None, None, None)
        return map_structure(plain, self.predict_step(batch))


@contextlib.contextmanager
def _memory_between_batches():
    """Gives a function to call with the number of each batch; from the second on, very large arrays wait for the next.

    One batch alone would find anew what that of the call before gave back.
    """
    with contextlib.ExitStack() as stack:

        def begin(step):
            if step == 1:
                stack.enter_context(memory.held(modest=True))

        yield begin


def _single(x, y, sample_weight, class_weight):
    return Data(x, y, sample_weight, steps=1, class_weight=class_weight).epoch()


def _validation(data, batch_size, steps):
    if isinstance(data, (tuple, list)):
        x, y, sample_weight = unpack_x_y_sample_weight(tuple(data))
        return Data(x, y, sample_weight, batch_size, steps)
    return Data(data, None, None, None, steps)


def _schedule(frequency):
    """Whether to validate after an epoch, counted from zero."""
    if hasattr(frequency, "__index__"):
        if frequency < 1:
            raise ValueError(f"`validation_freq` must be positive. Received: {frequency}")
        return lambda epoch: (epoch + 1) % frequency == 0
    after = set(frequency)
    return lambda epoch: epoch + 1 in after


def _verbosity(verbose):
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"`verbose` must be 'auto', 0, 1 or 2. Received: {verbose!r}")
    return 1 if verbose == "auto" else int(verbose)


def _numbers(logs):
    """Logs as Python numbers, where they are scalars."""
    if not isinstance(logs, dict):
        raise TypeError(f"A step must return a dictionary of logs. Received: {type(logs)}")
    values = {name: plain(value) for name, value in logs.items()}
    return {name: value if value.ndim else float(value) for name, value in values.items()}


def _as_list(logs):
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
