"""The families of golden data: name of the file -> function that yields its cases."""

import zlib

import numpy as np

FAMILIES = {}


def family(function=None, *, name=None):
    """Register a generator of `(meta, arrays)` pairs under `name`, else its own name."""

    def register(function):
        FAMILIES[name or function.__name__] = function
        return function

    return register(function) if function else register


def generator(name):
    """A random generator that depends on nothing but `name`."""
    return np.random.default_rng(zlib.crc32(name.encode()))


class Deck:
    """Deals the options in shuffled rounds, so that every option comes up equally often."""

    def __init__(self, rng, options):
        self.rng, self.options, self.hand = rng, list(options), []

    def deal(self):
        if not self.hand:
            self.hand = [self.options[i] for i in self.rng.permutation(len(self.options))]
        return self.hand.pop()
