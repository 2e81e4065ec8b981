"""Triton kernels for CUDA and ROCm, one stem per file."""
