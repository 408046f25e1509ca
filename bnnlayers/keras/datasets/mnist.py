"""70,000 handwritten digits (LeCun, Bottou, Bengio and Haffner, 1998)."""

import numpy as np

from ..utils import get_file

_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def load_data(path="mnist.npz", cache_dir=None):
    """Load MNIST.

    Parameters
    ----------
    path : str
        Name of the file in ``datasets`` of the cache.
    cache_dir : path, optional
        By default ``~/.keras``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray
        Images ``uint8 (60000, 28, 28)`` and ``(10000, 28, 28)``; labels ``uint8 (60000,)`` and ``(10000,)``.

    Raises
    ------
    FileNotFoundError
        If the file is not in the cache and cannot be downloaded.
    """
    with np.load(get_file(path, _ORIGIN, file_hash=_SHA256, cache_dir=cache_dir), allow_pickle=False) as file:
        return (file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])
