"""The server process's end of the pipe: questions and their answers, requests and their events.

Every request that the worker has accepted ends with exactly one terminal event,
also when the worker is gone: then this end writes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from switchyard.server.engine.streams import Delivery, TokenStream
from switchyard.server.engine.types import EngineLoad, ErrorEvent, Event, GenerateRequest, TokenEvent
from switchyard.server.errors import EngineFailed
from switchyard.server.worker.messages import Answer, Ask, Failed, GiveUp, Happened, Note, Question, Ready

_log = logging.getLogger(__name__)

_GONE: Final = "the process that holds the model has gone; the server is about to restart, try again"


@dataclass(slots=True)
class _Submitted:
    stream: TokenStream
    prompt_tokens: int
    ended: Callable[[], None]
    completion_tokens: int = 0


class Line:
    """Who asked what; belongs to the server's event loop.

    Attributes:
        load: the engine as last heard of; None before that.
        worker_rss_bytes: resident memory of the worker as last heard of.
    """

    def __init__(self, replay: Callable[[Note], None], on_failure: Callable[[BaseException], None]) -> None:
        """Starts before there is a worker.

        Args:
            replay: hears what the worker's observers were told.
            on_failure: called once, when the worker can serve no more.
        """
        self.load: EngineLoad | None = None
        self.worker_rss_bytes = 0
        self._replay = replay
        self._on_failure = on_failure
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[object]] = {}
        self._submitted: dict[int, _Submitted] = {}
        self._failed = False
        self._ending = False
        self._send: Callable[[object], None] = lambda _: None
        self._watch: Callable[[Happened], None] = lambda _: None
        self._delivery = Delivery(asyncio.get_running_loop())

    @property
    def live(self) -> int:
        """Questions and requests that have not ended."""
        return len(self._asked) + len(self._submitted)

    def connect(self, send: Callable[[object], None]) -> None:
        """Has a way to the worker from now on."""
        self._send = send

    def watch(self, heard: Callable[[Happened], None]) -> None:
        """Has `heard` called with all that happens from now on, before anybody else hears of it."""
        self._watch = heard

    def end(self) -> None:
        """The worker is about to be stopped: from now on its end is no failure."""
        self._ending = True

    async def ready(self) -> Ready:
        """Waits until the worker can serve.

        Raises:
            Exception: why it cannot.
        """
        return await self._ready

    async def ask(self, question: Question, subject: object = None) -> object:
        """Asks and waits for the answer.

        Raises:
            ServerError: the worker refused, or is gone.
            RegistryError: the registry failed.
        """
        return await self._asking(next(self._numbers), question, subject)

    async def submit(self, request: GenerateRequest, ended: Callable[[], None]) -> TokenStream:
        """Submits a request; its events go to the returned stream.

        Args:
            request: what is asked.
            ended: called once, when the worker holds nothing of the request any more.

        Raises:
            ServerError: the worker refused, or is gone.
        """
        number = next(self._numbers)
        made = TokenStream(self._delivery, lambda: self._send(GiveUp(number)))
        if self._failed:
            ended()
        else:
            # Until the worker says that it ended, also when nobody waits for it any more.
            self._submitted[number] = _Submitted(made, len(request.prompt_tokens), ended)
        await self._asking(number, Question.SUBMIT, request)
        return made

    def take(self, message: object) -> None:
        """Takes one message of the worker."""
        if isinstance(message, Happened):
            self._happened(message)
        elif isinstance(message, Answer):
            self._answered(message)
        elif isinstance(message, Ready):
            self._ready.set_result(message)
        elif isinstance(message, Failed):
            self._fail(message.error)
        else:
            raise TypeError(f"a server takes no {type(message).__name__}")

    def lost(self) -> None:
        """The worker's end is closed: nothing comes any more."""
        self._fail(EngineFailed(_GONE))
        for number in list(self._submitted):
            told = self._submitted[number]
            self._event(number, ErrorEvent(EngineFailed(_GONE), told.prompt_tokens, told.completion_tokens))
        for future in self._asked.values():
            if not future.done():
                future.set_exception(EngineFailed(_GONE))

    async def _asking(self, number: int, question: Question, subject: object) -> object:
        if self._failed:
            raise EngineFailed(_GONE)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send(Ask(number, question, subject))
        try:
            return await future
        except asyncio.CancelledError:
            self._send(GiveUp(number))
            raise
        finally:
            del self._asked[number]

    def _answered(self, answer: Answer) -> None:
        if answer.error is not None and (told := self._submitted.pop(answer.number, None)):
            told.ended()
        future = self._asked.get(answer.number)
        if future is None or future.done():
            return
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.result)

    def _happened(self, message: Happened) -> None:
        self.load, self.worker_rss_bytes = message.load, message.rss_bytes
        self._watch(message)
        for number, event in message.events:
            self._event(number, event)
        for note in message.notes:
            self._replay(note)

    def _event(self, number: int, event: Event) -> None:
        told = self._submitted.get(number)
        if told is None:
            return
        if isinstance(event, TokenEvent):
            told.completion_tokens += len(event.token_ids)
        else:
            del self._submitted[number]
            told.ended()
        told.stream.take(event)

    def _fail(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        if not self._ready.done():
            self._ready.set_exception(error)
        elif not self._ending:
            _log.error("the engine has gone: %s", error)
            self._on_failure(error)
