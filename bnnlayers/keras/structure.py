"""Shapes with unknown dimensions, and nested structures of tensors."""

from __future__ import annotations


class TensorShape(tuple):
    """A tuple of dimensions, ``None`` where a dimension is unknown until data arrives.

    It is what ``build`` and ``compute_output_shape`` receive: a plain tuple to everyone who
    indexes it, with the few methods that scripts written for TensorFlow call.
    """

    __slots__ = ()

    def __new__(cls, dims=()):
        return super().__new__(cls, (None if d is None else int(d) for d in dims))

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return TensorShape(found) if isinstance(key, slice) else found

    def __add__(self, other):
        return TensorShape((*self, *other))

    @property
    def rank(self):
        return len(self)

    ndims = rank

    def as_list(self):
        return list(self)

    def is_fully_defined(self):
        return None not in self

    def num_elements(self):
        """Product of the dimensions, or None if one is unknown."""
        count = 1
        for dim in self:
            if dim is None:
                return None
            count *= dim
        return count


def is_shape(value):
    """Whether `value` is one shape, rather than a structure of shapes."""
    return isinstance(value, TensorShape) or (
        isinstance(value, (tuple, list))
        and all(d is None or (hasattr(d, "__index__") and not hasattr(d, "shape")) for d in value)
    )


def is_nested(value):
    """Whether `value` is a list, tuple or dictionary of things rather than one thing."""
    return isinstance(value, (list, tuple, dict)) and not isinstance(value, TensorShape)


def flatten(value):
    """The leaves of a nested structure as a list; dictionaries in the order of sorted keys."""
    if not is_nested(value):
        return [value]
    items = [value[k] for k in sorted(value)] if isinstance(value, dict) else value
    leaves = []
    for item in items:
        if is_nested(item):
            leaves.extend(flatten(item))
        else:
            leaves.append(item)
    return leaves


def map_structure(function, value):
    """Apply `function` to every leaf and keep the structure."""
    if not is_nested(value):
        return function(value)
    if isinstance(value, dict):
        return {k: map_structure(function, value[k]) for k in sorted(value)}
    mapped = [map_structure(function, item) for item in value]
    if isinstance(value, list):
        return mapped
    return type(value)(*mapped) if hasattr(value, "_fields") else tuple(mapped)


def pack_as(structure, leaves):
    """Put `leaves`, in the order of `flatten`, into the shape of `structure`."""
    leaves = iter(leaves)
    return map_structure(lambda _: next(leaves), structure)


def map_shapes(function, shapes):
    """Apply `function` to every shape of a structure of shapes."""
    if shapes is None or is_shape(shapes):
        return function(shapes)
    if isinstance(shapes, dict):
        return {k: map_shapes(function, v) for k, v in shapes.items()}
    return [map_shapes(function, s) for s in shapes]
