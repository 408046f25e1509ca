"""Cached files: found, downloaded, or explained; and what the data sets read from them."""

import builtins
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy as np
import pytest

from bnnlayers.keras import backend, datasets, utils

RNG = np.random.default_rng(0)
NOWHERE = "http://localhost:9/data.npz"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "datasets").mkdir(parents=True)
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def server(tmp_path):
    """The address of a folder that is served on this machine, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://localhost:{running.server_port}/", folder
        running.shutdown()


def test_a_cached_file_is_found(cache):
    (cache / "data.npz").write_bytes(b"bits")
    sha256 = hashlib.sha256(b"bits").hexdigest()
    for known in ({}, {"file_hash": sha256}, {"md5_hash": hashlib.md5(b"bits").hexdigest()}):
        assert utils.get_file("data.npz", NOWHERE, **known) == str(cache / "data.npz")
    assert utils.get_file(origin=NOWHERE) == str(cache / "data.npz")


def test_a_file_is_downloaded_and_unpacked(cache, server):
    pytest.importorskip("pooch")
    address, folder = server
    (folder / "inner").mkdir()
    (folder / "inner" / "a.txt").write_text("bits")
    with tarfile.open(folder / "pack.tar.gz", "w:gz") as file:
        file.add(folder / "inner", "inner")
    known = hashlib.sha256((folder / "pack.tar.gz").read_bytes()).hexdigest()
    found = utils.get_file("inner", address + "pack.tar.gz", untar=True, file_hash=known)
    assert found == str(cache / "inner")
    assert (cache / "inner" / "a.txt").read_text() == "bits"
    # The second time nothing is asked for.
    assert utils.get_file("inner", NOWHERE, untar=True, file_hash=known) == found


def test_a_wrong_hash_leaves_nothing(cache, server):
    pytest.importorskip("pooch")
    address, folder = server
    (folder / "data.npz").write_bytes(b"bits")
    with pytest.raises(FileNotFoundError, match="missing or damaged"):
        utils.get_file("data.npz", address + "data.npz", file_hash="0" * 64)
    assert not list(cache.iterdir())


def test_what_is_missing_is_explained(cache, monkeypatch):
    with pytest.raises(FileNotFoundError, match=rf"{cache / 'data.npz'}.*Put there what {NOWHERE}"):
        utils.get_file("data.npz", NOWHERE)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pooch":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FileNotFoundError, match=r"bnnlayers\[datasets\]"):
        utils.get_file("data.npz", NOWHERE)
    with pytest.raises(ValueError, match="origin"):
        utils.get_file("data.npz")


def cached(monkeypatch, module, path):
    """Let a data set read a file that is smaller than the one whose hash it knows."""
    monkeypatch.setattr(module, "get_file", lambda name, *args, **kwargs: path if path.is_file() else path / name)


def test_mnist(tmp_path, monkeypatch):
    parts = {
        "x_train": RNG.integers(0, 256, (6, 28, 28), np.uint8),
        "y_train": RNG.integers(0, 10, 6, np.uint8),
        "x_test": RNG.integers(0, 256, (2, 28, 28), np.uint8),
        "y_test": RNG.integers(0, 10, 2, np.uint8),
    }
    np.savez(tmp_path / "mnist.npz", **parts)
    cached(monkeypatch, datasets.mnist, tmp_path / "mnist.npz")
    found = [array for pair in datasets.mnist.load_data() for array in pair]
    for array, expected in zip(found, parts.values(), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)


def test_fashion_mnist(tmp_path, monkeypatch):
    images, labels = RNG.integers(0, 256, (3, 28, 28), np.uint8), np.array([3, 1, 2], np.uint8)
    for part in ("train", "t10k"):
        for name, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            with gzip.open(tmp_path / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())
    cached(monkeypatch, datasets.fashion_mnist, tmp_path)
    for x, y in datasets.fashion_mnist.load_data():
        np.testing.assert_array_equal(x, images, strict=True)
        np.testing.assert_array_equal(y, labels, strict=True)


def test_cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = RNG.integers(0, 256, (2, 3, 32, 32), np.uint8)
    batch = {b"data": images.reshape(2, -1), b"labels": [7, 9]}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    cached(monkeypatch, datasets.cifar10, tmp_path)
    (x, y), (x_test, y_test) = datasets.cifar10.load_data()
    assert x.shape == (10, 32, 32, 3) and y.shape == (10, 1) and y.dtype == np.uint8
    np.testing.assert_array_equal(x_test, images.transpose(0, 2, 3, 1), strict=True)
    np.testing.assert_array_equal(y_test, [[7], [9]])
    monkeypatch.setattr(backend, "_image_data_format", "channels_first")
    assert datasets.cifar10.load_data()[1][0].shape == (2, 3, 32, 32)

    (folder / "test_batch").write_bytes(pickle.dumps({b"data": print}))
    with pytest.raises(pickle.UnpicklingError, match="builtins"):
        datasets.cifar10.load_data()


def test_pickles_of_old_numpy():
    """The published files name a module of NumPy that has moved since."""
    old = pickle.dumps(np.arange(3, dtype=np.uint8), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    unpickled = datasets.cifar10._Unpickler(io.BytesIO(old), encoding="bytes").load()
    np.testing.assert_array_equal(unpickled, [0, 1, 2])
