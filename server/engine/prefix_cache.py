"""Which beginnings of prompts are kept, and which go first.

A block of tokens is known by a key that is a digest of everything its keys
and values depend on: whose prompt it is, the adapter's digest or the base,
and all tokens up to its end. Names never take part, so moving an alias cannot
give anybody another version's state, and the tenant does, so nobody learns
from the time to the first token what another tenant has asked. Only prompts
are kept, not answers. What an unloaded adapter has left grows old and goes.

Policy only: it holds keys and block numbers; the runner holds the tensors.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType

BlockKey = NewType("BlockKey", bytes)
"""Digest of one block and of everything before it."""

_KEY_BYTES = 32


def block_keys(tenant: str, adapter_key: str | None, tokens: Items[int], block_tokens: int) -> tuple[BlockKey, ...]:
    """One key per whole block of `tokens`, each a digest that includes the one before.

    Args:
        tenant: whose tokens they are.
        adapter_key: digest of the version or recipe; None for the base model.
        tokens: token ids of a prompt.
        block_tokens: tokens of one block.
    """
    root = blake2b(digest_size=_KEY_BYTES)
    for part in (tenant, "" if adapter_key is None else f"adapter {adapter_key}"):
        encoded = part.encode()
        root.update(len(encoded).to_bytes(8, "little") + encoded)
    key, keys = root.digest(), []
    for end in range(block_tokens, len(tokens) + 1, block_tokens):
        link = array("q", tokens[end - block_tokens : end]).tobytes()
        key = blake2b(key + link, digest_size=_KEY_BYTES).digest()
        keys.append(BlockKey(key))
    return tuple(keys)


@dataclass(slots=True)
class _Block:
    number: int
    parent: BlockKey | None
    pins: int = 0


class PrefixCache:
    """Cached blocks by key, least recently used first.

    A block is used whenever one after it is, and a moment later, so the oldest
    one that is not pinned never has another behind it: chains shrink from
    their ends.

    Attributes:
        capacity: most blocks.
        pinned: blocks that are kept from eviction now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[BlockKey, _Block] = OrderedDict()
        self._free_numbers: list[int] = []
        self.pinned = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: BlockKey) -> bool:
        return key in self._blocks

    @property
    def evictable(self) -> int:
        """Blocks that nobody has pinned."""
        return len(self._blocks) - self.pinned

    def matched(self, keys: Items[BlockKey]) -> int:
        """How many of `keys`, from the first on, are cached."""
        return next((index for index, key in enumerate(keys) if key not in self._blocks), len(keys))

    def number(self, key: BlockKey) -> int:
        """The runner's number of a cached block."""
        return self._blocks[key].number

    def touch(self, keys: Items[BlockKey]) -> None:
        """Says that a chain of cached blocks, given from the first on, is used."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)

    def pin(self, keys: Items[BlockKey]) -> None:
        """Keeps a chain of cached blocks, given from the first on, from eviction."""
        for key in keys:
            block = self._blocks[key]
            self.pinned += block.pins == 0
            block.pins += 1

    def unpin(self, keys: Items[BlockKey]) -> None:
        """Undoes one `pin`."""
        for key in keys:
            block = self._blocks[key]
            block.pins -= 1
            self.pinned -= block.pins == 0

    def insert(self, key: BlockKey, chain: Items[BlockKey]) -> int:
        """Adds a block.

        Args:
            key: key of the new block.
            chain: the cached blocks before it, from the first on.

        Returns:
            The number under which the runner keeps it.
        """
        number = self._free_numbers.pop() if self._free_numbers else len(self._blocks)
        self._blocks[key] = _Block(number, chain[-1] if chain else None)
        self.touch(chain)
        return number

    def evict(self) -> int | None:
        """Forgets the least recently used end of a chain; its number, or None when all are pinned."""
        for key, block in self._blocks.items():
            if not block.pins:
                del self._blocks[key]
                self._free_numbers.append(block.number)
                return block.number
        return None

    def check_integrity(self) -> None:
        """Verifies that numbers, chains and pins add up.

        Raises:
            RuntimeError: they do not.
        """
        numbers = sorted([*self._free_numbers, *(block.number for block in self._blocks.values())])
        if numbers != list(range(len(numbers))) or len(self._blocks) > self.capacity:
            raise RuntimeError(f"cached blocks do not add up: numbers {numbers}, capacity {self.capacity}")
        orphans = [
            block.number for block in self._blocks.values() if block.parent and block.parent not in self._blocks
        ]
        pinned = sum(1 for block in self._blocks.values() if block.pins)
        if orphans or pinned != self.pinned:
            raise RuntimeError(
                f"cached blocks {orphans} lost their beginning; {pinned} pinned, counted {self.pinned}"
            )
