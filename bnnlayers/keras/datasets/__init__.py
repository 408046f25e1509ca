"""Data sets that Keras serves, from its cache or downloaded into it."""

from . import cifar10, fashion_mnist, mnist

__all__ = ["cifar10", "fashion_mnist", "mnist"]
