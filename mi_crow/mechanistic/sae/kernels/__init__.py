"""Kernels: sparse products and top-k, for CUDA (Triton), compiled (Numba) and plain torch."""
