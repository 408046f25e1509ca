"""Architectures of larq's authors, which lead in accuracy for their speed."""

from .quicknet import QuickNet, QuickNetLarge, QuickNetSmall

__all__ = ["QuickNet", "QuickNetLarge", "QuickNetSmall"]
