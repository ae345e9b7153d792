"""Who runs in the next step, and with how many tokens.

`admit` moves sequences between the queue and the batch; `plan` then only
reads. Decodes come first, one token each; prefill chunks fill what is left of
the step's token budget, and of its time: beside decodes they take a share of
it, so that nobody's next token waits long for others' prompts.

Who starts next: the tenant that had less service; of its requests those of
higher priority, then those whose adapter had less service, then whoever came
earlier. A priority is worth something among one tenant's requests only, or
everybody would ask for the highest. Short of a row or of memory, everybody
waits behind the first, so that nobody large is overtaken for ever. A sequence
that waits for its adapter, its prefix or its tenant's limit stands aside and
holds up nobody.

Who is preempted: for a request of higher priority, its own tenant's of lower;
for want of memory, see `_victim`. No output is ever lost and every preemption
lets somebody produce a token, so everybody ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from switchyard.server.engine.fairness import FairShares
from switchyard.server.engine.kv_memory import KvMemory
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.ports import AdapterPool, AdapterTier
from switchyard.server.engine.sequence import Sequence, SequenceState
from switchyard.server.engine.step_cost import StepCost
from switchyard.server.engine.types import Digest, SequenceSlice, StepPlan
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import ServerError

_SLOT_PATIENCE_S: Final = 1.0
"""How long others may pass a sequence that waits for an adapter slot, with adapters that keep the slots taken."""

_AHEAD: Final = frozenset({WaitReason.ROW, WaitReason.BLOCKS})
"""Reasons for which nobody behind may start either."""


@dataclass(slots=True)
class Admissions:
    """What one `admit` has done.

    Attributes:
        started: sequences that entered the batch for the first time.
        preempted: sequences that left it for others.
        refused: sequences whose adapter cannot be had, with the reason.
    """

    started: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    refused: list[tuple[Sequence, ServerError]] = field(default_factory=list)


class Scheduler:
    """Owns the waiting queue and the running batch."""

    def __init__(self, limits: StepLimits, memory: KvMemory, adapters: AdapterPool, shares: FairShares) -> None:
        self.limits = limits
        self.memory = memory
        self.adapters = adapters
        self.shares = shares
        self.cost = StepCost()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._running_of: Counter[str] = Counter()
        self._queue_changed = False

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    @property
    def awaited(self) -> frozenset[Digest]:
        """Keys of the adapters that waiting sequences will need."""
        return frozenset(s.request.adapter.key for s in self.waiting if s.request.adapter is not None)

    def add(self, sequence: Sequence) -> None:
        """Takes in an accepted sequence."""
        self.shares.enter(sequence.request.tenant, sequence.adapter_key)
        self._wait(sequence)

    def admit(self, now: float) -> Admissions:
        """Makes room for the tokens that the batch is about to produce, then starts whoever can start."""
        done = Admissions()
        self._secure(done, now)
        if not self._may_start_any():
            for sequence in self.waiting:
                sequence.waits_for(WaitReason.ROW, now)
            self._look_ahead(done, now)
            return done
        queue = sorted(self.waiting, key=self._order)
        patience_ended = False
        while queue:
            sequence = queue.pop(0)
            try:
                obstacle = self._obstacle(sequence, now, patience_ended=patience_ended)
            except ServerError as error:
                done.refused.append((sequence, error))
                continue
            if obstacle is None:
                self._start(sequence, done, now)
                queue.sort(key=self._order)
                continue
            sequence.waits_for(obstacle, now)
            patience_ended |= obstacle is WaitReason.ADAPTER_SLOT and sequence.slot_wait_s(now) >= _SLOT_PATIENCE_S
            if obstacle in _AHEAD:
                break
        for sequence in queue:
            sequence.waits_for(WaitReason.TURN, now)
        self._look_ahead(done, now)
        return done

    def plan(self) -> StepPlan:
        """The work of the next step, and why the others wait; changes nothing."""
        slices = [self._slice(s, len(s.context)) for s in self.running if s.state is SequenceState.DECODE]
        budget = self.limits.max_step_tokens - len(slices)
        waiting = {s.sequence_id: s.waiting_for or WaitReason.TURN for s in self.waiting}
        prefills = [sequence for sequence in self.running if sequence.state is SequenceState.PREFILL]
        beside = self.cost.prefill_tokens_beside(len(slices), len(prefills), self.limits.prefill_share)
        in_time = budget if beside is None else beside
        at_least = self.limits.block_tokens
        for sequence in sorted(prefills, key=self._order):
            most = min(budget, max(in_time, at_least), self.limits.prefill_chunk_tokens)
            end = sequence.chunk_end(most, self.limits.block_tokens)
            if end <= sequence.computed:
                waiting[sequence.sequence_id] = WaitReason.STEP_BUDGET
                continue
            budget -= end - sequence.computed
            in_time -= end - sequence.computed
            at_least = 0
            slices.append(self._slice(sequence, end))
        return StepPlan(tuple(slices), waiting)

    def produced(self, sequence: Sequence) -> None:
        """Counts one token that a running sequence has produced."""
        self.shares.charge_output(sequence.request.tenant, sequence.adapter_key)

    def remove(self, sequence: Sequence, now: float) -> None:
        """Takes an ended sequence out and gives back all that it holds."""
        if sequence.kv_row is None:
            self._waits_no_longer(sequence)
        else:
            self._leave_batch(sequence, now)
        self.shares.end(sequence.request.tenant)

    def check_integrity(self) -> None:
        """Verifies that rows, blocks, shares and queues add up.

        Raises:
            RuntimeError: something leaked.
        """
        self.memory.check_integrity(self.running)
        self.shares.check_integrity(len(self.running) + len(self.waiting))
        if Counter(s.request.tenant for s in self.running) != self._running_of:
            raise RuntimeError(f"tenants run {dict(self._running_of)} sequences, the batch says otherwise")
        unpinned = [s.sequence_id for s in self.running if (s.adapter_slot is None) != (s.request.adapter is None)]
        pinned = [s.sequence_id for s in self.waiting if s.adapter_slot is not None]
        if unpinned or pinned:
            raise RuntimeError(f"sequences {unpinned} run without their adapter, {pinned} wait with it")

    # -- who runs

    def _order(self, sequence: Sequence) -> tuple[float, str, int, float, int, int]:
        priority, arrival, choice = sequence.rank
        tenant = sequence.request.tenant
        of_tenant, of_adapter = self.shares.order(tenant, sequence.adapter_key)
        return of_tenant, tenant, priority, of_adapter, arrival, choice

    def _may_start_any(self) -> bool:
        if not self.waiting or self.memory.rows.used < self.memory.rows.count:
            return bool(self.waiting)
        lowest: dict[str, int] = {}
        for sequence in self.running:
            tenant, priority = sequence.request.tenant, sequence.request.priority
            lowest[tenant] = min(priority, lowest.get(tenant, priority))
        return any(s.request.priority > lowest.get(s.request.tenant, s.request.priority) for s in self.waiting)

    def _obstacle(self, sequence: Sequence, now: float, *, patience_ended: bool) -> WaitReason | None:
        """Why a sequence cannot start now; when nothing is in its way, its adapter is pinned.

        Raises:
            AdapterUnavailable: its adapter could not be loaded.
        """
        tenant = sequence.request.tenant
        most = self.shares.rules.policy(tenant).max_running
        if most is not None and self._running_of[tenant] >= most:
            return WaitReason.TENANT_LIMIT
        if self.memory.prefix_on_its_way(sequence):
            return WaitReason.PREFIX
        adapter = sequence.request.adapter
        if adapter is not None and not self._fetched(sequence, now):
            return WaitReason.ADAPTER
        if adapter is not None and patience_ended:
            return WaitReason.TURN
        short = self._shortage(sequence)
        if short is None and adapter is not None:
            sequence.adapter_slot = self.adapters.acquire(adapter, now)
            if sequence.adapter_slot is None:
                return WaitReason.ADAPTER_SLOT
        return short

    def _fetched(self, sequence: Sequence, now: float) -> bool:
        """Whether the adapter is in memory; if not, it is brought there, at the cost of whoever asked first."""
        adapter = sequence.request.adapter
        if adapter is None:
            return True
        tier = self.adapters.tier(adapter.key)
        if tier is AdapterTier.ABSENT:
            self.adapters.prefetch(adapter, now)
            size_bytes = sum(part.weights_bytes for part in adapter.parts)
            self.shares.charge_load(sequence.request.tenant, sequence.adapter_key, size_bytes)
        return tier is AdapterTier.MEMORY

    def _look_ahead(self, done: Admissions, now: float) -> None:
        """Starts loads for the sequences that come next, so that they need not wait when there is room."""
        if not self._queue_changed:
            return
        self._queue_changed = False
        refused = {id(sequence) for sequence, _ in done.refused}
        for sequence in sorted(self.waiting, key=self._order)[: self.limits.max_sequences]:
            if id(sequence) in refused:
                continue
            try:
                self._fetched(sequence, now)
            except ServerError as error:
                done.refused.append((sequence, error))

    # -- rows and memory

    def _shortage(self, sequence: Sequence) -> WaitReason | None:
        """What is missing even after all cached prefixes and its tenant's lower priorities have gone."""
        victims = self._below(sequence)
        if self.memory.rows.used >= self.memory.rows.count and not victims:
            return WaitReason.ROW
        needed = self.memory.blocks_to_start(sequence)
        # One block to grow for everyone who runs, or the newcomer would soon be preempted again.
        if self.memory.available_blocks >= needed + len(self.running):
            return None
        held = sum(self.memory.blocks.held(victim.sequence_id) for victim in victims)
        alone = len(victims) == len(self.running)
        if (victims or alone) and self.memory.available_blocks + held >= needed:
            return None
        return WaitReason.BLOCKS

    def _start(self, sequence: Sequence, done: Admissions, now: float) -> None:
        victims = self._below(sequence)
        needed = self.memory.blocks_to_start(sequence)
        while self.memory.rows.used >= self.memory.rows.count or self.memory.available_blocks < needed:
            self._preempt(victims.pop(), done, now)
        self.memory.seat(sequence)
        self._waits_no_longer(sequence)
        tenant, adapter_key = sequence.request.tenant, sequence.adapter_key
        self.running.append(sequence)
        self._running_of[tenant] += 1
        if sequence.started(now):
            self.shares.charge_prompt(tenant, adapter_key, len(sequence.context) - sequence.computed)
            done.started.append(sequence)

    def _secure(self, done: Admissions, now: float) -> None:
        """Gives every decode the block that it needs; who is preempted meanwhile needs none."""
        needy = [s for s in self.running if s.state is SequenceState.DECODE and not self.memory.holds_next(s)]
        for sequence in sorted(needy, key=lambda s: s.arrival):
            while sequence.kv_row is not None and not self.memory.grow(sequence):
                self._preempt(self._victim(), done, now)

    def _below(self, sequence: Sequence) -> list[Sequence]:
        """Its tenant's running sequences of lower priority; the one to preempt first is last."""
        tenant, priority = sequence.request.tenant, sequence.request.priority
        below = [s for s in self.running if s.request.tenant == tenant and s.request.priority < priority]
        return sorted(below, key=lambda s: s.rank)

    def _victim(self) -> Sequence:
        """Who gives way for want of memory.

        Of the tenants that run several sequences, the one with the most memory for its weight; of
        its sequences the lowest priority, of these the youngest. When no tenant has several, the
        youngest of all: the oldest of all is never preempted.
        """
        of_tenant: dict[str, list[Sequence]] = {}
        for sequence in self.running:
            of_tenant.setdefault(sequence.request.tenant, []).append(sequence)
        crowded = [tenant for tenant, running in of_tenant.items() if len(running) > 1]
        if not crowded:
            return max(self.running, key=lambda s: (s.arrival, s.choice))

        def memory(tenant: str) -> tuple[float, str]:
            held = sum(self.memory.blocks.held(s.sequence_id) for s in of_tenant[tenant])
            return held / self.shares.rules.policy(tenant).weight, tenant

        return max(of_tenant[max(crowded, key=memory)], key=lambda s: s.rank)

    def _preempt(self, sequence: Sequence, done: Admissions, now: float) -> None:
        self._leave_batch(sequence, now)
        sequence.preempted()
        self.shares.enter_again(sequence.request.tenant, sequence.adapter_key)
        self._wait(sequence)
        done.preempted.append(sequence)

    def _wait(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self._queue_changed = True

    def _waits_no_longer(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        self._queue_changed = True
        self.shares.leave(sequence.request.tenant, sequence.adapter_key)

    def _leave_batch(self, sequence: Sequence, now: float) -> None:
        self.running.remove(sequence)
        self._running_of[sequence.request.tenant] -= 1
        if not self._running_of[sequence.request.tenant]:
            del self._running_of[sequence.request.tenant]
        self.memory.vacate(sequence)
        if sequence.adapter_slot is not None and sequence.request.adapter is not None:
            self.adapters.release(sequence.request.adapter.key, now)
            sequence.adapter_slot = None

    def _slice(self, sequence: Sequence, end: int) -> SequenceSlice:
        if sequence.kv_row is None:
            raise RuntimeError(f"sequence {sequence.sequence_id} runs without a KV row")
        return SequenceSlice(
            request_id=sequence.sequence_id,
            kv_row=sequence.kv_row,
            start=sequence.computed,
            tokens=tuple(sequence.context[sequence.computed : end]),
            adapter_slot=sequence.adapter_slot,
            sample=sequence.request.pooling is None and end == len(sequence.context),
            sampling=sequence.sampling,
            sample_index=len(sequence.output),
            stopping=sequence.request.stopping,
            prompt=sequence.request.prompt_tokens,
            output=sequence.output,
            choice=sequence.choice,
            pooling=sequence.request.pooling,
        )
