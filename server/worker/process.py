"""`python -m switchyard.server.worker.process FD`: the worker process, on one end of a socket pair."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import Final

from switchyard.registry.store import Registry
from switchyard.server.config import ServerConfig
from switchyard.server.lifecycle import keep_for_good
from switchyard.server.observe.log import configure
from switchyard.server.resident import HAND_OVER_S, MonotonicClock, ServingCore, build_core
from switchyard.server.worker.desk import Desk
from switchyard.server.worker.messages import Failed, Order, Ready, Start
from switchyard.server.worker.outbox import Outbox, Recorder
from switchyard.server.worker.pipe import Pipe

_log = logging.getLogger(__name__)

_ORPHANED: Final = 3
"""Exit status of a worker whose server process has gone."""


class Worker:
    """The whole process: loads what it is told to, serves it, and ends with its server."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start: asyncio.Future[ServerConfig] = self._loop.create_future()
        self._stop = asyncio.Event()
        self._desk: Desk | None = None
        self._pipe: Pipe | None = None

    async def run(self, end: socket.socket) -> None:
        """Serves until it is told to stop."""
        pipe = self._pipe = await Pipe.over(end, self._take, _orphaned)
        config = await self._start
        configure(config.log_format)
        sys.setswitchinterval(HAND_OVER_S)
        outbox = Outbox(self._loop, pipe.send)
        with Registry.open(config.registry) as registry:
            try:
                core = await asyncio.to_thread(self._build, config, registry, outbox)
            except Exception as error:
                _log.debug("the base was not loaded", exc_info=error)
                pipe.send(Failed(error))
            else:
                await self._serve(core, pipe, outbox)
        await pipe.finish()

    def _build(self, config: ServerConfig, registry: Registry, outbox: Outbox) -> ServingCore:
        built: list[ServingCore] = []
        core = build_core(
            config,
            registry,
            MonotonicClock(),
            Recorder(outbox.note),
            self._died,
            after_step=lambda: outbox.flush(built[0].engine.load(), built[0].engine.outlook),
            on_passage=outbox.passage,
        )
        built.append(core)
        return core

    async def _serve(self, core: ServingCore, pipe: Pipe, outbox: Outbox) -> None:
        self._desk = Desk(core, outbox, pipe.send)
        keep_for_good()
        core.engine.start()
        pipe.send(Ready(core.facts, core.base.tokenizer, core.engine.bounds))
        await self._stop.wait()
        await asyncio.to_thread(core.engine.stop)
        core.close()
        # What the engine said last waits for its turn on this loop.
        await asyncio.sleep(0)

    def _take(self, message: object) -> None:
        if isinstance(message, Start):
            self._start.set_result(message.config)
        elif message is Order.STOP:
            self._stop.set()
        elif self._desk is not None:
            self._desk.take(message)

    def _died(self, error: BaseException) -> None:
        """The step loop has died; called on the engine thread, after every request has its terminal event."""
        if self._pipe is not None:
            failure = RuntimeError(f"the step loop died: {type(error).__name__}: {error}")
            self._loop.call_soon_threadsafe(self._pipe.send, Failed(failure))


def _orphaned() -> None:
    """Nobody is left to serve; a load or a step under way is not worth waiting for."""
    os._exit(_ORPHANED)


async def _run(descriptor: int) -> None:
    end = socket.socket(fileno=descriptor)
    await Worker().run(end)


def main() -> None:
    """Runs the worker; a terminal's Ctrl-C is for the server process, which stops its worker in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(_run(int(sys.argv[1])))


if __name__ == "__main__":
    main()
