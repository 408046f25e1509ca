"""Binarized neural networks on ordinary CPUs: larq's API on NumPy, in real 1-bit arithmetic."""

__version__ = "0.1.0"
