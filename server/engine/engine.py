"""The step loop: drain, admit, plan, run, commit, emit.

One thread owns every sequence, every KV row and the residency of adapters.
Other threads reach it through the mailbox only. Every accepted request gets
exactly one terminal event, whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from switchyard.server.engine.fairness import FairShares
from switchyard.server.engine.forecast import Outlook, ServiceForecast
from switchyard.server.engine.gate import Gate, GateBounds, Passage
from switchyard.server.engine.kv_memory import KvMemory
from switchyard.server.engine.limits import FairnessRules, KvLimits, StepLimits
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
from switchyard.server.engine.requests import LiveRequests
from switchyard.server.engine.scheduler import Scheduler
from switchyard.server.engine.streams import Delivery, TokenStream
from switchyard.server.engine.types import EngineLoad, GenerateRequest, StepOutput, StepPlan
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import Cancelled, EngineFailed, ServerError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Engine:
    """Continuous batching over one runner.

    Thread-safe from outside: `submit`, `submit_to`, `displace`, `abort`, `call`, `why`, `load`,
    `outlook`, `begin_drain`, `start`, `stop`. `step` belongs to the engine thread, or to a
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
        memory: KvLimits | None = None,
        rules: FairnessRules | None = None,
        observer: EngineObserver | None = None,
        on_failure: Callable[[BaseException], None] | None = None,
        after_step: Callable[[], None] | None = None,
        on_passage: Callable[[str, Passage], None] | None = None,
    ) -> None:
        """Wires an engine that does not run yet.

        Args:
            runner: computes steps.
            adapters: brings adapters into slots.
            decoder: turns tokens into text.
            clock: the one clock.
            limits: bounds of a step.
            max_context_tokens: tokens that prompt and answer may have together.
            max_queue: sequences that may wait.
            memory: bounds of KV memory; None for whole rows and no cached prefixes.
            rules: what tenants may have; None for equal shares.
            observer: hears what happens.
            on_failure: called when the step loop has died.
            after_step: called on the engine thread once a step's events have gone to their sinks.
            on_passage: see `Gate`; called on the engine thread.
        """
        self.clock = clock
        self._runner = runner
        self._adapters = adapters
        self._observer = observer or NullObserver()
        self._on_failure = on_failure
        self._after_step = after_step
        rules = rules or FairnessRules()
        memory = memory or KvLimits(limits.max_sequences * limits.blocks_of(max_context_tokens))
        self._forecast = ServiceForecast(limits.prefill_chunk_tokens)
        self.bounds = GateBounds(
            max_live=limits.max_sequences + max_queue,
            longest_tokens=min(max_context_tokens, memory.blocks * limits.block_tokens),
            chunk_tokens=limits.prefill_chunk_tokens,
        )
        self._gate = Gate(self.bounds, rules, self._forecast, on_passage)
        self._memory = KvMemory(runner, limits, memory)
        self._scheduler = Scheduler(limits, self._memory, adapters, FairShares(rules))
        self._requests = LiveRequests(
            self._scheduler,
            self._gate,
            self._forecast,
            runner,
            decoder,
            self._observer,
        )
        self._mailbox = Mailbox()
        self._commands: deque[Command] = deque()
        self._deliveries: dict[asyncio.AbstractEventLoop, Delivery] = {}
        self._plan = StepPlan(())
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- called from any thread ------------------------------------------------

    def submit(self, request: GenerateRequest) -> TokenStream:
        """Accepts a request; its events go to the returned stream on the running event loop.

        Raises:
            ServerError: see `Gate.enter`.
        """
        loop = asyncio.get_running_loop()
        delivery = self._deliveries.setdefault(loop, Delivery(loop))
        stream = TokenStream(delivery, lambda: self._cancel(request.request_id, stream))
        self.submit_to(request, stream)
        return stream

    def submit_to(self, request: GenerateRequest, sink: EventSink, *, let_in: bool = False) -> None:
        """Accepts a request; its events go to `sink`, called on the engine thread.

        Args:
            request: what is asked.
            sink: where its events go.
            let_in: another gate has let it in, see `Gate.let_in`.

        Raises:
            ServerError: see `Gate.enter`.
        """
        now = self.clock.now()

        def accept() -> None:
            self._mailbox.post(lambda: self._requests.accept(request, sink, now))

        # Posted by the gate, so that no request slips in behind the last look at the mailbox.
        if let_in:
            self._gate.let_in(request, accept)
        else:
            self._gate.enter(request, now, accept, self.displace)

    def displace(self, request_id: str, error: ServerError) -> None:
        """Ends a request with `error` before its next step, as others need its place; unknown ids are ignored."""
        self._mailbox.post(lambda: self._requests.cancel(request_id, error, self.clock.now()))

    def abort(self, request_id: str, sink: EventSink | None = None) -> None:
        """Ends a request before its next step; unknown ids are ignored.

        Args:
            request_id: of the request.
            sink: where its events go; a later request with the same id goes on. None for whatever has the id.
        """
        self._cancel(request_id, sink)

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

    def why(self, request_id: str) -> WaitReason | None:
        """Why a request took no part in the last step; None when it did, or is not alive."""
        return self._plan.waiting.get(request_id)

    def load(self) -> EngineLoad:
        """A snapshot; numbers may be one step old."""
        running = len(self._scheduler.running)
        return EngineLoad(
            waiting_requests=max(0, self._gate.live - running),
            running_sequences=running,
            kv_rows_used=self._memory.rows.used,
            kv_rows_total=self._memory.rows.count,
            draining=self._gate.draining,
            kv_blocks_running=self._memory.blocks.running,
            kv_blocks_cached=self._memory.blocks.cached,
            kv_blocks_total=self._memory.blocks.total,
            waiting_for=Counter(self._plan.waiting.values()),
        )

    @property
    def outlook(self) -> Outlook:
        """What its forecasts rest on."""
        return self._forecast.outlook

    def wake(self) -> None:
        """Makes the engine look for finished loads."""
        self._mailbox.wake()

    def begin_drain(self) -> None:
        """Refuses new requests from now on; the accepted ones go on."""
        self._gate.close()

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

    def _cancel(self, request_id: str, sink: EventSink | None) -> None:
        gone = Cancelled("the caller went away")
        self._mailbox.post(lambda: self._requests.cancel(request_id, gone, self.clock.now(), sink))

    # -- the engine thread -----------------------------------------------------

    def step(self) -> StepPlan:
        """One step of the loop; returns the plan that ran, which may be empty."""
        began_s = self.clock.now()
        self._drain(timeout_s=0)
        self._admit()
        plan = self._plan = self._scheduler.plan()
        self._forecast.planned(plan.waiting.values())
        if plan.slices:
            self._commit(plan, self._run(plan))
        self._emit()
        if plan.slices:
            # All of it: what callers and bookkeeping take is time in which the model computes nothing.
            self._forecast.step(self.clock.now() - began_s, plan.tokens)
        return plan

    def check_integrity(self) -> None:
        """Verifies that rows, blocks, pins, groups and counters add up.

        Raises:
            RuntimeError: something leaked.
        """
        self._scheduler.check_integrity()
        self._requests.check_integrity()

    def _loop(self) -> None:
        try:
            while not self._stopping:
                if not self.step().slices:
                    self._drain(timeout_s=self._idle_timeout_s())
            self._end_all(lambda: Cancelled("the server stopped before the answer was complete"))
        except BaseException as error:
            _log.exception("the step loop died")
            self._gate.fail(error)
            message = f"the step loop died: {type(error).__name__}; try again"
            self._end_all(lambda: EngineFailed(message))
            if self._on_failure is not None:
                self._on_failure(error)

    def _idle_timeout_s(self) -> float | None:
        deadline_s = self._requests.next_deadline_s()
        return max(0.001, deadline_s - self.clock.now()) if deadline_s is not None else None

    def _drain(self, timeout_s: float | None) -> None:
        """Takes in what other threads, the loaders and the clock have brought."""
        self._commands.extend(self._mailbox.take(timeout_s))
        while self._commands:
            self._commands.popleft()()
        now = self.clock.now()
        self._adapters.poll(now, self._scheduler.awaited)
        self._requests.expire(now)

    def _admit(self) -> None:
        now = self.clock.now()
        self._requests.admitted(self._scheduler.admit(now), now)

    def _run(self, plan: StepPlan) -> StepOutput:
        began_s = self.clock.now()
        output = self._runner.execute(plan)
        duration_s = self.clock.now() - began_s
        self._scheduler.cost.ran(plan.decodes, plan.tokens - plan.decodes, duration_s)
        self._observer.step(duration_s, len(plan.slices), plan.tokens)
        return output

    def _commit(self, plan: StepPlan, output: StepOutput) -> None:
        self._requests.commit(plan, output, self.clock.now())

    def _emit(self) -> None:
        self._requests.emit()
        for loop, delivery in list(self._deliveries.items()):
            if not delivery.flush():
                self._deliveries.pop(loop, None)
        if self._after_step is not None:
            self._after_step()

    def _end_all(self, error: Callable[[], ServerError]) -> None:
        """Gives every accepted request its terminal event, also those that no step has seen."""
        self._commands.extend(self._mailbox.take(0))
        while self._commands:
            self._commands.popleft()()
        self._requests.cancel_all(error, self.clock.now())
        self._emit()
