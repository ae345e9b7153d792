"""The life of accepted requests: each gets its tokens in order and exactly one terminal event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from switchyard.server.engine.forecast import ServiceForecast
from switchyard.server.engine.gate import Gate, Passage, unreachable
from switchyard.server.engine.groups import RequestGroup, make_group
from switchyard.server.engine.ports import EngineObserver, EventSink, Runner, TextDecoder
from switchyard.server.engine.prefix_cache import BlockKey, block_keys
from switchyard.server.engine.scheduler import Admissions, Scheduler
from switchyard.server.engine.sequence import Sequence, SequenceState
from switchyard.server.engine.types import (
    ErrorEvent,
    Event,
    FinishReason,
    GenerateRequest,
    SampledToken,
    SequenceSlice,
    StepOutput,
    StepPlan,
    TokenEvent,
)
from switchyard.server.errors import DeadlineExceeded, NumericFault, ServerError


class LiveRequests:
    """Every request between acceptance and its terminal event; engine thread only.

    Events are collected as they arise and handed to their sinks by `emit`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        gate: Gate,
        forecast: ServiceForecast,
        runner: Runner,
        decoder: TextDecoder,
        observer: EngineObserver,
    ) -> None:
        """Wires the parts.

        Args:
            scheduler: decides who runs.
            gate: counts the live sequences for callers.
            forecast: learns from answers that end.
            runner: forgets what it knows of sequences that end.
            decoder: turns tokens into text.
            observer: hears what happens.
        """
        self._scheduler = scheduler
        self._gate = gate
        self._forecast = forecast
        self._runner = runner
        self._decoder = decoder
        self._observer = observer
        self._groups: dict[str, RequestGroup] = {}
        self._by_sequence: dict[str, tuple[RequestGroup, Sequence]] = {}
        self._outbox: deque[tuple[EventSink, Event]] = deque()
        self._arrivals = 0

    def accept(self, request: GenerateRequest, sink: EventSink, accepted_s: float) -> None:
        """Takes in a request that the gate has let through."""
        keys: tuple[BlockKey, ...] = ()
        if self._scheduler.memory.prefixes.capacity:
            adapter_key = request.adapter.key if request.adapter else None
            size = self._scheduler.limits.block_tokens
            keys = block_keys(request.tenant, adapter_key, request.prompt_tokens, size)
        self._arrivals += 1
        group = make_group(request, sink, self._decoder, keys, arrival=self._arrivals, accepted_s=accepted_s)
        self._groups[request.request_id] = group
        for sequence in group.sequences:
            self._by_sequence[sequence.sequence_id] = (group, sequence)
            self._scheduler.add(sequence)
        self._observer.queued(group.sequences[0].adapter_key)

    def cancel(self, request_id: str, error: ServerError, now: float, sink: EventSink | None = None) -> None:
        """Ends a request with `error`; unknown ids are ignored.

        Args:
            request_id: of the request.
            error: its terminal event.
            now: time on the engine's clock.
            sink: whose request it must be, as the id may have passed to another; None for anybody's.
        """
        group = self._groups.get(request_id)
        if group is not None and (sink is None or group.sink is sink):
            self._fail(group, error, now)

    def cancel_all(self, error: Callable[[], ServerError], now: float) -> None:
        """Ends every request with an error of its own."""
        for group in list(self._groups.values()):
            self._fail(group, error(), now)

    def expire(self, now: float) -> None:
        """Ends requests whose deadline has passed, and those still waiting that can no longer make it.

        A request is shed only where others wait for its place: until then its chance costs nobody anything.
        """
        may_shed = self._forecast.is_busy and len(self._scheduler.waiting) > 1
        for group in list(self._groups.values()):
            deadline = group.request.deadline_s
            if deadline is None:
                continue
            if now >= deadline:
                self._fail(group, DeadlineExceeded("the deadline passed before the answer was complete"), now)
            elif may_shed and not group.has_started and self._forecast.is_hopeless(group.request, now):
                service_s = self._forecast.service_s(group.request)
                self._observer.shed()
                self._fail(group, unreachable(deadline - now, 0.0, service_s), now)

    def next_deadline_s(self) -> float | None:
        """The first deadline of all; None when there is none."""
        return min(
            (g.request.deadline_s for g in self._groups.values() if g.request.deadline_s is not None), default=None
        )

    def admitted(self, admissions: Admissions, now: float) -> None:
        """Takes in what the scheduler has started, preempted and refused."""
        for _ in admissions.preempted:
            self._observer.preempted()
        for sequence in admissions.started:
            self._gate.passed(sequence.sequence_id, Passage.STARTED)
            group, _ = self._by_sequence[sequence.sequence_id]
            self._observer.prefix(sequence.cached_tokens)
            if sum(other.started_s is not None for other in group.sequences) == 1:
                timing = group.timing()
                self._observer.started(sequence.adapter_key, timing.queue_s, timing.adapter_wait_s)
        for sequence, error in admissions.refused:
            self.cancel(sequence.request.request_id, error, now)

    def commit(self, plan: StepPlan, output: StepOutput, now: float) -> None:
        """Takes in what a step has computed."""
        for piece in plan.slices:
            # One answer of a request may have failed the others a moment ago.
            if piece.request_id in self._by_sequence:
                self._commit(piece, output, now)

    def emit(self) -> None:
        """Hands all events so far to their sinks, in order."""
        while self._outbox:
            sink, event = self._outbox.popleft()
            sink.put(event)

    def check_integrity(self) -> None:
        """Verifies that groups, sequences and the gate agree.

        Raises:
            RuntimeError: they do not.
        """
        alive = {s.sequence_id for g in self._groups.values() for s in g.sequences if s.ended_by is None}
        scheduled = {sequence.sequence_id for sequence in self._scheduler}
        if alive != scheduled:
            raise RuntimeError(f"alive are {sorted(alive)}, scheduled {sorted(scheduled)}")
        wrong = [g.request.request_id for g in self._groups.values() if not 0 < g.unfinished <= len(g.sequences)]
        every = {s.sequence_id for g in self._groups.values() for s in g.sequences}
        if wrong or every != set(self._by_sequence):
            raise RuntimeError(f"groups {wrong} miscount; {sorted(every)} against {sorted(self._by_sequence)}")
        self._gate.check_integrity(every, len(alive))

    def _commit(self, piece: SequenceSlice, output: StepOutput, now: float) -> None:
        group, sequence = self._by_sequence[piece.request_id]
        before = sequence.computed
        sequence.computed += len(piece.tokens)
        if piece.request_id in output.faults:
            self._fail(group, NumericFault("the model gave a number that is not finite for this request"), now)
            return
        if piece.request_id in output.refused:
            self._fail(group, output.refused[piece.request_id], now)
            return
        if sequence.state is SequenceState.PREFILL:
            self._scheduler.memory.keep_prompt(sequence, before)
        scores = sequence.new_scores(piece.start, output.prompt_logprobs.get(piece.request_id, ()))
        if piece.request_id in output.vectors:
            sequence.vector = output.vectors[piece.request_id]
            self._finish(group, sequence, FinishReason.LENGTH, now)
        elif piece.sample:
            self._advance(group, sequence, output.tokens[piece.request_id], scores, now)
        elif scores:
            self._put(group, sequence, TokenEvent("", (), sequence.choice, (), scores))

    def _advance(
        self,
        group: RequestGroup,
        sequence: Sequence,
        sampled: SampledToken,
        scores: tuple[SampledToken, ...],
        now: float,
    ) -> None:
        self._observe_token(group, sequence, now)
        if sequence.state is SequenceState.PREFILL:
            sequence.advance(SequenceState.DECODE)
        sequence.last_token_s = now
        sequence.append(sampled.token, sampled.logprob)
        self._scheduler.produced(sequence)
        eos = self._decoder.eos_token_ids
        ends_text = sampled.token in group.request.stopping.ending(eos)
        text = "" if ends_text else sequence.detokenizer.push(sampled.token)
        reason = sequence.finish_reason(sampled.token, eos)
        if reason is not None:
            text += sequence.detokenizer.finish()
            if sequence.detokenizer.matched_stop:
                reason = FinishReason.STOP
        logprobs = (sampled,) if group.request.sampling.logprobs is not None else ()
        self._put(group, sequence, TokenEvent(text, (sampled.token,), sequence.choice, logprobs, scores))
        if reason is not None:
            self._finish(group, sequence, reason, now)

    def _observe_token(self, group: RequestGroup, sequence: Sequence, now: float) -> None:
        if sequence.last_token_s is not None:
            self._observer.token(sequence.adapter_key, now - sequence.last_token_s)
        if sequence.first_token_s is None:
            if group.first_token_s is None:
                self._observer.first_token(sequence.adapter_key, now - sequence.accepted_s)
            sequence.first_token_s = now

    def _put(self, group: RequestGroup, sequence: Sequence, event: TokenEvent) -> None:
        self._outbox.extend((group.sink, shown) for shown in group.put(sequence, event))

    def _finish(self, group: RequestGroup, sequence: Sequence, reason: FinishReason, now: float) -> None:
        sequence.ended_by = reason
        self._retire(sequence, now)
        self._gate.passed(sequence.sequence_id, Passage.FINISHED)
        group.unfinished -= 1
        started_s = sequence.started_s if sequence.started_s is not None else now
        by_itself = reason is FinishReason.STOP
        self._forecast.ended(group.request, len(sequence.output), now - started_s, by_itself=by_itself)
        if group.unfinished:
            return
        events, terminal = group.finished()
        self._forget(group, terminal.reason.value)
        self._outbox.extend((group.sink, event) for event in events)
        self._outbox.append((group.sink, terminal))

    def _fail(self, group: RequestGroup, error: ServerError, now: float) -> None:
        for sequence in group.sequences:
            if sequence.state is not SequenceState.ENDED:
                self._retire(sequence, now)
        self._forget(group, error.reason)
        self._outbox.append(
            (group.sink, ErrorEvent(error, len(group.request.prompt_tokens), group.completion_tokens))
        )

    def _retire(self, sequence: Sequence, now: float) -> None:
        """Frees everything that a sequence holds."""
        self._scheduler.remove(sequence, now)
        sequence.advance(SequenceState.ENDED)
        self._runner.forget(sequence.sequence_id)

    def _forget(self, group: RequestGroup, outcome: str) -> None:
        """Nothing of the request is left but its terminal event, which follows."""
        for sequence in group.sequences:
            del self._by_sequence[sequence.sequence_id]
        del self._groups[group.request.request_id]
        self._gate.ended(group.request)
        self._observer.finished(
            group.sequences[0].adapter_key, outcome, len(group.request.prompt_tokens), group.completion_tokens
        )
