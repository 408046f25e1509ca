"""Batches from whatever `fit`, `evaluate` and `predict` are given."""

from __future__ import annotations

import math
import queue
import threading
import warnings

import numpy as np

from ...tape import plain
from .. import backend
from ..structure import flatten, is_nested, map_structure
from ..utils import Sequence


def unpack_x_y_sample_weight(data):
    """A batch as ``(x, y, sample_weight)``; what is missing is None.

    Raises
    ------
    ValueError
        If a tuple has more than three entries.
    """
    if not isinstance(data, tuple):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            "Data is expected to be in format `x`, `(x,)`, `(x, y)`, or "
            f"`(x, y, sample_weight)`. Received a tuple of {len(data)}."
        )
    return (*data, None, None)[:3]


def pack_x_y_sample_weight(x, y=None, sample_weight=None):
    """The inverse of `unpack_x_y_sample_weight`."""
    if y is None:
        return x if not is_nested(x) else (x,)
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def as_arrays(value, what):
    """A structure of plain arrays; a list of numbers is one array.

    Raises
    ------
    ValueError
        If something in it is no array of numbers with a batch axis.
    """
    if value is None:
        return None
    if is_nested(value) and not (isinstance(value, dict) or any(hasattr(leaf, "shape") for leaf in flatten(value))):
        value = np.asarray(value)

    def one(leaf):
        if leaf is None:
            return None
        array = plain(leaf)
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise ValueError(
                f"Failed to convert `{what}` to arrays of numbers with a batch axis. Received: "
                f"{type(leaf).__name__} of dtype {array.dtype} and shape {array.shape}."
            )
        return array

    return map_structure(one, value)


def _count(*groups):
    """The number of samples that all arrays share."""
    sizes = {name: sorted({len(a) for a in flatten(group) if a is not None}) for name, group in groups}
    counts = {size for found in sizes.values() for size in found}
    if len(counts) > 1:
        listed = "\n".join(f"  {n} sizes: {', '.join(map(str, s))}" for n, s in sizes.items() if s)
        raise ValueError(
            f"Data cardinality is ambiguous:\n{listed}\nMake sure all arrays contain the same number of samples."
        )
    if not counts:
        raise ValueError("Expected input data. Received: x=None")
    return counts.pop()


def split(x, y, sample_weight, fraction):
    """Arrays as a training part and the last `fraction` of them."""
    if not 0 < fraction < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1. Received: {fraction}")
    if not _is_arrays(x):
        raise ValueError(
            "`validation_split` is only supported for Tensors or NumPy arrays, found following "
            f"types in the input: {type(x)}"
        )
    arrays = as_arrays(x, "x"), as_arrays(y, "y"), as_arrays(sample_weight, "sample_weight")
    count = _count(*zip(("x", "y", "sample_weight"), arrays, strict=True))
    at = math.floor(count * (1 - fraction))
    if at in (0, count):
        raise ValueError(
            f"Training data contains {count} samples, which is not sufficient to split it into a "
            f"validation and training set as specified by `validation_split={fraction}`. Either "
            "provide more data, or a different value for the `validation_split` argument."
        )

    def part(where):
        return tuple(map_structure(lambda a: None if a is None else a[where], group) for group in arrays)

    return part(slice(at)), part(slice(at, None))


def _is_arrays(x):
    return x is None or isinstance(x, (list, tuple, dict)) or hasattr(x, "shape")


class Data:
    """Batches, epoch after epoch.

    Parameters
    ----------
    x : arrays, `Sequence`, generator, or iterable of batches
        Batches are ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.
    y, sample_weight : arrays, optional
        Only beside arrays.
    batch_size : int, optional
    steps : int, optional
        Batches of an epoch; by default until the data ends.
    shuffle : bool or "batch"
        Whether arrays and sequences come in another order each epoch.
    class_weight : dict of int to float, optional

    Attributes
    ----------
    steps : int or None
        Batches of an epoch, as far as it is known.

    Raises
    ------
    ValueError
        If arguments contradict each other or the data.
    """

    def __init__(
        self,
        x,
        y=None,
        sample_weight=None,
        batch_size=None,
        steps=None,
        shuffle=False,
        class_weight=None,
    ):
        for name, value in (("batch_size", batch_size), ("steps", steps)):
            if value is not None and (not hasattr(value, "__index__") or value < 1):
                raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}")
        self._class_weights = None if class_weight is None else _weight_table(class_weight)
        self._shuffle = shuffle
        self._limit = self.steps = steps
        self._iterator = None
        self.exhausted = False
        if _is_arrays(x):
            self._from_arrays(x, y, sample_weight, batch_size)
            return
        if not hasattr(x, "__iter__") and not isinstance(x, Sequence):
            raise ValueError(f"Failed to find batches in input of type {type(x)}.")
        kind = "keras.utils.Sequence" if isinstance(x, Sequence) else type(x).__name__
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(f"`{name}` argument is not supported when using `{kind}` as input.")
        if batch_size is not None:
            raise ValueError(
                "The `batch_size` argument must not be specified for the given input type. "
                f"Received input: {kind}, batch_size: {batch_size}"
            )
        self._source = x
        self._once = hasattr(x, "__next__")
        if steps is None and hasattr(x, "__len__"):
            self.steps = len(x)
        self._epoch = Data._sequence if isinstance(x, Sequence) else Data._iterate

    def _from_arrays(self, x, y, sample_weight, batch_size):
        self._arrays = (
            as_arrays(x, "x"),
            as_arrays(y, "y"),
            as_arrays(sample_weight, "sample_weight"),
        )
        count = _count(*zip(("x", "y", "sample_weight"), self._arrays, strict=True))
        if batch_size is None:
            batch_size = math.ceil(count / self._limit) if self._limit else 32
        self._samples, self._batch_size = count, max(1, int(batch_size))
        available = math.ceil(count / self._batch_size)
        self.steps = available if self._limit is None else self._limit
        self._once = False
        self._epoch = Data._slices  # not bound: arrays in a cycle would outlive their step

    def _slices(self):
        size, count = self._batch_size, self._samples
        starts = np.arange(0, count, size)
        order = None
        if self._shuffle == "batch":
            starts = backend.random_generator().permutation(starts)
        elif self._shuffle:
            order = backend.random_generator().permutation(count)
        for start in starts:
            where = slice(start, start + size) if order is None else order[start : start + size]
            yield tuple(map_structure(lambda a, where=where: _take(a, where), group) for group in self._arrays)

    def _sequence(self):
        order = range(len(self._source))
        if self._shuffle:
            order = backend.random_generator().permutation(len(self._source))
        for i in order:
            yield _as_tuple(self._source[int(i)])
        self._source.on_epoch_end()

    def _iterate(self):
        if not self._once:
            return map(_as_tuple, iter(self._source))
        if self._iterator is None:
            self._iterator = map(_as_tuple, self._source)
        return self._iterator

    def epoch(self, ahead=False):
        """The batches of one epoch, as ``(x, y, sample_weight)``.

        With `ahead`, those that someone else makes are prepared by a thread; to cut them out of arrays is too little.
        """
        return prepared_ahead(self._batches()) if ahead and self._epoch is not Data._slices else self._batches()

    def _batches(self):
        batches = self._epoch(self)
        done = 0
        while self._limit is None or done < self._limit:
            try:
                batch = next(batches)
            except StopIteration:
                self._ended(done)
                return
            yield self._weigh(batch)
            done += 1

    def _ended(self, done):
        if self._limit is not None and done < self._limit:
            self.exhausted = True
            warnings.warn(
                "Your input ran out of data; interrupting. Make sure that your dataset or generator "
                f"can generate at least {self._limit} batches per epoch. Received {done}.",
                stacklevel=4,
            )
        elif not done:
            self.exhausted = True
        elif self.steps is None:
            self.steps = done

    def _weigh(self, batch):
        if self._class_weights is None:
            return batch
        x, y, sample_weight = batch
        if is_nested(y):
            raise ValueError("`class_weight` is only supported for Models with a single output.")
        y = plain(y)
        classes = np.argmax(y, axis=-1) if y.ndim >= 2 and y.shape[-1] > 1 else y.reshape(len(y))
        classes = classes.astype(np.int64)
        table = self._class_weights
        if classes.size and not 0 <= classes.min() <= classes.max() < len(table):
            raise ValueError(
                f"`class_weight` has no weight for class {classes.max()}: its keys are 0 to {len(table) - 1}."
            )
        weights = table[classes]
        if sample_weight is not None:
            weights = weights * np.asarray(plain(sample_weight))
        return x, y, weights


def prepared_ahead(batches):
    """The same batches, each prepared by a thread of its own while the one before it is in use.

    Nothing waits for the thread but who asks for a batch: it may be left in the middle of one.
    """
    wanted: queue.SimpleQueue = queue.SimpleQueue()
    ready: queue.SimpleQueue = queue.SimpleQueue()

    def prepare():
        while wanted.get():
            try:
                ready.put((next(batches), None))
            except BaseException as error:
                ready.put((None, error))

    threading.Thread(target=prepare, name="batches", daemon=True).start()
    try:
        wanted.put(True)
        while True:
            batch, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.put(True)
            yield batch
    finally:
        wanted.put(False)


def _take(array, where):
    if array is None:
        return None
    part = array[where]
    if part.dtype.kind == "f" and part.dtype != backend.floatx():
        part = part.astype(backend.floatx())
    return part


def _as_tuple(batch):
    if isinstance(batch, list):
        batch = tuple(batch)
    return unpack_x_y_sample_weight(batch)


def _weight_table(class_weight):
    classes = sorted(class_weight)
    if classes != list(range(len(classes))):
        raise ValueError(
            "Expected `class_weight` to be a dict with keys from 0 to one less than the number of "
            f"classes, found {class_weight}"
        )
    return np.array([class_weight[c] for c in classes], np.float32)
