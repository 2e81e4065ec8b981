"""Triton kernels for CUDA and ROCm, one stem per file.

Arguments of a kernel without a type are tensors, pointers or numbers of Triton, or tuples of them.
"""
