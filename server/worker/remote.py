"""A worker process as the faces see it, and how it is started and stopped."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from switchyard.server.adapters.tiers import AdapterStatus
from switchyard.server.config import ServerConfig
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.structure import Structure
from switchyard.server.engine.types import AdapterSelection, Digest
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.resident import CoreObserver
from switchyard.server.served import Served
from switchyard.server.worker.line import Line
from switchyard.server.worker.messages import GrammarTicket, Note, Order, Question, Start
from switchyard.server.worker.pipe import Pipe
from switchyard.server.worker.remote_engine import RemoteEngine

_MODULE: Final = "switchyard.server.worker.process"
_STOP_S: Final = 30.0
_T = TypeVar("_T")


class RemoteMemory:
    """Satisfies `AdapterMemory`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def statuses(self) -> Sequence[AdapterStatus]:
        """See `AdapterMemory.statuses`."""
        found = await self._line.ask(Question.STATUSES)
        if not isinstance(found, Sequence):
            raise TypeError(f"the worker answered {type(found).__name__} for statuses")
        return found

    async def load(self, selection: AdapterSelection) -> AdapterStatus:
        """See `AdapterMemory.load`."""
        return _only(AdapterStatus, await self._line.ask(Question.LOAD, selection))

    async def prefetch(self, selection: AdapterSelection) -> None:
        """See `AdapterMemory.prefetch`."""
        await self._line.ask(Question.PREFETCH, selection)

    async def unload(self, key: Digest) -> AdapterStatus | None:
        """See `AdapterMemory.unload`."""
        status = await self._line.ask(Question.UNLOAD, key)
        return None if status is None else _only(AdapterStatus, status)


class RemoteGrammars:
    """Satisfies `GrammarCompiler`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def compile(self, structure: Structure) -> GrammarTicket:
        """See `GrammarCompiler.compile`."""
        return GrammarTicket(_only(str, await self._line.ask(Question.COMPILE, structure)), structure)


class RemoteWorker:
    """A worker process of this server."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Pipe, line: Line) -> None:
        self._process = process
        self._pipe = pipe
        self._line = line

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @classmethod
    async def start(
        cls, config: ServerConfig, observer: CoreObserver, on_failure: Callable[[BaseException], None]
    ) -> RemoteWorker:
        """Starts a process that loads the base; `served` waits for it.

        Args:
            config: everything that can be set.
            observer: hears what happens to requests and adapters, on this event loop.
            on_failure: called once, when the worker can serve no more.
        """

        def replay(note: Note) -> None:
            name, arguments = note
            getattr(observer, name)(*arguments)

        line = Line(replay, on_failure)
        ours, theirs = socket.socketpair()
        with theirs:
            flags = ["-P"] if sys.flags.safe_path else []
            command = [sys.executable, *flags, "-m", _MODULE, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        pipe = await Pipe.over(ours, line.take, line.lost)
        line.connect(pipe.send)
        pipe.send(Start(config))
        return cls(process, pipe, line)

    async def served(self, config: ServerConfig, clock: Clock) -> Served:
        """Waits until the base is loaded.

        Args:
            config: everything that can be set.
            clock: the one clock; the worker's is the same.

        Raises:
            BaseModelError: the base cannot be served.
            RegistryError: the registry failed.
            EngineFailed: the process has ended.
        """
        ready, line = await self._line.ready(), self._line

        async def fingerprint() -> str:
            return _only(str, await line.ask(Question.FINGERPRINT))

        return Served(
            facts=ready.facts,
            tokenizer=ready.tokenizer,
            engine=RemoteEngine(line, self._pipe.send, ready.bounds, config, clock),
            memory=RemoteMemory(line),
            grammars=RemoteGrammars(line),
            fingerprint=fingerprint,
            rss_bytes=lambda: resident_bytes() + line.worker_rss_bytes,
        )

    async def stop(self) -> None:
        """Ends what still runs and the process; one that does not end by itself is killed."""
        self._line.end()
        self._pipe.send(Order.STOP)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            await asyncio.to_thread(self._process.wait)
        await self._pipe.finish()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()


def _only(kind: type[_T], found: object) -> _T:
    if not isinstance(found, kind):
        raise TypeError(f"the worker answered {type(found).__name__}, expected {kind.__name__}")
    return found
