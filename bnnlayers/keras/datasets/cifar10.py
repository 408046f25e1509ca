"""60,000 small colour images of ten kinds (Krizhevsky, 2009)."""

import pickle
from pathlib import Path

import numpy as np

from .. import backend
from ..utils import get_file

_ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def load_data(cache_dir=None):
    """Load CIFAR-10.

    Parameters
    ----------
    cache_dir : path, optional
        By default ``~/.keras``; its ``datasets`` holds ``cifar-10-batches-py.tar.gz`` and what is in it.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray
        Images ``uint8 (50000, 32, 32, 3)`` and ``(10000, 32, 32, 3)``, or with the channels first if that is
        `keras.backend.image_data_format`; labels ``uint8 (50000, 1)`` and ``(10000, 1)``.

    Raises
    ------
    FileNotFoundError
        If the file is not in the cache and cannot be downloaded.
    pickle.UnpicklingError
        If a file holds anything but arrays and text.
    """
    folder = Path(
        get_file("cifar-10-batches-py", _ORIGIN, untar=True, file_hash=_SHA256, cache_dir=cache_dir)
    )
    batches = [_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True)), _batch(folder / "test_batch")


def _batch(path):
    with open(path, "rb") as file:
        batch = _Unpickler(file, encoding="bytes").load()
    images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
    if backend.image_data_format() == "channels_last":
        images = images.transpose(0, 2, 3, 1)
    return images, np.asarray(batch[b"labels"], np.uint8).reshape(-1, 1)


class _Unpickler(pickle.Unpickler):
    """Makes arrays and nothing else: a pickle can name any function to be called."""

    def find_class(self, module, name):
        numpy = module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype")
        if numpy or (module, name) == ("_codecs", "encode"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"cifar10: expected arrays, received {module}.{name}")
