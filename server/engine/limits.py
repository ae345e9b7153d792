"""What bounds the engine, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.server.engine.types import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Bounds of one step.

    Attributes:
        max_sequences: sequences in the batch; also the number of KV rows.
        max_step_tokens: tokens processed in one step.
        prefill_chunk_tokens: longest piece of a prompt in one step; a multiple of `block_tokens`.
        prefill_share: most of a step's time that prefills may take while others decode; 1 for all of it. Where more
            sequences prefill than decode they may take a share by heads; one block of one prompt always goes.
        block_tokens: tokens of one block of KV memory; other than `BLOCK_TOKENS` in tests only.
    """

    max_sequences: int
    max_step_tokens: int
    prefill_chunk_tokens: int
    prefill_share: float = 1.0
    block_tokens: int = BLOCK_TOKENS

    def __post_init__(self) -> None:
        if self.max_step_tokens < self.max_sequences + self.prefill_chunk_tokens:
            raise ValueError(
                f"max_step_tokens={self.max_step_tokens} cannot hold {self.max_sequences} decodes and one "
                f"prefill chunk of {self.prefill_chunk_tokens} tokens; raise it or lower the others"
            )
        if self.prefill_chunk_tokens < 1 or self.prefill_chunk_tokens % self.block_tokens:
            raise ValueError(
                f"prefill_chunk_tokens={self.prefill_chunk_tokens} is no multiple of {self.block_tokens}, "
                "where cached prefixes end; choose one"
            )

    def blocks_of(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens of one sequence."""
        return -(-tokens // self.block_tokens)


@dataclass(frozen=True, slots=True)
class KvLimits:
    """Bounds of KV memory, in blocks; running sequences and cached prefixes share them.

    Attributes:
        blocks: blocks there are.
        cached_blocks: most that cached prefixes may take; 0 keeps none.
    """

    blocks: int
    cached_blocks: int = 0


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What one tenant may have.

    Attributes:
        weight: share of the service, relative to the other tenants'.
        max_running: sequences in the batch; None for as many as there are rows.
        max_waiting: sequences that wait; None for as many as the queue holds.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_waiting: int | None = None


@dataclass(frozen=True, slots=True)
class FairnessRules:
    """How service is counted and shared.

    Attributes:
        tenants: policies of the tenants that have one of their own.
        others: policy of every other tenant.
        prompt_weight: cost of a prompt token that is computed.
        output_weight: cost of a token that is produced; a decode step moves all weights for one
            token of each sequence, a prefill for hundreds.
        load_bytes_per_token: bytes of a cold adapter that cost as much as one prompt token.
    """

    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict)
    others: TenantPolicy = TenantPolicy()
    prompt_weight: float = 1.0
    output_weight: float = 2.0
    load_bytes_per_token: int = 1 << 16

    def policy(self, tenant: str) -> TenantPolicy:
        """What `tenant` may have."""
        return self.tenants.get(tenant, self.others)
