"""What the architectures share: the arguments of their functions, their published weights, their last layers."""

from __future__ import annotations

import inspect
import os
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..keras import Input, Model, layers
from ..keras.symbolic import KerasTensor
from ..keras.utils import get_file

SIZE = 224

RELEASES = "https://github.com/larq/zoo/releases/download"

_ARGUMENTS = """
    Parameters
    ----------
    input_shape : (rows, columns, channels), optional
        Of one image; default (224, 224, 3). Without the top it may hold None, and by default does.
    input_tensor : symbolic tensor, optional
        What the network reads, in the place of an input of its own.
    weights : "imagenet", None or path, optional
        {weights}
    include_top : bool
        Whether the network ends in its classifier or in the last map of features.
    num_classes : int
        Outputs of the classifier.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        If the arguments do not fit together, or no file has the name that `weights` gives.
    FileNotFoundError
        If the published weights are neither here nor can be downloaded; the message says where to put them.
"""
_PUBLISHED = """Those that larq_zoo trained on ImageNet (the default), an initialization drawn anew, or a file.
        Published weights with the top want 224 x 224 x 3 images and 1000 classes."""
_UNPUBLISHED = "An initialization drawn anew (the default), or a file; none were published."


class File(NamedTuple):
    """A file of a larq_zoo release.

    Attributes
    ----------
    release : str
        Its folder among the releases: name and version.
    name : str
    sha256 : str
    """

    release: str
    name: str
    sha256: str

    def path(self) -> str:
        """Where it lies on this machine: in larq_zoo's cache, to which it is downloaded if it is not there."""
        folder = self.release.rpartition("-v")[0]
        return get_file(
            self.name,
            f"{RELEASES}/{self.release}/{self.name}",
            cache_subdir=f"larq/models/{folder}",
            file_hash=self.sha256,
        )


class Published(NamedTuple):
    """Weights trained on ImageNet, of the whole network and of the one without its classifier."""

    top: File
    no_top: File


Draw = Callable[[Any, "int | None"], Any]


def architecture(name: str, published: Published | None = None) -> Callable[[Draw], Callable[..., Model]]:
    """Decorator: turn ``draw(image, num_classes)`` into a function with the arguments that every architecture has.

    Parameters
    ----------
    name : str
        Of the model.
    published : Published, optional

    Notes
    -----
    `draw` returns the output for a symbolic image; `num_classes` is None if there shall be no top.
    """
    default = "imagenet" if published else None

    def decorate(draw: Draw) -> Callable[..., Model]:
        def build(
            *,
            input_shape: Sequence[int | None] | None = None,
            input_tensor: Any = None,
            weights: str | os.PathLike[str] | None = default,
            include_top: bool = True,
            num_classes: int = 1000,
        ) -> Model:
            title = draw.__name__
            _check_weights(title, weights, published, include_top, num_classes)
            shape = _image_shape(title, input_shape, weights, include_top)
            if input_tensor is None:
                input_tensor = Input(shape)
            elif not isinstance(input_tensor, KerasTensor):
                raise TypeError(
                    f"{title}(): argument 'input_tensor' must be a symbolic tensor, such as "
                    f"`keras.layers.Input()` returns, got {type(input_tensor).__name__}"
                )
            if weights == "imagenet" and published:
                weights = (published.top if include_top else published.no_top).path()
            model = Model(input_tensor, draw(input_tensor, num_classes if include_top else None), name=name)
            if weights is not None:
                model.load_weights(weights)
            return model

        build.__name__ = build.__qualname__ = draw.__name__
        build.__module__ = draw.__module__
        first, _, rest = inspect.cleandoc(draw.__doc__ or "").partition("\n\n")
        arguments = textwrap.dedent(_ARGUMENTS.format(weights=_PUBLISHED if published else _UNPUBLISHED))
        build.__doc__ = f"{first}\n{arguments}\n{rest}"
        return build

    return decorate


def _check_weights(title: str, weights: Any, published: Published | None, include_top: bool, num_classes: int) -> None:
    if weights is None:
        return
    if weights == "imagenet":
        if published is None:
            raise ValueError(f"{title}(): argument 'weights' cannot be 'imagenet': none were published")
        if include_top and num_classes != 1000:
            raise ValueError(
                f"{title}(): argument 'num_classes' must be 1000 with the published weights and their top, "
                f"got {num_classes}"
            )
    elif not os.path.exists(weights):
        raise ValueError(
            f"{title}(): argument 'weights' must be None, 'imagenet' or the path of a file that is there, "
            f"got {weights!r}"
        )


def _image_shape(title: str, shape: Any, weights: Any, include_top: bool) -> tuple[int | None, ...]:
    """The shape of an image, as Keras's applications choose and check it."""
    if shape is None:
        return (SIZE, SIZE, 3) if include_top else (None, None, 3)
    shape = tuple(shape)
    if len(shape) != 3:
        raise ValueError(f"{title}(): argument 'input_shape' must be three integers, got {shape}")
    if weights == "imagenet" and include_top and shape != (SIZE, SIZE, 3):
        raise ValueError(
            f"{title}(): argument 'input_shape' must be {(SIZE, SIZE, 3)} with the published weights and their top, "
            f"got {shape}"
        )
    if weights == "imagenet" and shape[2] != 3:
        raise ValueError(f"{title}(): the published weights want 3 channels, got argument 'input_shape' {shape}")
    if include_top and None in shape:
        raise ValueError(f"{title}(): argument 'input_shape' may not hold None with the top, got {shape}")
    if shape[2] not in (1, 3):
        warnings.warn(f"{title}() usually expects 1 or 3 input channels, got {shape[2]}", stacklevel=4)
    return shape


def global_pool(x: Any, name: str | None = None) -> Any:
    """The mean of each channel of (batch, rows, columns, C), as (batch, C).

    As in larq_zoo, a pooling of the whole map and a flattening if its size is known, and one layer if it is not.
    """
    size = tuple(x.shape[1:3])
    if None in size:
        return layers.GlobalAveragePooling2D(name=name)(x)
    x = layers.AveragePooling2D(size, name=name and f"{name}_pool")(x)
    return layers.Flatten(name=name and f"{name}_flatten")(x)


def small(image: Any) -> bool:
    """Whether images are of a size for which networks of residual and dense blocks keep the resolution at first."""
    return image.shape[1] is not None and image.shape[1] < 50
