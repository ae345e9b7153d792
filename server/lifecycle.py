"""What starts, announces and stops a server process.

A supervisor or a script learns where a server listens from one ready file,
written whole or not at all, and stops it with a signal: the first one drains,
the second one does not wait.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


class StopSwitch:
    """Asks a running server to stop; belongs to one event loop."""

    def __init__(self, default_grace_s: float) -> None:
        """Starts unpressed.

        Args:
            default_grace_s: seconds that calls under way get when nobody says otherwise.
        """
        self.failed = False
        self._default_grace_s = default_grace_s
        self._loop = asyncio.get_running_loop()
        self._pressed: asyncio.Future[float] = self._loop.create_future()
        self._hurry = asyncio.Event()

    def drain(self, grace_s: float | None = None) -> None:
        """Asks for an orderly stop; asked again, it no longer waits."""
        if self._pressed.done():
            self._hurry.set()
        else:
            self._pressed.set_result(self._default_grace_s if grace_s is None else grace_s)

    def fail_from_thread(self, error: BaseException) -> None:
        """Asks for a stop because a part has died; callable from any thread."""
        del error
        self._loop.call_soon_threadsafe(self._fail)

    @contextmanager
    def listening_to_signals(self) -> Iterator[None]:
        """Makes SIGTERM and SIGINT press the switch while the block runs."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            self._loop.add_signal_handler(number, self.drain)
        try:
            yield
        finally:
            for number, handler in before.items():
                self._loop.remove_signal_handler(number)
                signal.signal(number, handler)

    async def pressed(self) -> float:
        """Waits for the first request to stop; returns its grace in seconds."""
        return await asyncio.shield(self._pressed)

    async def hurried(self) -> None:
        """Waits for the second request to stop."""
        await self._hurry.wait()

    def _fail(self) -> None:
        self.failed = True
        if not self._pressed.done():
            # Every stream has had its terminal event; only its delivery is left.
            self._pressed.set_result(min(1.0, self._default_grace_s))


def keep_for_good() -> None:
    """Takes all that is alive now out of the garbage collector's sight.

    Half a million objects of the model's libraries stay until the end. Looking through them takes a third of a
    second and more, in which neither a step nor a call goes on, and at the end of the process several times that.
    """
    gc.collect()
    gc.freeze()


async def unless_stopped(switch: StopSwitch, work: Callable[[], _T]) -> _T | None:
    """Runs slow work in a thread, and gives up waiting when the switch is pressed.

    The thread cannot be stopped; it is a daemon, so the process ends without it.

    Returns:
        What `work` returned; None when the switch was pressed first.

    Raises:
        Exception: what `work` raised.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        result: Future[_T] = Future()
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_hand_over, result, outcome)

    threading.Thread(target=run, name="start-up", daemon=True).start()
    pressed = asyncio.create_task(switch.pressed())
    either: set[asyncio.Future[Any]] = {outcome, pressed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    pressed.cancel()
    return outcome.result() if outcome.done() else None


def _hand_over(result: Future[_T], outcome: asyncio.Future[_T]) -> None:
    error = result.exception()
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(result.result())


def write_ready_file(path: Path, facts: dict[str, str | int]) -> None:
    """Writes `facts` as JSON, visible only when complete.

    Raises:
        OSError: the directory does not exist or cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(facts, file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
