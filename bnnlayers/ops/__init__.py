"""Operations on arrays and packed bits.

The elementwise quantizers and their pseudo-gradients are NumPy ufuncs in C, for float32 and float64, with `out=`,
`where=` and broadcasting: ``ste_sign(x)``, ``ste_sign_grad(x, dy, clip_value)`` and so on. A parameter is one more
operand; give it as a Python float, which leaves float32 as it is. `pack_bits`, `unpack_bits` and `xnor_matmul` work on
packed bits, `matmul`, `conv` and its relatives on either.
"""

from .._core import (
    approx_sign,
    approx_sign_grad,
    clip,
    clip_grad,
    dorefa_activations,
    dorefa_activations_grad,
    dorefa_weights,
    dorefa_weights_grad,
    get_num_threads,
    hard_tanh,
    hard_tanh_grad,
    leaky_tanh,
    leaky_tanh_grad,
    level,
    set_num_threads,
    ste_heaviside,
    ste_heaviside_grad,
    ste_sign,
    ste_sign_grad,
    ste_tern,
    ste_tern_grad,
    swish_sign,
    swish_sign_grad,
    xnor_matmul,
)
from ..bits import BitArray, pack_bits, unpack_bits
from . import product, quantize
from .depthwise import depthwise_conv
from .local import locally_connected
from .product import conv, conv_transpose, matmul

__all__ = [
    "BitArray",
    "approx_sign",
    "approx_sign_grad",
    "clip",
    "clip_grad",
    "conv",
    "conv_transpose",
    "depthwise_conv",
    "dorefa_activations",
    "dorefa_activations_grad",
    "dorefa_weights",
    "dorefa_weights_grad",
    "get_num_threads",
    "hard_tanh",
    "hard_tanh_grad",
    "leaky_tanh",
    "leaky_tanh_grad",
    "level",
    "locally_connected",
    "matmul",
    "pack_bits",
    "product",
    "quantize",
    "set_num_threads",
    "ste_heaviside",
    "ste_heaviside_grad",
    "ste_sign",
    "ste_sign_grad",
    "ste_tern",
    "ste_tern_grad",
    "swish_sign",
    "swish_sign_grad",
    "unpack_bits",
    "xnor_matmul",
]
