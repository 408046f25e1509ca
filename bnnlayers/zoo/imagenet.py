"""Images as ImageNet's networks want them, and what their outputs mean."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from ..keras.utils import get_file
from ..tape import Tensor, convert_to_tensor, plain
from .core import SIZE

MEAN_RGB = np.array([0.485, 0.456, 0.406], np.float32) * 255
STDDEV_RGB = np.array([0.229, 0.224, 0.225], np.float32) * 255

# Of the smaller side of an image, how much is kept: as for 224 of 256 pixels.
_KEPT = np.float32(SIZE / (SIZE + 32))
_STEPS = 1024


def preprocess_input(image: Any) -> Any:
    """Crop, resize and normalize an image, as larq_zoo's networks were trained on.

    The square in the middle, 7/8 of the smaller side, is resized to 224 x 224 with bicubic interpolation; then the
    channels get ImageNet's mean 0 and deviation 1.

    Parameters
    ----------
    image : array or Tensor of shape (rows, columns, 3)
        Values from 0 to 255.

    Returns
    -------
    ndarray or Tensor of shape (224, 224, 3), float32
        An ndarray for an ndarray.

    Raises
    ------
    ValueError
        If the image has other than three axes, or other than three channels.
    """
    shape = np.shape(plain(image))
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"preprocess_input(): argument 'image' must have shape (rows, columns, 3), got {shape}")
    rows, columns = shape[:2]
    side = int(_KEPT * np.float32(min(rows, columns)))
    if side == 0:
        raise ValueError(f"preprocess_input(): argument 'image' is too small to be cropped, got shape {shape}")
    top, left = (rows - side + 1) // 2, (columns - side + 1) // 2
    square = np.asarray(plain(image)[top : top + side, left : left + side], np.float32)
    weights = _bicubic(side)
    resized = np.einsum("ri,sj,ijc->rsc", weights, weights, square, optimize=True)
    result = (resized - MEAN_RGB) / STDDEV_RGB
    return result if isinstance(image, np.ndarray) and not isinstance(image, Tensor) else convert_to_tensor(result)


def _bicubic(length: int) -> Any:
    """Matrix (224, length) of cubic convolution with a = -0.75.

    As in TensorFlow 1: the first pixels of both images coincide, the last pixel is repeated beyond the border, and
    distances are rounded to 1/1024.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    at = np.arange(SIZE, dtype=np.float32) * np.float32(length / SIZE)
    first = np.floor(at).astype(int)
    t = np.rint((at - first) * _STEPS) / _STEPS
    matrix = np.zeros((SIZE, length), np.float32)
    for k in (-1, 0, 1, 2):
        distance = np.abs(t - k)
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        pixel = np.clip(first + k, 0, length - 1)
        np.add.at(matrix, (np.arange(SIZE), pixel), np.where(distance <= 1, near, far).astype(np.float32))
    return matrix


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, Any]]]:
    """The most probable of ImageNet's classes for each image.

    Parameters
    ----------
    preds : array of shape (images, 1000)
        What a network returned.
    top : int
        How many classes.

    Returns
    -------
    list of list of (str, str, float)
        For each image (WordNet id, name, prediction), the highest first.

    Raises
    ------
    ValueError
        If `preds` has another shape.
    FileNotFoundError
        If the names of the classes are neither in Keras's cache nor can be downloaded.
    """
    preds = np.asarray(plain(preds))
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(f"decode_predictions(): argument 'preds' must have shape (images, 1000), got {preds.shape}")
    classes = _classes()
    return [[(*classes[i], row[i]) for i in row.argsort()[-top:][::-1]] for row in preds]


@functools.cache
def _classes() -> list[tuple[str, str]]:
    path = get_file(
        "imagenet_class_index.json",
        "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
        cache_subdir="models",
        file_hash="c2c37ea517e94d9795004a39431a14cb",
    )
    with open(path) as file:
        index = json.load(file)
    return [tuple(index[str(i)]) for i in range(1000)]
