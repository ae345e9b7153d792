"""From the bytes that an operator gives to the blocks that the engine counts."""

from __future__ import annotations

from switchyard.server.engine.limits import KvLimits, StepLimits
from switchyard.server.errors import KvMemoryTooSmall


def kv_limits(
    steps: StepLimits,
    *,
    token_bytes: int,
    context_tokens: int,
    kv_cache_bytes: int | None,
    prefix_cache_bytes: int,
) -> KvLimits:
    """How many blocks of KV memory there are, and how many of them prefixes may take.

    Args:
        steps: rows and tokens of a block.
        token_bytes: bytes of the keys and values of one token, over all layers.
        context_tokens: longest sequence.
        kv_cache_bytes: bytes for running sequences and cached prefixes together; None for whole
            rows, and the prefixes beside them.
        prefix_cache_bytes: most bytes that cached prefixes may take.

    Raises:
        KvMemoryTooSmall: not even one sequence of the longest context would fit.
    """
    block_bytes = token_bytes * steps.block_tokens
    cached = prefix_cache_bytes // block_bytes
    longest = steps.blocks_of(context_tokens)
    if kv_cache_bytes is None:
        return KvLimits(steps.max_sequences * longest + cached, cached)
    blocks = kv_cache_bytes // block_bytes
    if blocks < longest:
        raise KvMemoryTooSmall(
            f"kv_cache_bytes={kv_cache_bytes} holds {blocks * steps.block_tokens} tokens of {token_bytes} bytes; one "
            f"sequence may have {context_tokens}, which take {longest * block_bytes} bytes; give as many, or set "
            f"max_context_tokens to at most {blocks * steps.block_tokens}"
        )
    return KvLimits(blocks, min(cached, blocks))
