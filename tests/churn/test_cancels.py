"""Callers that cancel and vanish leave nothing behind: rows, blocks, slots, pins, tasks and descriptors.

`make churn` lets 10,000 go; `make test` 400.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cancel_storm import come_to_rest, storm_outside, until
from churn_world import NAMES, publish_all
from tiny_base import make_tiny_llama

from switchyard.server import main
from switchyard.server.config import ServerConfig
from switchyard.server.main import Addresses, serve
from switchyard.server.resident import ServingCore

REFS = [f"n{index}@prod" for index in range(NAMES)]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[ServingCore]:
    """The cores that servers of this test have built."""
    built: list[ServingCore] = []
    build = main.build_core

    def kept(*parts: object) -> ServingCore:
        built.append(build(*parts))  # type: ignore[arg-type]
        return built[-1]

    monkeypatch.setattr(main, "build_core", kept)
    return built


@pytest.mark.slow
@pytest.mark.asyncio
async def test_nothing_is_left_of_callers_that_go(
    tmp_path: Path, cores: list[ServingCore], request: pytest.FixtureRequest
) -> None:
    calls = 10_000 if request.config.getoption("--churn-full") else 400
    publish_all(tmp_path, make_tiny_llama(tmp_path / "base"))
    config = ServerConfig(
        base=str(tmp_path / "base"),
        registry=tmp_path / "registry",
        port=0,
        health_port=0,
        http_port=0,
        threads=1,
        max_sequences=8,
        adapter_slots=4,
        max_queue=64,
        worker_process=False,
        drain_grace_s=1.0,
    )
    ready: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(config, ready.set_result))
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    address = (await ready).grpc
    core = cores[0]
    # Connections and lazy imports of the first calls are part of being at rest.
    await storm_outside(address, REFS, calls=400, seed=0)
    await until(lambda: _is_idle(core))
    before = await come_to_rest()
    told = await storm_outside(address, REFS, calls=calls, seed=1)
    await until(lambda: _is_idle(core))
    print(told)  # noqa: T201 - the summary of `make churn`
    assert min(told.gone["cancelled"], told.gone["disconnected"]) > calls // 10
    assert not told.refused, told.refused
    await asyncio.wrap_future(core.engine.call(core.engine.check_integrity))
    await asyncio.wrap_future(core.engine.call(core.host.check_integrity))
    assert await come_to_rest() == before
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def _is_idle(core: ServingCore) -> bool:
    load = core.engine.load()
    pins = sum(status.pins for status in core.host.statuses())
    return not (load.running_sequences or load.waiting_requests or load.kv_rows_used or pins)
