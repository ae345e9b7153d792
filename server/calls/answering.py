"""One generation from draft to terminal event, as every face relays it.

Every accepted request is left in a `with` block that aborts it when it has not
ended: a caller that vanishes without a word runs only `finally` code.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Protocol

from switchyard.registry.errors import RegistryError
from switchyard.server.calls.admission import Admission, Admitted, ServedBy
from switchyard.server.calls.caller import proven_actor
from switchyard.server.calls.codes import reason_of
from switchyard.server.calls.draft import RequestDraft
from switchyard.server.calls.live import EndGuard, LiveWork
from switchyard.server.calls.ports import AnswerObserver, GenerationEngine, NobodyListens, RefusalObserver
from switchyard.server.calls.prompts import Prompt
from switchyard.server.calls.quotas import Quotas
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, TokenEvent
from switchyard.server.errors import Cancelled, RequestIdInUse, ServerError

_log = logging.getLogger(__name__)


class Endable(Protocol):
    """A call under way."""

    def end(self, error: ServerError) -> None:
        """Makes it end with `error`."""
        ...


class LiveAnswer:
    """An accepted request under way.

    Attributes:
        admitted: what was accepted.
    """

    def __init__(self, admitted: Admitted, stream: TokenStream, guard: EndGuard, observer: AnswerObserver) -> None:
        self.admitted = admitted
        self._observer = observer
        self._stream = stream
        self._guard = guard
        self._produced_tokens = 0

    @property
    def used_tokens(self) -> int:
        """Tokens of the prompt and of all answers so far."""
        return len(self.admitted.request.prompt_tokens) + self._produced_tokens

    async def next(self) -> Event:
        """The next event, of which exactly one is terminal; an answer that is told to end gets that one here."""
        try:
            event = await self._guard.next(self._stream)
        except ServerError as error:
            event = ErrorEvent(error, len(self.admitted.request.prompt_tokens), self._produced_tokens)
        if isinstance(event, TokenEvent):
            self._produced_tokens += len(event.token_ids)
            return event
        # More than was shown, where more answers were made than given.
        self._produced_tokens = max(self._produced_tokens, event.completion_tokens)
        if self.admitted.request.pooling is None:
            _log_end(self.admitted, event)
        self._observer.answered(self.admitted.request, event)
        return event

    def end(self, error: ServerError) -> None:
        """Makes the next event, or the one being waited for, the terminal one."""
        self._guard.end(error)


class Answering:
    """Admits drafts and submits them; belongs to one event loop."""

    def __init__(
        self,
        admission: Admission,
        engine: GenerationEngine,
        live: LiveWork,
        observer: RefusalObserver,
        quotas: Quotas,
        answers: AnswerObserver | None = None,
    ) -> None:
        """Wires the parts.

        Args:
            admission: turns drafts into requests.
            engine: answers them.
            live: ends answers when the server stops.
            observer: hears of refusals.
            quotas: what tenants and adapters may have.
            answers: hears how answers end.
        """
        self.quotas = quotas
        self._admission = admission
        self._engine = engine
        self._live = live
        self._observer = observer
        self._answer_observer = answers or NobodyListens()
        self._named: dict[tuple[str, str], Endable] = {}

    def abort(self, request_id: str) -> bool:
        """Ends an answer of the caller; false when it has none of that name, whoever else may."""
        found = self._named.get((proven_actor() or "", request_id))
        if found is None:
            return False
        found.end(Cancelled("the caller aborted the request"))
        return True

    @asynccontextmanager
    async def answer(self, draft: RequestDraft, *, remaining_s: float | None = None) -> AsyncIterator[LiveAnswer]:
        """Accepts a request and lets go of it when the block ends.

        Args:
            draft: what the caller asked for.
            remaining_s: seconds until the caller's deadline; None when it has none.

        Raises:
            ServerError: see `Admission.admit` and `GenerationEngine.submit`.
            RegistryError: the ref names nothing, or the registry failed.
        """
        async with AsyncExitStack() as held:
            with self.noting_refusal():
                admitted = await self._admission.admit(draft, remaining_s=remaining_s, tenant=proven_actor() or "")
                charge = held.enter_context(self.quotas.charged((admitted.request,)))
                answer = await held.enter_async_context(await self.submit(admitted))
            held.enter_context(self.named(admitted.request.tenant, admitted.request.request_id, answer))
            try:
                yield answer
            finally:
                charge.used_tokens = answer.used_tokens

    async def submit(self, admitted: Admitted) -> AbstractAsyncContextManager[LiveAnswer]:
        """Submits a request; the answer is let go of when its block ends. It has no name that `abort` knows.

        Raises:
            ServerError: see `GenerationEngine.submit`.
        """
        if admitted.request.adapter is not None:
            self._observer.introduce(admitted.request.adapter)
        return self._held(admitted, await self._engine.submit(admitted.request))

    @contextmanager
    def named(self, tenant: str, request_id: str, call: Endable) -> Iterator[None]:
        """Lets `abort` find a call while the block runs.

        Raises:
            RequestIdInUse: another call of this tenant has the name.
        """
        name = (tenant, request_id)
        if name in self._named:
            raise RequestIdInUse(f"request id {request_id!r} is in use; choose another or leave it empty")
        self._named[name] = call
        try:
            yield
        finally:
            del self._named[name]

    @contextmanager
    def noting_refusal(self) -> Iterator[None]:
        """Counts what the block refuses."""
        try:
            yield
        except (ServerError, RegistryError) as error:
            self._observer.refused(reason_of(error))
            raise

    async def render(self, draft: RequestDraft) -> tuple[Prompt, ServedBy]:
        """The prompt that a draft becomes, and who would answer; see `Admission.render`."""
        with self.noting_refusal():
            return await self._admission.render(draft)

    @asynccontextmanager
    async def _held(self, admitted: Admitted, stream: TokenStream) -> AsyncIterator[LiveAnswer]:
        async with stream:
            with self._live.guard() as guard:
                yield LiveAnswer(admitted, stream, guard, self._answer_observer)


def _log_end(admitted: Admitted, event: FinishedEvent | ErrorEvent) -> None:
    """One line per answer: who served it and how it ended, nothing of what was said."""
    selection = admitted.request.adapter
    facts: dict[str, object] = {
        "request_id": admitted.request.request_id,
        "adapter": selection.key if selection else "base",
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
    }
    if isinstance(event, ErrorEvent):
        _log.warning("answer failed", extra=facts | {"reason": reason_of(event.error)})
    else:
        timing = {"queue_s": event.timing.queue_s, "ttft_s": event.timing.time_to_first_token_s}
        _log.info("answer ended", extra=facts | {"finish": event.reason.value} | timing)
