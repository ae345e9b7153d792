"""The engine of a worker process as the faces see it, with the gate on this side of the pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from switchyard.server.config import ServerConfig
from switchyard.server.engine.forecast import ServiceForecast
from switchyard.server.engine.gate import Gate, GateBounds
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import EngineLoad, GenerateRequest
from switchyard.server.errors import QueueFull
from switchyard.server.worker.line import Line
from switchyard.server.worker.messages import Abort, Displace, Happened, Order


class RemoteEngine:
    """Satisfies `GenerationEngine`.

    Whoever cannot be answered is refused here, by what the worker said last: a
    refusal never waits for the worker, and the worker never hears of it.
    """

    def __init__(
        self, line: Line, send: Callable[[object], None], bounds: GateBounds, config: ServerConfig, clock: Clock
    ) -> None:
        """Sees an engine through a line.

        Args:
            line: to the worker.
            send: to the same.
            bounds: what the engine can hold.
            config: everything that can be set.
            clock: shared with the worker.
        """
        self._line = line
        self._send = send
        self._clock = clock
        self._forecast = ServiceForecast(bounds.chunk_tokens)
        self._gate = Gate(bounds, config.fairness, self._forecast)
        self._nothing = EngineLoad(0, 0, 0, config.max_sequences, draining=False)
        line.watch(self._heard)

    async def submit(self, request: GenerateRequest) -> TokenStream:
        """See `GenerationEngine.submit`."""
        # Nothing else runs between the gate and the pipe: what it displaces arrives before the newcomer.
        self._gate.enter(request, self._clock.now(), lambda: None, self._displace)
        return await self._line.submit(request, partial(self._gate.ended, request))

    def abort(self, request_id: str) -> None:
        """See `GenerationEngine.abort`."""
        self._send(Abort(request_id))

    def load(self) -> EngineLoad:
        """See `GenerationEngine.load`; as told with the last step that changed anything."""
        load = self._line.load or self._nothing
        return replace(load, draining=load.draining or self._gate.draining)

    def begin_drain(self) -> None:
        """See `GenerationEngine.begin_drain`."""
        self._gate.close()
        self._send(Order.DRAIN)

    def _displace(self, request_id: str, error: QueueFull) -> None:
        self._send(Displace(request_id, error))

    def _heard(self, message: Happened) -> None:
        self._forecast.adopt(message.outlook)
        for sequence_id, passage in message.passages:
            self._gate.passed(sequence_id, passage)
