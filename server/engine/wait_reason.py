"""Why a request waits, in a name for programs and in words for people."""

from __future__ import annotations

from enum import Enum


class WaitReason(Enum):
    """Why a sequence takes no part in a step."""

    TURN = "turn"
    ROW = "kv_row"
    BLOCKS = "kv_blocks"
    ADAPTER = "adapter"
    ADAPTER_SLOT = "adapter_slot"
    PREFIX = "prefix"
    TENANT_LIMIT = "tenant_limit"
    STEP_BUDGET = "step_budget"

    @property
    def shows_load(self) -> bool:
        """Whether the server has no room for it, rather than it being not ready."""
        return self in _OF_LOAD

    @property
    def words(self) -> str:
        """One sentence for an operator."""
        return _WORDS[self]


_WORDS: dict[WaitReason, str] = {
    WaitReason.TURN: "others come first: their priority is higher, they had less service, or they came earlier",
    WaitReason.ROW: "every row of the batch is taken",
    WaitReason.BLOCKS: "KV memory is too full for its prompt",
    WaitReason.ADAPTER: "its adapter is on its way to memory",
    WaitReason.ADAPTER_SLOT: "every adapter slot is used by a running sequence",
    WaitReason.PREFIX: "another sequence computes the beginning of its prompt, which it will then share",
    WaitReason.TENANT_LIMIT: "its tenant runs as many sequences as it may",
    WaitReason.STEP_BUDGET: "the step's tokens went to others; it is next when there is room",
}

_OF_LOAD = frozenset({WaitReason.TURN, WaitReason.ROW, WaitReason.BLOCKS})
