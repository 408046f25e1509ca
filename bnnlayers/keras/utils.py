"""Names, configurations and the small conveniences of ``keras.utils``.

Every family of Keras objects (initializers, losses, ...) can be written as a name, as a
configuration or as an object. `Family` is that mechanism, once; each module instantiates it with
its own objects.
"""

import hashlib
import inspect
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from . import backend

_custom_objects: dict[str, Any] = {}
_registered_names: dict[Any, str] = {}
_scoped_objects: ContextVar[Mapping[str, Any]] = ContextVar("scoped_objects")


def to_snake_case(name: str) -> str:
    """Return the name Keras derives from a class name: ``QuantConv2D`` gives ``quant_conv2d``."""
    snake = re.sub(r"(?<=.)(?=[A-Z][a-z0-9])|(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return "private" + snake if snake.startswith("_") else snake


def get_custom_objects() -> dict[str, Any]:
    """Return the global dictionary of custom objects, which may be changed in place."""
    return _custom_objects


class CustomObjectScope:
    """Names that are known while a ``with`` block runs, in this thread.

    Parameters
    ----------
    *args : dict of str to object
        Later dictionaries win over earlier ones and over enclosing scopes.
    """

    def __init__(self, *args: Mapping[str, Any]):
        self.custom_objects = args
        self._tokens: list = []

    def __enter__(self):
        merged = dict(_scoped_objects.get({}))
        for objects in self.custom_objects:
            merged.update(objects)
        self._tokens.append(_scoped_objects.set(merged))
        return self

    def __exit__(self, *exc_info):
        _scoped_objects.reset(self._tokens.pop())


custom_object_scope = CustomObjectScope


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable:
    """Decorate a class or function so that files and configurations know it as ``package>name``.

    Raises
    ------
    ValueError
        If a class has no ``get_config``.
    """

    def register(obj):
        if inspect.isclass(obj) and not hasattr(obj, "get_config"):
            raise ValueError(
                f"register_keras_serializable: expected a class with get_config(), received {obj!r}"
            )
        registered_name = f"{package}>{name or obj.__name__}"
        _custom_objects[registered_name] = obj
        _registered_names[obj] = registered_name
        return obj

    return register


def get_registered_name(obj: Any) -> str:
    """Return the name under which a class or function was registered, else its own."""
    return _registered_names.get(obj) or obj.__name__


def get_registered_object(
    name: str,
    custom_objects: Mapping[str, Any] | None = None,
    module_objects: Mapping[str, Any] | None = None,
) -> Any:
    """Look a name up in the scopes, the global custom objects and the arguments, in this order."""
    for objects in (_scoped_objects.get({}), _custom_objects, custom_objects, module_objects):
        if objects and name in objects:
            return objects[name]
    return None


def serialize_keras_object(obj: Any) -> Any:
    """Return ``{"class_name", "config"}`` of an object, or the name of a function.

    Raises
    ------
    ValueError
        If it has neither ``get_config`` nor a name.
    """
    if obj is None:
        return None
    if hasattr(obj, "get_config") and not inspect.isclass(obj):
        return {"class_name": get_registered_name(type(obj)), "config": obj.get_config()}
    if hasattr(obj, "__name__"):
        return get_registered_name(obj)
    raise ValueError(
        "serialize_keras_object: expected an object with get_config() or a function, "
        f"received {obj!r}"
    )


def deserialize_keras_object(
    identifier: Any,
    module_objects: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    printable_module_name: str = "object",
) -> Any:
    """Return the object that a name or a configuration describes.

    The configurations of every tf_keras 2.x release are read, with or without ``module`` and
    ``registered_name``.

    Raises
    ------
    ValueError
        If the name is unknown or the configuration is none.
    """
    if identifier is None:
        return None
    config: Any = {}
    name = identifier
    if isinstance(identifier, Mapping):
        if "class_name" not in identifier or "config" not in identifier:
            raise ValueError(
                f"{printable_module_name}: expected a configuration with class_name and config, "
                f"received {dict(identifier)!r}"
            )
        config = identifier["config"]
        registered = identifier.get("registered_name")
        name = config if identifier["class_name"] == "function" else identifier["class_name"]
        if registered and get_registered_object(registered, custom_objects) is not None:
            name = registered
    if not isinstance(name, str):
        raise ValueError(
            f"{printable_module_name}: expected a name or a configuration, received {identifier!r}"
        )
    obj = get_registered_object(name, custom_objects, module_objects)
    if obj is None:
        raise ValueError(
            f"Unknown {printable_module_name}: {name!r}. Expected one of "
            f"{sorted(module_objects or ())}, or one given by keras.utils.custom_object_scope or "
            "keras.utils.get_custom_objects"
        )
    if not inspect.isclass(obj):
        return obj
    # The scope, not an argument, carries the custom objects to whatever from_config deserializes in
    # turn.
    with CustomObjectScope(custom_objects or {}):
        if isinstance(identifier, str):
            return obj()
        return obj.from_config(config) if hasattr(obj, "from_config") else obj(**config)


class Family:
    """The ``get``, ``serialize`` and ``deserialize`` of one kind of Keras object.

    Parameters
    ----------
    kind : str
        What an error message calls them, such as ``"initializer"``.
    objects : iterable of classes and functions
        Each is known under its name, a class also in snake case.
    aliases : mapping of str to object, optional
        Further names.
    base : type, optional
        Instances of it are accepted even where they are not callable.
    error : type
        What `get` raises for an argument of the wrong kind.
    """

    def __init__(
        self,
        kind: str,
        objects: Iterable[Any],
        aliases: Mapping[str, Any] | None = None,
        *,
        base: type | None = None,
        error: type[Exception] = ValueError,
    ):
        self.kind = kind
        self.base = base
        self.error = error
        self.objects: dict[str, Any] = {}
        for obj in objects:
            self.objects[obj.__name__] = obj
            if inspect.isclass(obj):
                self.objects.setdefault(to_snake_case(obj.__name__), obj)
        self.objects.update(aliases or {})

    def get(self, identifier: Any) -> Any:
        """Return the object that a name, a configuration, a class or an object stands for."""
        if identifier is None or isinstance(identifier, (str, Mapping)):
            return self.deserialize(identifier)
        if inspect.isclass(identifier):
            return identifier()
        if callable(identifier) or (self.base is not None and isinstance(identifier, self.base)):
            return identifier
        raise self.error(
            f"Could not interpret {self.kind} identifier: expected a name or an object, "
            f"received {identifier!r}"
        )

    def serialize(self, obj: Any) -> Any:
        """Return the name or configuration from which `deserialize` makes the object again."""
        return serialize_keras_object(obj)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """Return the object that a name or a configuration describes."""
        return deserialize_keras_object(config, self.objects, custom_objects, self.kind)


class Configurable:
    """What is made again by calling its class with its configuration."""

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal object."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]):
        """Make an object from what `get_config` returned."""
        return cls(**config)


def set_random_seed(seed: int) -> None:
    """Seed Python's ``random``, NumPy's global generator and the one this library draws from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    backend.seed_random_generator(seed)


def to_categorical(y, num_classes: int | None = None, dtype="float32") -> np.ndarray:
    """Turn class numbers into one-hot rows.

    Parameters
    ----------
    y : array_like of int
        Class numbers; a last axis of length one is dropped.
    num_classes : int, optional
        Defaults to the largest number plus one.
    dtype : dtype
        Of the result.

    Returns
    -------
    ndarray
        Of shape ``y.shape + (num_classes,)``.

    Raises
    ------
    ValueError
        If a number is negative or not below `num_classes`.
    """
    y = np.array(y, dtype="int")
    shape = y.shape[:-1] if y.ndim > 1 and y.shape[-1] == 1 else y.shape
    y = y.reshape(-1)
    if not num_classes:
        num_classes = int(y.max(initial=-1)) + 1
    if y.size and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(
            f"to_categorical: y: expected numbers in [0, {num_classes}), "
            f"received [{y.min()}, {y.max()}]"
        )
    categorical = np.zeros((y.size, num_classes), dtype=dtype)
    categorical[np.arange(y.size), y] = 1
    return categorical.reshape(*shape, num_classes)


class Sequence:
    """A data set in batches: ``__getitem__`` returns a batch, ``__len__`` their number."""

    def __getitem__(self, index: int):
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must implement __len__()")

    def on_epoch_end(self) -> None:
        """Called after every epoch."""

    def __iter__(self):
        for index in range(len(self)):
            yield self[index]


def get_file(
    fname: str | os.PathLike | None = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: str = "auto",
    cache_dir: str | os.PathLike | None = None,
) -> str:
    """Find a file in the cache, or download it; that takes the package `pooch`.

    Parameters
    ----------
    fname : str, optional
        Its name in the cache; by default the last part of `origin`.
    origin : str
        Where it comes from, an http or https address.
    untar : bool
        Whether it is a ``.tar.gz`` archive; `fname` is then the name of the folder in it.
    md5_hash, file_hash : str, optional
        What the file must hash to.
    cache_subdir : str
    hash_algorithm : {"auto", "md5", "sha256"}
    extract : bool
        Whether to unpack the file beside it.
    archive_format : optional
        Accepted and without effect: the file shows it.
    cache_dir : path, optional
        By default ``KERAS_HOME``, else ``~/.keras``.

    Returns
    -------
    str
        Path of the file, or of the folder if `untar`.

    Raises
    ------
    FileNotFoundError
        If the file is not in the cache and cannot be downloaded; the message says what to put where.
    """
    if origin is None:
        raise ValueError('get_file: expected an "origin", the address of the file')
    name = os.fspath(fname or os.path.basename(origin))
    folder = Path(cache_dir or backend.home()).expanduser() / cache_subdir
    unpacked = folder / name.removesuffix(".tar.gz")
    path = unpacked.with_name(unpacked.name + ".tar.gz") if untar else folder / name
    if md5_hash is not None and file_hash is None:
        file_hash, hash_algorithm = md5_hash, "md5"
    elif file_hash is not None and hash_algorithm == "auto":
        hash_algorithm = "md5" if len(file_hash) == 32 else "sha256"
    if not (path.exists() and (file_hash is None or _hash(path, hash_algorithm) == file_hash)):
        if untar and unpacked.exists() and not path.exists():
            return str(unpacked)
        _download(origin, path, f"{hash_algorithm}:{file_hash}" if file_hash else None)
    if extract or (untar and not unpacked.exists()):
        safely: Any = {"filter": "data"} if tarfile.is_tarfile(path) else {}
        shutil.unpack_archive(path, folder, **safely)
    return str(unpacked if untar else path)


def _hash(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _download(origin: str, path: Path, known_hash: str | None) -> None:
    try:
        import pooch

        pooch.retrieve(origin, known_hash, path.name, path.parent, progressbar=True)
    except ModuleNotFoundError as error:
        reason = "the package pooch, which downloads, is not installed (pip install 'bnnlayers[datasets]')"
        raise FileNotFoundError(_wanted(origin, path, reason)) from error
    # The ways in which a download fails are OSErrors; a wrong hash is a ValueError.
    except (OSError, ValueError) as error:
        raise FileNotFoundError(_wanted(origin, path, str(error))) from error


def _wanted(origin: str, path: Path, reason: str) -> str:
    return f"{path} is missing or damaged and could not be downloaded: {reason}. Put there what {origin} holds."
