"""Kernels in C for the fast path on a CPU: optional, and equal to the torch path up to rounding."""
