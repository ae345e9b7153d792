"""Vectors of several texts: one call of a caller, one request to the engine for each text.

Who embeds is decided once, so that an alias that moves meanwhile does not give
vectors of two versions. Only as many texts are under way as the engine runs at
once; where the queue has no room even for those, the call goes on with fewer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from switchyard.registry.errors import RegistryError
from switchyard.server.calls.admission import Admission, Admitted, ServedBy, new_request_id
from switchyard.server.calls.answering import Answering, LiveAnswer
from switchyard.server.calls.caller import proven_actor
from switchyard.server.calls.codes import reason_of
from switchyard.server.calls.draft import EmbeddingDraft, RequestDraft
from switchyard.server.calls.embedding_bounds import POOLINGS, embedding_faults
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.engine.pooling import Pooling, PoolingParams
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import AdapterSelection, ErrorEvent, FinishedEvent, GenerateRequest, TokenEvent
from switchyard.server.errors import (
    EmbeddingsUnsupported,
    FieldFault,
    InvalidField,
    PromptEmpty,
    QueueFull,
    ServerError,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one call.

    Attributes:
        request_id: its name.
        served_by: who embedded, all of it.
        vectors: little-endian float32 of each input, in order.
        prompt_tokens: tokens of each input.
        cached_prompt_tokens: tokens of all inputs that were not computed again.
    """

    request_id: str
    served_by: ServedBy
    vectors: tuple[bytes, ...]
    prompt_tokens: tuple[int, ...]
    cached_prompt_tokens: int


class Embedding:
    """Answers calls for vectors; belongs to one event loop."""

    def __init__(self, admission: Admission, answering: Answering, *, parallel: int) -> None:
        """Wires the parts.

        Args:
            admission: decides who embeds, and makes prompts.
            answering: submits requests.
            parallel: texts of one call that are under way at once.
        """
        self._admission = admission
        self._answering = answering
        self._parallel = parallel

    async def embed(self, draft: EmbeddingDraft, *, remaining_s: float | None = None) -> Embedded:
        """Returns every vector.

        Args:
            draft: what the caller asked for.
            remaining_s: seconds until the caller's deadline; None when it has none.

        Raises:
            ServerError: refused, failed or ended.
            RegistryError: the ref names nothing, or the registry failed.
        """
        call = _Call(self._answering, self._parallel)
        try:
            with self._answering.noting_refusal():
                call.requests = await self._admit(draft, remaining_s)
            first = call.requests[0].request
            events = await self._run(call)
        except (ServerError, RegistryError) as error:
            _log.warning("embedding failed", extra=call.facts | {"reason": reason_of(error)})
            raise
        _log.info("embedding ended", extra=call.facts)
        return Embedded(
            request_id=first.request_id,
            served_by=call.requests[0].served_by,
            vectors=tuple(event.vector for event in events),
            prompt_tokens=tuple(event.prompt_tokens for event in events),
            cached_prompt_tokens=sum(event.cached_prompt_tokens for event in events),
        )

    async def _run(self, call: _Call) -> list[FinishedEvent]:
        first = call.requests[0].request
        with ExitStack() as held:
            with self._answering.noting_refusal():
                charge = held.enter_context(self._answering.quotas.charged([one.request for one in call.requests]))
            held.enter_context(self._answering.named(first.tenant, first.request_id, call))
            try:
                return await call.run()
            finally:
                charge.used_tokens = call.used_tokens

    async def _admit(self, draft: EmbeddingDraft, remaining_s: float | None) -> Sequence[Admitted]:
        width = self._admission.policy.embedding_width
        if not width:
            raise EmbeddingsUnsupported(
                "the base model of this server does not tell its hidden states; serve another base for vectors"
            )
        _refuse(embedding_faults(draft, self._admission.limits, width))
        deadline_s = self._admission.deadline_s(remaining_s)
        request_id, tenant = draft.request_id or new_request_id(), proven_actor() or ""
        selection = await self._admission.select(draft.target, draft.session_key or request_id)
        prompts = await self._prompts(draft, selection)
        pooling = POOLINGS[draft.pooling] if draft.pooling is not None else Pooling.LAST
        params = PoolingParams(pooling, normalize=draft.normalize is None or draft.normalize)
        served_by = self._admission.served_by(selection)
        return [
            Admitted(
                GenerateRequest(
                    request_id=f"{request_id}/{index}" if index else request_id,
                    prompt_tokens=tokens,
                    adapter=selection,
                    sampling=SamplingParams(),
                    stopping=StoppingParams(max_tokens=0),
                    deadline_s=deadline_s,
                    tenant=tenant,
                    priority=draft.priority or 0,
                    pooling=params,
                ),
                served_by,
            )
            for index, tokens in enumerate(prompts)
        ]

    async def _prompts(self, draft: EmbeddingDraft, selection: AdapterSelection | None) -> list[tuple[int, ...]]:
        """Token ids of every input.

        Raises:
            InvalidField: some have none, too many, or ones that the base does not embed; tells all of them.
        """
        prompts: list[tuple[int, ...]] = []
        faults: list[FieldFault] = []
        for index, one in enumerate(draft.inputs):
            # Long lists of short texts must not keep the loop from other calls.
            await asyncio.sleep(0)
            field = f"inputs[{index}]"
            asked = RequestDraft(draft.target)
            asked = replace(asked, prompt=one) if isinstance(one, str) else replace(asked, prompt_tokens=one)
            try:
                prepared = await self._admission.prepared(asked, selection)
            except PromptEmpty as error:
                faults.append(FieldFault(field, FieldReason.PROMPT_EMPTY, str(error)))
            except InvalidField as error:
                faults += [replace(fault, field=field) for fault in error.faults]
            else:
                prompts.append(prepared.prompt.tokens)
                if (count := len(prepared.prompt.tokens)) > prepared.context_tokens:
                    message = f"{count} tokens; the context holds {prepared.context_tokens}; send a shorter text"
                    faults.append(FieldFault(field, FieldReason.CONTEXT_LENGTH, message))
        _refuse(tuple(faults))
        return prompts


def _refuse(faults: tuple[FieldFault, ...]) -> None:
    if faults:
        raise InvalidField(faults)


class _Call:
    """One call under way."""

    def __init__(self, answering: Answering, parallel: int) -> None:
        self.requests: Sequence[Admitted] = ()
        self._answering = answering
        self._parallel = parallel
        self._waiting: deque[int] = deque()
        self._events: dict[int, FinishedEvent] = {}
        self._answers: set[LiveAnswer] = set()
        self._workers = 0
        self._error: ServerError | None = None

    @property
    def facts(self) -> dict[str, object]:
        """What may be logged."""
        if not self.requests:
            return {"inputs": 0}
        first = self.requests[0].request
        return {
            "request_id": first.request_id,
            "adapter": first.adapter.key if first.adapter else "base",
            "inputs": len(self.requests),
            "prompt_tokens": sum(len(one.request.prompt_tokens) for one in self.requests),
        }

    @property
    def used_tokens(self) -> int:
        """Tokens of the inputs that have become vectors."""
        return sum(event.prompt_tokens for event in self._events.values())

    def end(self, error: ServerError) -> None:
        """Makes it end with `error`."""
        self._error = error
        for answer in self._answers:
            answer.end(error)

    async def run(self) -> list[FinishedEvent]:
        """Waits for the vector of every input.

        Raises:
            ServerError: one of them failed, or the call was told to end.
        """
        self._waiting.extend(range(len(self.requests)))
        self._workers = min(self._parallel, len(self.requests))
        tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [self._events[index] for index in range(len(self.requests))]

    async def _work(self) -> None:
        while self._waiting:
            index = self._waiting.popleft()
            try:
                self._events[index] = await self._one(self.requests[index])
            except QueueFull:
                if self._workers == 1:
                    with self._answering.noting_refusal():
                        raise
                # The others take it when one of theirs has ended and left its place.
                self._waiting.appendleft(index)
                break
        self._workers -= 1

    async def _one(self, admitted: Admitted) -> FinishedEvent:
        if self._error is not None:
            raise self._error
        async with await self._answering.submit(admitted) as answer:
            self._answers.add(answer)
            try:
                event = await answer.next()
            finally:
                self._answers.discard(answer)
        if isinstance(event, ErrorEvent):
            raise event.error
        if isinstance(event, TokenEvent):
            raise TypeError("the engine gave a token to a request for a vector")
        return event
