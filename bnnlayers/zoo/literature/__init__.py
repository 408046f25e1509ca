"""Architectures of papers, reproduced."""

from .binary_alex_net import BinaryAlexNet
from .birealnet import BiRealNet
from .densenet import BinaryDenseNet28, BinaryDenseNet37, BinaryDenseNet37Dilated, BinaryDenseNet45
from .dorefanet import DoReFaNet
from .meliusnet import MeliusNet22
from .real_to_bin_nets import RealToBinaryNet
from .resnet_e import BinaryResNetE18
from .xnornet import XNORNet

__all__ = [
    "BiRealNet",
    "BinaryAlexNet",
    "BinaryDenseNet28",
    "BinaryDenseNet37",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "BinaryResNetE18",
    "DoReFaNet",
    "MeliusNet22",
    "RealToBinaryNet",
    "XNORNet",
]
