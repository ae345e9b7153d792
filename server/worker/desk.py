"""Where a worker takes questions: each is handed to the engine, the adapters or the compilers, and answered once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from switchyard.registry.errors import RegistryError
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, GenerateRequest
from switchyard.server.errors import Cancelled, EngineFailed, ServerError
from switchyard.server.resident import ServingCore
from switchyard.server.worker.messages import Abort, Answer, Ask, Displace, GiveUp, GrammarTicket, Order, Question
from switchyard.server.worker.outbox import Outbox

_log = logging.getLogger(__name__)


class _Sink:
    """Where the events of one request go."""

    def __init__(self, number: int, request_id: str, outbox: Outbox, ended: Callable[[int], None]) -> None:
        self.request_id = request_id
        self._number = number
        self._outbox = outbox
        self._ended = ended

    def put(self, event: Event) -> None:
        """Takes an event on the engine thread."""
        self._outbox.event(self._number, event)
        if isinstance(event, FinishedEvent | ErrorEvent):
            self._ended(self._number)


class Desk:
    """Answers the server process; belongs to the worker's event loop."""

    def __init__(self, core: ServingCore, outbox: Outbox, send: Callable[[Answer], None]) -> None:
        """Opens the desk.

        Args:
            core: answers.
            outbox: takes the events of requests.
            send: sends one answer.
        """
        self._core = core
        self._memory = core.memory
        self._outbox = outbox
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._sinks: dict[int, _Sink] = {}
        self._work: dict[Question, Callable[[int, object], Awaitable[object]]] = {
            Question.SUBMIT: self._submit,
            Question.STATUSES: lambda _, __: self._memory.statuses(),
            Question.LOAD: lambda _, selection: self._memory.load(selection),  # type: ignore[arg-type]
            Question.PREFETCH: lambda _, selection: self._memory.prefetch(selection),  # type: ignore[arg-type]
            Question.UNLOAD: lambda _, key: self._memory.unload(key),  # type: ignore[arg-type]
            Question.COMPILE: self._compile,
            Question.FINGERPRINT: lambda _, __: asyncio.to_thread(core.base.fingerprint),
        }

    @property
    def live(self) -> int:
        """Questions and requests under way."""
        return len(self._under_way) + len(self._sinks)

    def take(self, message: object) -> None:
        """Takes one message of the server process; `Order.STOP` is not for the desk."""
        if isinstance(message, Ask):
            task = self._under_way[message.number] = self._loop.create_task(self._answer(message))
            # Not by the task itself: one that is given up before it begins runs no line of its own.
            task.add_done_callback(partial(self._done, message.number))
        elif isinstance(message, GiveUp):
            self._give_up(message.number)
        elif isinstance(message, Abort):
            self._core.engine.abort(message.request_id)
        elif isinstance(message, Displace):
            self._core.engine.displace(message.request_id, message.error)
        elif message is Order.DRAIN:
            self._core.engine.begin_drain()
        else:
            raise TypeError(f"a worker takes no {type(message).__name__}")

    async def _answer(self, ask: Ask) -> None:
        try:
            answer = Answer(ask.number, await self._work[ask.question](ask.number, ask.subject))
        except (ServerError, RegistryError) as error:
            answer = Answer(ask.number, error=error)
        except Exception as error:
            _log.exception("question %s failed", ask.question.value)
            failure = EngineFailed(f"the worker could not answer: {type(error).__name__}; try again")
            answer = Answer(ask.number, error=failure)
        self._send(answer)

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        del self._under_way[number]
        if task.cancelled():
            self._send(Answer(number, error=Cancelled("nobody waited for the answer any more")))

    async def _submit(self, number: int, subject: object) -> None:
        if not isinstance(subject, GenerateRequest):
            raise TypeError(f"submitted a {type(subject).__name__}")
        request = subject
        if isinstance(ticket := request.sampling.grammar, GrammarTicket):
            grammar = await self._core.grammars.compile(ticket.structure)
            request = replace(request, sampling=replace(request.sampling, grammar=grammar))
        sink = self._sinks[number] = _Sink(number, request.request_id, self._outbox, self._ended)
        try:
            self._core.engine.submit_to(request, sink, let_in=True)
        except ServerError:
            del self._sinks[number]
            raise

    async def _compile(self, number: int, subject: object) -> str:
        del number
        return (await self._core.grammars.compile(subject)).digest  # type: ignore[arg-type]

    def _ended(self, number: int) -> None:
        """A request has its terminal event; called on the engine thread."""
        self._loop.call_soon_threadsafe(self._sinks.pop, number, None)

    def _give_up(self, number: int) -> None:
        if task := self._under_way.get(number):
            task.cancel()
        if sink := self._sinks.get(number):
            self._core.engine.abort(sink.request_id, sink)
