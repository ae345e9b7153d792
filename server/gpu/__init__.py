"""Kernels for GPUs in Triton, and the memory that they read: nothing here knows adapters or models."""
