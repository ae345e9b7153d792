"""The step loop: drain, admit, plan, run, commit, emit.

One thread owns every sequence, every KV row and the residency of adapters.
Other threads reach it through the mailbox only. Every accepted request gets
exactly one terminal event, whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from switchyard.server.engine.detokenize import Detokenizer
from switchyard.server.engine.kv_rows import KvRows
from switchyard.server.engine.mailbox import Command, Mailbox
from switchyard.server.engine.ports import (
    AdapterPool,
    Clock,
    EngineObserver,
    EventSink,
    NullObserver,
    Runner,
    TextDecoder,
)
from switchyard.server.engine.scheduler import Scheduler, StepLimits
from switchyard.server.engine.sequence import Sequence, SequenceState
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import (
    EngineLoad,
    ErrorEvent,
    FinishedEvent,
    FinishReason,
    GenerateRequest,
    StepOutput,
    StepPlan,
    TokenEvent,
)
from switchyard.server.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    EngineFailed,
    NumericFault,
    QueueFull,
    RequestIdInUse,
    ServerError,
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Engine:
    """Continuous batching over one runner.

    Thread-safe from outside: `submit`, `submit_to`, `abort`, `call`, `load`,
    `begin_drain`, `start`, `stop`. `step` belongs to the engine thread, or to a
    test that has not started one.
    """

    def __init__(
        self,
        runner: Runner,
        adapters: AdapterPool,
        decoder: TextDecoder,
        clock: Clock,
        limits: StepLimits,
        *,
        max_context_tokens: int,
        max_queue: int,
        observer: EngineObserver | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.clock = clock
        self._runner = runner
        self._adapters = adapters
        self._decoder = decoder
        self._max_context_tokens = max_context_tokens
        self._max_live = limits.max_sequences + max_queue
        self._observer = observer or NullObserver()
        self._on_failure = on_failure
        self._rows = KvRows(limits.max_sequences)
        self._scheduler = Scheduler(limits, self._rows, adapters)
        self._sequences: dict[str, Sequence] = {}
        self._mailbox = Mailbox()
        self._commands: deque[Command] = deque()
        self._gate = threading.Lock()
        self._live: set[str] = set()
        self._draining = False
        self._failure: BaseException | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- called from any thread ------------------------------------------------

    def submit(self, request: GenerateRequest) -> TokenStream:
        """Accepts a request; its events go to the returned stream on the running event loop.

        Raises:
            QueueFull: as many requests are alive as the limits allow.
            Draining: the server is stopping.
            EngineFailed: the step loop has died.
        """
        stream = TokenStream(asyncio.get_running_loop(), lambda: self.abort(request.request_id))
        self.submit_to(request, stream)
        return stream

    def submit_to(self, request: GenerateRequest, sink: EventSink) -> None:
        """Accepts a request; its events go to `sink`, called on the engine thread.

        Raises:
            QueueFull: as many requests are alive as the limits allow.
            Draining: the server is stopping.
            RequestIdInUse: another live request has this id.
            EngineFailed: the step loop has died.
        """
        with self._gate:
            if self._failure is not None:
                raise EngineFailed("the step loop has died; the server is about to restart")
            if self._draining:
                raise Draining("the server is stopping; send the request to another one")
            if len(self._live) >= self._max_live:
                raise QueueFull(
                    f"{len(self._live)} requests are alive, the limit is {self._max_live}; try again later"
                )
            if request.request_id in self._live:
                raise RequestIdInUse(f"request id {request.request_id!r} is in use; choose another or leave it empty")
            self._live.add(request.request_id)
            accepted_s = self.clock.now()
            # Posted under the gate, so that no request slips in behind the last look at the mailbox.
            self._mailbox.post(lambda: self._accept(request, sink, accepted_s))

    def abort(self, request_id: str) -> None:
        """Ends a request before its next step; unknown ids are ignored."""
        self._mailbox.post(lambda: self._abort(request_id))

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs `function` on the engine thread between two steps."""
        future: Future[_T] = Future()

        def run() -> None:
            # Whoever asked may have gone; their future then takes no result.
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._mailbox.post(run)
        return future

    def load(self) -> EngineLoad:
        """A snapshot; numbers may be one step old."""
        running = len(self._scheduler.running)
        return EngineLoad(
            waiting_requests=max(0, len(self._live) - running),
            running_sequences=running,
            kv_rows_used=self._rows.used,
            kv_rows_total=self._rows.count,
            draining=self._draining,
        )

    def wake(self) -> None:
        """Makes the engine look for finished loads."""
        self._mailbox.wake()

    def begin_drain(self) -> None:
        """Refuses new requests from now on; the accepted ones go on."""
        with self._gate:
            self._draining = True

    def start(self) -> None:
        """Starts the engine thread."""
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ends what still runs with `Cancelled` and stops the thread."""
        self.begin_drain()
        self._stopping = True
        self._mailbox.wake()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- the engine thread -----------------------------------------------------

    def step(self) -> StepPlan:
        """One step of the loop; returns the plan that ran, which may be empty."""
        self._drain(timeout_s=0)
        self._admit()
        plan = self._scheduler.plan()
        if plan.slices:
            began_s = self.clock.now()
            output = self._runner.execute(plan)
            self._commit_and_emit(plan, output)
            tokens = sum(len(piece.tokens) for piece in plan.slices)
            self._observer.step(self.clock.now() - began_s, len(plan.slices), tokens)
        return plan

    def check_integrity(self) -> None:
        """Verifies that rows and sequences add up.

        Raises:
            RuntimeError: something leaked.
        """
        self._rows.check_integrity()
        if self._rows.used != len(self._scheduler.running):
            raise RuntimeError(f"{self._rows.used} KV rows for {len(self._scheduler.running)} sequences")
        if set(self._sequences) != {sequence.request.request_id for sequence in self._scheduler}:
            raise RuntimeError("the request table and the queues disagree")

    def _loop(self) -> None:
        try:
            while not self._stopping:
                if not self.step().slices:
                    self._drain(timeout_s=self._idle_timeout_s())
            self._end_all(lambda: Cancelled("the server stopped before the answer was complete"))
        except BaseException as error:
            _log.exception("the step loop died")
            with self._gate:
                self._failure = error
            message = f"the step loop died: {type(error).__name__}; try again"
            self._end_all(lambda: EngineFailed(message))
            if self._on_failure is not None:
                self._on_failure(error)

    def _idle_timeout_s(self) -> float | None:
        deadlines = [s.request.deadline_s for s in self._scheduler if s.request.deadline_s is not None]
        return max(0.001, min(deadlines) - self.clock.now()) if deadlines else None

    def _drain(self, timeout_s: float | None) -> None:
        self._commands.extend(self._mailbox.take(timeout_s))
        while self._commands:
            self._commands.popleft()()
        now = self.clock.now()
        self._adapters.poll(now)
        for sequence in list(self._scheduler):
            deadline = sequence.request.deadline_s
            if deadline is not None and now >= deadline:
                self._fail(sequence, DeadlineExceeded("the deadline passed before the answer was complete"))

    def _accept(self, request: GenerateRequest, sink: EventSink, accepted_s: float) -> None:
        detokenizer = Detokenizer(self._decoder, request.stopping.stop)
        sequence = Sequence(request, sink, detokenizer, accepted_s)
        self._sequences[request.request_id] = sequence
        self._scheduler.add(sequence)
        self._observer.queued(sequence.adapter_key)

    def _abort(self, request_id: str) -> None:
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._fail(sequence, Cancelled("the caller went away"))

    def _admit(self) -> None:
        started, refused = self._scheduler.admit(self.clock.now())
        for sequence, error in refused:
            self._fail(sequence, error)
        for sequence in started:
            timing = sequence.timing()
            self._observer.started(sequence.adapter_key, timing.queue_s, timing.adapter_wait_s)

    def _commit_and_emit(self, plan: StepPlan, output: StepOutput) -> None:
        now = self.clock.now()
        for piece in plan.slices:
            sequence = self._sequences[piece.request_id]
            sequence.computed += len(piece.tokens)
            if piece.request_id in output.faults:
                self._fail(sequence, NumericFault("the model gave a number that is not finite for this request"))
            elif piece.sample:
                self._advance(sequence, output.tokens[piece.request_id].token, now)

    def _advance(self, sequence: Sequence, token: int, now: float) -> None:
        if sequence.first_token_s is None or sequence.last_token_s is None:
            sequence.first_token_s = now
            sequence.advance(SequenceState.DECODE)
            self._observer.first_token(sequence.adapter_key, now - sequence.accepted_s)
        else:
            self._observer.token(sequence.adapter_key, now - sequence.last_token_s)
        sequence.last_token_s = now
        sequence.output.append(token)
        ends_text = token in sequence.request.stopping.ending(self._decoder.eos_token_ids)
        text = "" if ends_text else sequence.detokenizer.push(token)
        reason = sequence.finish_reason(token, self._decoder.eos_token_ids, self._max_context_tokens)
        if reason is not None:
            text += sequence.detokenizer.finish()
            if sequence.detokenizer.matched_stop:
                reason = FinishReason.STOP
        sequence.sink.put(TokenEvent(text, (token,)))
        if reason is not None:
            self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        event = FinishedEvent(
            reason,
            len(sequence.request.prompt_tokens),
            len(sequence.output),
            sequence.timing(),
            sequence.detokenizer.matched_stop,
        )
        self._retire(sequence, reason.value)
        sequence.sink.put(event)

    def _fail(self, sequence: Sequence, error: ServerError) -> None:
        self._retire(sequence, error.reason)
        sequence.sink.put(ErrorEvent(error, len(sequence.request.prompt_tokens), len(sequence.output)))

    def _retire(self, sequence: Sequence, outcome: str) -> None:
        """Frees everything that a sequence holds; the terminal event follows."""
        if sequence.kv_row is not None:
            self._runner.release_row(sequence.kv_row)
            self._runner.forget(sequence.request.request_id)
        self._scheduler.remove(sequence, self.clock.now())
        sequence.advance(SequenceState.ENDED)
        del self._sequences[sequence.request.request_id]
        with self._gate:
            self._live.discard(sequence.request.request_id)
        self._observer.finished(
            sequence.adapter_key, outcome, len(sequence.request.prompt_tokens), len(sequence.output)
        )

    def _end_all(self, error: Callable[[], ServerError]) -> None:
        """Gives every accepted request its terminal event, also those that no step has seen."""
        self._commands.extend(self._mailbox.take(0))
        while self._commands:
            self._commands.popleft()()
        for sequence in list(self._scheduler):
            self._fail(sequence, error())
