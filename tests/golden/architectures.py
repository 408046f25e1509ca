"""Sizes of images for larq_zoo's architectures, and weights for them that need not be stored."""

import math
import zlib

import numpy as np

CLASSES = 10

# XNOR-Net's last convolution wants 6 x 6 pixels after three poolings.
ARCHITECTURES = {
    "BinaryAlexNet": 64,
    "BiRealNet": 64,
    "BinaryResNetE18": 64,
    "BinaryDenseNet28": 64,
    "BinaryDenseNet37": 64,
    "BinaryDenseNet37Dilated": 64,
    "BinaryDenseNet45": 64,
    "DoReFaNet": 64,
    "MeliusNet22": 64,
    "XNORNet": 217,
    "RealToBinaryNet": 64,
    "RealToBinNetBAN": 64,
    "RealToBinNetFP": 64,
    "StrongBaselineNetBNN": 64,
    "StrongBaselineNetBAN": 64,
    "ResNet18FP": 64,
    "QuickNet": 64,
    "QuickNetSmall": 64,
    "QuickNetLarge": 64,
}


def draw_images(size):
    rng = np.random.default_rng(size)
    return rng.standard_normal((2, size, size, 3), np.float32)


def draw_photographs():
    """Images of several shapes and types for `preprocess_input`."""
    rng = np.random.default_rng(zlib.crc32(b"zoo_images"))
    for rows, columns, dtype in ((256, 256, "uint8"), (61, 90, "uint8"), (300, 290, "float32")):
        yield rng.integers(0, 256, (rows, columns, 3)).astype(dtype)


def draw_weights(model, exponents=None):
    """Weights that depend on their names and shapes alone.

    `exponents` are powers of two of the variances, one for each normalization: with variances near what comes in,
    nothing saturates on its way.
    """
    owners = [w.name.rpartition("/")[0] for w in model.weights if w.name.endswith("moving_variance:0")]
    exponents = [0] * len(owners) if exponents is None else exponents
    spread = {owner: 2.0**exponent for owner, exponent in zip(owners, exponents, strict=True)}
    return [_draw(weight, spread) for weight in model.weights]


def _draw(weight, spread):
    owner, _, kind = weight.name.removesuffix(":0").rpartition("/")
    shape = tuple(weight.shape)
    rng = np.random.default_rng(zlib.crc32(weight.name.encode()))
    if kind in ("gamma", "scale_h", "scale_w", "scale_c"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind == "moving_variance":
        return (rng.uniform(0.5, 1.5, shape) * spread[owner]).astype(np.float32)
    normal = rng.standard_normal(shape, np.float32)
    if kind == "moving_mean":
        return normal * np.float32(0.3 * math.sqrt(spread[owner]))
    if kind in ("beta", "bias", "alpha"):
        return normal * np.float32(0.3)
    # A depthwise kernel has its taps alone for terms of a sum.
    terms = math.prod(shape[:2] if kind == "depthwise_kernel" else shape[:-1])
    return normal / np.float32(math.sqrt(terms))
