"""Everything in KV memory that a sequence needs to be in the batch: a row, blocks, a cached prefix.

Whatever is short, cached prefixes go first; running sequences are the
scheduler's to preempt.
"""

from __future__ import annotations

from switchyard.server.engine.kv_blocks import KvBlocks
from switchyard.server.engine.kv_rows import KvRows
from switchyard.server.engine.limits import KvLimits, StepLimits
from switchyard.server.engine.ports import Runner
from switchyard.server.engine.prefix_cache import BlockKey, PrefixCache
from switchyard.server.engine.sequence import Sequence


class KvMemory:
    """Gives sequences their rows and blocks, and keeps the blocks of finished prompts."""

    def __init__(self, runner: Runner, steps: StepLimits, limits: KvLimits) -> None:
        self.rows = KvRows(steps.max_sequences)
        self.blocks = KvBlocks(limits.blocks)
        self.prefixes = PrefixCache(min(limits.cached_blocks, limits.blocks))
        self._runner = runner
        self._steps = steps
        self._computing: dict[BlockKey, Sequence] = {}

    @property
    def available_blocks(self) -> int:
        """Blocks that are free, or become so without touching a running sequence."""
        return self.blocks.free + self.prefixes.evictable

    def blocks_to_start(self, sequence: Sequence) -> int:
        """Blocks that hold its context and one token more."""
        return self._steps.blocks_of(len(sequence.context) + 1)

    def prefix_on_its_way(self, sequence: Sequence) -> bool:
        """Whether a running sequence that is not behind it computes the next block of its prompt."""
        keys = self._sharable(sequence)
        cached = self.prefixes.matched(keys)
        leader = self._computing.get(keys[cached]) if cached < len(keys) else None
        return leader is not None and leader.request.priority >= sequence.request.priority

    def seat(self, sequence: Sequence) -> None:
        """Gives a sequence a row and the blocks for its context, and fills in its cached prefix.

        The caller has seen that there is a row and that `available_blocks` suffice.

        Raises:
            RuntimeError: there is no row or there are too few blocks, which is a bug of the engine.
        """
        row = self.rows.allocate(sequence.sequence_id)
        if row is None:
            raise RuntimeError(f"sequence {sequence.sequence_id} got no KV row")
        sequence.kv_row = row
        needed = self.blocks_to_start(sequence)
        keys = self._sharable(sequence)
        hit = list(keys[: self.prefixes.matched(keys)])
        self.prefixes.pin(hit)
        while hit and self.available_blocks < needed:
            self.prefixes.unpin([hit.pop()])
        self._free_blocks(needed)
        self.blocks.hold(sequence.sequence_id, needed)
        for index, key in enumerate(hit):
            self._runner.copy_in(self.prefixes.number(key), row, index * self._steps.block_tokens)
        self.prefixes.touch(hit)
        self.prefixes.unpin(hit)
        sequence.computed = len(hit) * self._steps.block_tokens
        if sequence.started_s is None:
            sequence.cached_tokens = sequence.computed
        for key in sequence.block_keys:
            if key not in self.prefixes:
                self._computing.setdefault(key, sequence)

    def holds_next(self, sequence: Sequence) -> bool:
        """Whether the newest token of a running sequence has a place in its blocks."""
        return self.blocks.held(sequence.sequence_id) * self._steps.block_tokens >= len(sequence.context)

    def grow(self, sequence: Sequence) -> bool:
        """Gives a sequence the block that its newest token needs; false when only preemption can."""
        if self.available_blocks < 1:
            return False
        self._free_blocks(1)
        self.blocks.hold(sequence.sequence_id, self._steps.blocks_of(len(sequence.context)))
        return True

    def vacate(self, sequence: Sequence) -> None:
        """Takes back all that a sequence has; harmless for one that has nothing."""
        if sequence.kv_row is None:
            return
        self._runner.release_row(sequence.kv_row)
        self.rows.release(sequence.kv_row)
        sequence.kv_row = None
        self.blocks.release(sequence.sequence_id)
        self._stop_computing(sequence, sequence.block_keys)

    def keep_prompt(self, sequence: Sequence, computed_before: int) -> None:
        """Caches the blocks of a prompt that the last step has completed, as far as there is room."""
        size = self._steps.block_tokens
        first, last = computed_before // size, min(sequence.computed // size, len(sequence.block_keys))
        for index in range(first, last):
            if not self._keep(sequence, index):
                self._stop_computing(sequence, sequence.block_keys[index:])
                return
            self._stop_computing(sequence, sequence.block_keys[index : index + 1])

    def check_integrity(self, running: list[Sequence]) -> None:
        """Verifies that rows, blocks and cached prefixes add up.

        Args:
            running: the sequences in the batch.

        Raises:
            RuntimeError: something leaked.
        """
        self.rows.check_integrity()
        self.blocks.check_integrity()
        self.prefixes.check_integrity()
        if self.rows.used != len(running):
            raise RuntimeError(f"{self.rows.used} KV rows for {len(running)} sequences")
        held = sum(self.blocks.held(sequence.sequence_id) for sequence in running)
        if held != self.blocks.running or len(self.prefixes) != self.blocks.cached or self.prefixes.pinned:
            raise RuntimeError(
                f"running sequences hold {held} of {self.blocks.running} blocks; {len(self.prefixes)} prefixes "
                f"of {self.blocks.cached} are cached, {self.prefixes.pinned} pinned"
            )
        if not {id(leader) for leader in self._computing.values()} <= {id(sequence) for sequence in running}:
            raise RuntimeError("a prefix is awaited from a sequence that does not run")

    def _sharable(self, sequence: Sequence) -> tuple[BlockKey, ...]:
        """Keys of the blocks that it may take from the cache: never the last token, whose logits it needs."""
        if sequence.needs_every_token and not sequence.output:
            return ()
        return sequence.block_keys[: (len(sequence.context) - 1) // self._steps.block_tokens]

    def _keep(self, sequence: Sequence, index: int) -> bool:
        key, chain = sequence.block_keys[index], sequence.block_keys[:index]
        if key in self.prefixes:
            return True
        if self.prefixes.matched(chain[-1:]) != len(chain[-1:]) or sequence.kv_row is None:
            return False
        self.prefixes.pin(chain)
        while len(self.prefixes) >= self.prefixes.capacity or self.blocks.free < 1:
            if not self._evict():
                break
        self.prefixes.unpin(chain)
        if len(self.prefixes) >= self.prefixes.capacity or self.blocks.free < 1:
            return False
        self.blocks.keep()
        number = self.prefixes.insert(key, chain)
        self._runner.copy_out(sequence.kv_row, index * self._steps.block_tokens, number)
        return True

    def _free_blocks(self, count: int) -> None:
        while self.blocks.free < count and self._evict():
            pass

    def _evict(self) -> bool:
        number = self.prefixes.evict()
        if number is None:
            return False
        self._runner.drop_block(number)
        self.blocks.drop()
        return True

    def _stop_computing(self, sequence: Sequence, keys: tuple[BlockKey, ...]) -> None:
        for key in keys:
            if self._computing.get(key) is sequence:
                del self._computing[key]
