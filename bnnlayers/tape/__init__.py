"""Define-by-run differentiation: `Tensor`, `Variable`, `GradientTape`, and how operations are made.

A `Tensor` is a NumPy array that may carry a `Node`. An operation that meets a node of an active
tape records one of its own, and `GradientTape.gradient` walks the nodes back. Our own operations
are a forward with its backward below it (`operation`); the derivatives of NumPy's functions are
those of HIPS autograd.

What a node keeps for backward is the memory of training, so a residual is kept apart from the
arguments, can be computed again instead of kept, and is freed as the walk passes it.
"""

from .again import Parts
from .gradient import GradientTape, custom_gradient
from .nodes import Node, observe, observed
from .numpy_functions import add
from .operations import THROUGH, Operation, operation
from .spare import Spare
from .tensor import Readable, Tensor, constant, convert_to_tensor, is_traced, plain, read, recording, stop_gradient
from .variable import Variable

__all__ = [
    "THROUGH",
    "GradientTape",
    "Node",
    "Operation",
    "Parts",
    "Readable",
    "Spare",
    "Tensor",
    "Variable",
    "add",
    "constant",
    "convert_to_tensor",
    "custom_gradient",
    "is_traced",
    "observe",
    "observed",
    "operation",
    "plain",
    "read",
    "recording",
    "stop_gradient",
]
