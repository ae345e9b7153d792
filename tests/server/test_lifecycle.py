"""Stopping in order, in a hurry, and because a part has died; announcing whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import weakref
from pathlib import Path

import pytest

from switchyard.server.lifecycle import StopSwitch, keep_for_good, write_ready_file


@pytest.mark.asyncio
async def test_the_first_request_drains_and_the_second_hurries() -> None:
    switch = StopSwitch(default_grace_s=30)
    switch.drain()
    assert await switch.pressed() == 30
    hurried = asyncio.create_task(switch.hurried())
    await asyncio.sleep(0)
    assert not hurried.done()
    switch.drain(5)
    await hurried
    assert await switch.pressed() == 30


@pytest.mark.asyncio
async def test_a_grace_of_zero_is_not_the_default() -> None:
    switch = StopSwitch(default_grace_s=30)
    switch.drain(0)
    assert await switch.pressed() == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_press_it_while_it_listens(number: signal.Signals) -> None:
    switch = StopSwitch(default_grace_s=30)
    before = signal.getsignal(number)
    with switch.listening_to_signals():
        os.kill(os.getpid(), number)
        assert await switch.pressed() == 30
    assert signal.getsignal(number) == before


@pytest.mark.asyncio
async def test_a_dead_part_stops_the_process_with_a_failure() -> None:
    switch = StopSwitch(default_grace_s=30)
    thread = threading.Thread(target=switch.fail_from_thread, args=(RuntimeError("dead"),))
    thread.start()
    assert await switch.pressed() == 1.0
    thread.join()
    assert switch.failed


def test_a_ready_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    write_ready_file(path, {"grpc": "127.0.0.1:1", "pid": 2})
    assert json.loads(path.read_text()) == {"grpc": "127.0.0.1:1", "pid": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["ready"]


def test_a_ready_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_ready_file(tmp_path / "ready", {"pid": object()})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        write_ready_file(tmp_path / "missing" / "ready", {})


def test_what_lives_at_the_start_is_looked_through_no_more_and_what_comes_later_is() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.own = self

    early = Cycle()
    try:
        keep_for_good()
        assert gc.get_freeze_count() > 10_000
        assert not any(found is early for found in gc.get_objects())
        later = weakref.ref(Cycle())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
