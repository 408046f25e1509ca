"""70,000 articles of clothing (Xiao, Rasul and Vollgraf, 2017)."""

import gzip

import numpy as np

from ..utils import get_file

_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def load_data(cache_dir=None):
    """Load Fashion-MNIST.

    Parameters
    ----------
    cache_dir : path, optional
        By default ``~/.keras``; the files are in its ``datasets/fashion-mnist``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of ndarray
        Images ``uint8 (60000, 28, 28)`` and ``(10000, 28, 28)``; labels ``uint8 (60000,)`` and ``(10000,)``.

    Raises
    ------
    FileNotFoundError
        If a file is not in the cache and cannot be downloaded.
    """
    return _part("train", cache_dir), _part("t10k", cache_dir)


def _part(prefix, cache_dir):
    images = _values(f"{prefix}-images-idx3-ubyte.gz", 16, cache_dir)
    return images.reshape(-1, 28, 28), _values(f"{prefix}-labels-idx1-ubyte.gz", 8, cache_dir)


def _values(name, header, cache_dir):
    path = get_file(
        name, _ORIGIN + name, md5_hash=_MD5[name], cache_subdir="datasets/fashion-mnist", cache_dir=cache_dir
    )
    with gzip.open(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)
