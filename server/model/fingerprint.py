"""Whether the resident base is still, byte for byte, what was loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

SAMPLE_BYTES = 1 << 20
"""Tensors up to this size are hashed whole; of larger ones this much, evenly spread."""


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """Digest over the memory of the given tensors, in order.

    Args:
        tensors: contiguous tensors of any dtype on the CPU.

    Returns:
        `sha256:<64 hex>`.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
        step = max(1, raw.numel() // SAMPLE_BYTES)
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(raw[::step].contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
