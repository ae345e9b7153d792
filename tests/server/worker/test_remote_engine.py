"""An engine behind a pipe lets in, refuses and answers as one in this process does."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fake_runner import ListSink, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stepped_engine import Bench, terminal, tokens

from switchyard.server.config import ServerConfig
from switchyard.server.engine.engine import Engine
from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, GenerateRequest, TokenEvent
from switchyard.server.errors import Draining, ServerError
from switchyard.server.worker.desk import Desk
from switchyard.server.worker.line import Line
from switchyard.server.worker.messages import Ask
from switchyard.server.worker.outbox import Outbox
from switchyard.server.worker.remote_engine import RemoteEngine

CONFIG = ServerConfig.model_validate(
    {
        **{"base": "b", "registry": "r", "max_sequences": 2},
        "tenants": {"heavy": {"weight": 2.0}, "small": {"max_waiting": 1}},
    }
)
SHAPE: dict[str, Any] = {"sequences": 2, "chunk": 8, "queue": 3, "rules": CONFIG.fairness}


@dataclass
class Core:
    """What a desk asks of a core, with an engine that the test steps."""

    engine: Engine
    memory: None = None
    grammars: None = None


@dataclass
class Pair:
    """Both ends in one process; `settle` carries what is under way until nothing is."""

    to_worker: deque[object] = field(default_factory=deque)
    to_server: deque[object] = field(default_factory=deque)
    sent: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        outbox = Outbox(loop, self.to_server.append)
        self.bench = Bench(**SHAPE, after_step=lambda: outbox.flush(*self._news()), on_passage=outbox.passage)
        self.desk = Desk(cast("Any", Core(self.bench.engine)), outbox, self.to_server.append)
        self.line = Line(lambda _: None, self._failed)
        self.remote = RemoteEngine(self.line, self._send, self.bench.engine.bounds, CONFIG, self.bench.clock)
        self.line.connect(self._send)

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
            while self.to_worker:
                self.desk.take(self.to_worker.popleft())
            while self.to_server:
                self.line.take(self.to_server.popleft())

    def _send(self, message: object) -> None:
        self.sent.append(message)
        self.to_worker.append(message)

    def _news(self) -> tuple[Any, Any]:
        return self.bench.engine.load(), self.bench.engine.outlook

    def _failed(self, error: BaseException) -> None:
        raise error


ASK = st.tuples(
    st.just("ask"),
    st.sampled_from(["small", "heavy", "light"]),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from([None, 0.02, 0.1, 0.5]),
    st.integers(1, 2),
)
MOVES = st.lists(
    st.one_of(ASK, st.tuples(st.just("step"), st.integers(1, 8)), st.tuples(st.just("leave"), st.integers(0, 12))),
    max_size=50,
)


@given(MOVES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whoever_asks_hears_the_same_as_from_an_engine_in_this_process(moves: list[tuple[Any, ...]]) -> None:
    asyncio.run(_compared(moves))


def test_a_deadline_that_the_worker_cannot_keep_is_refused_on_this_side() -> None:
    many: list[tuple[Any, ...]] = [("ask", "light", 3, 50, None, 1)] * 4
    refused = asyncio.run(_compared([*many, ("step", 30), ("ask", "light", 3, 5, 0.02, 1)]))
    assert [text.split(":")[0] for text in refused] == ["DEADLINE_UNREACHABLE"]


async def _compared(moves: list[tuple[Any, ...]]) -> list[str]:
    """Plays moves on both; who was refused, with what."""
    refused = []
    pair, here = Pair(), Bench(**SHAPE)
    streams: dict[str, asyncio.Task[TokenStream]] = {}
    sinks: dict[str, ListSink] = {}
    for number, move in enumerate(moves):
        if move[0] == "ask":
            asked = _request(f"r{number}", here, *move[1:])
            refusal = _asked(here, asked, sinks)
            task = streams[asked.request_id] = asyncio.create_task(pair.remote.submit(asked))
            await pair.settle()
            assert _refusal(task) == refusal
            refused += [refusal] if refusal is not None else []
        elif move[0] == "step":
            for _ in range(move[1]):
                here.engine.step()
                pair.bench.engine.step()
                await pair.settle()
        elif (name := f"r{move[1]}") in sinks:
            here.engine.abort(name)
            if not streams[name].exception():
                streams[name].result().close()
            await pair.settle()
    for _ in range(200):
        here.engine.step()
        pair.bench.engine.step()
        await pair.settle()
    for name, sink in sinks.items():
        events = [event async for event in streams[name].result()]
        assert _end(events[-1]) == _end(terminal(sink))
        assert sum((e.token_ids for e in events if isinstance(e, TokenEvent) and not e.index), ()) == tokens(sink)
    pair.bench.assert_at_rest()
    assert (pair.line.live, pair.desk.live) == (0, 0)
    assert pair.remote._gate.live == 0, "the gate on this side has heard of every end"
    return refused


def _request(
    name: str, here: Bench, tenant: str, prompt: int, most: int, left_s: float | None, answers: int
) -> GenerateRequest:
    deadline = None if left_s is None else here.clock.now() + left_s
    return request(name, prompt=prompt, max_tokens=most, tenant=tenant, deadline_s=deadline, n=answers)


def _asked(here: Bench, asked: GenerateRequest, sinks: dict[str, ListSink]) -> str | None:
    try:
        sinks[asked.request_id] = here.ask(asked)
    except ServerError as error:
        return f"{error.reason}: {error}"
    return None


def _refusal(task: asyncio.Task[TokenStream]) -> str | None:
    error = task.exception()
    if isinstance(error, ServerError):
        return f"{error.reason}: {error}"
    assert error is None
    return None


def _end(event: Event) -> tuple[str, str, int]:
    if isinstance(event, ErrorEvent):
        return event.error.reason, str(event.error), event.completion_tokens
    assert isinstance(event, FinishedEvent)
    return "finished", event.reason.value, event.completion_tokens


@pytest.mark.asyncio
async def test_a_refusal_never_reaches_the_worker() -> None:
    pair = Pair()
    for number in range(5):
        task = asyncio.create_task(pair.remote.submit(request(f"r{number}", tenant="heavy")))
        await pair.settle()
        assert not task.exception()
    asks = [message for message in pair.sent if isinstance(message, Ask)]
    with pytest.raises(ServerError, match="the limit is 5"):
        await pair.remote.submit(request("late", tenant="heavy"))
    assert [message for message in pair.sent if isinstance(message, Ask)] == asks


@pytest.mark.asyncio
async def test_whoever_asks_a_server_that_drains_is_refused_here_while_others_go_on() -> None:
    pair = Pair()
    task = asyncio.create_task(pair.remote.submit(request("r")))
    await pair.settle()
    pair.remote.begin_drain()
    with pytest.raises(Draining):
        await pair.remote.submit(request("late"))
    for _ in range(20):
        pair.bench.engine.step()
        await pair.settle()
    events = [event async for event in task.result()]
    assert isinstance(events[-1], FinishedEvent)
    assert pair.remote.load().draining


def test_tenants_have_the_same_rules_on_both_sides() -> None:
    assert CONFIG.fairness == FairnessRules(
        {"heavy": TenantPolicy(2.0), "small": TenantPolicy(max_waiting=1)}, TenantPolicy()
    )
