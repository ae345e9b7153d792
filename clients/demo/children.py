"""The demo's child processes: started, watched, and all of them stopped at the end.

Each child writes what it says into a log of its own; a child that fails is
reported with the end of that log.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from switchyard.clients.embedded import PROGRAM, stop
from switchyard.clients.errors import DemoFailed

_STOP_S: Final = 30.0
_POLL_S: Final = 0.1
_SHOWN_LINES: Final = 12


@dataclass(slots=True)
class Child:
    """One running command of `switchyard`.

    Attributes:
        name: what it is called in messages and in the name of its log.
        process: the process.
        log: where standard error goes, and standard output of what is not read.
        output: where standard output goes.
        started_s: when it was started, on the monotonic clock.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    output: Path
    started_s: float = field(default_factory=time.monotonic)

    def running(self) -> bool:
        """Whether it still runs; asking also notices that it has failed.

        Raises:
            DemoFailed: it ended with a failure.
        """
        status = self.process.poll()
        if status is None:
            return True
        if status != 0:
            raise DemoFailed(f"{self.name} ended with status {status}. The end of {self.log}:\n{self._last_words()}")
        return False

    def text(self) -> str:
        """What it has written to standard output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def _last_words(self) -> str:
        lines: list[str] = []
        for path in (self.output, self.log):
            lines += path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:]) or "  (it said nothing)"


class Children:
    """Starts children and stops every one of them when the block ends, however it ends."""

    def __init__(self, logs: Path, program: Sequence[str] = PROGRAM) -> None:
        """Writes logs below `logs`, which must exist."""
        self._logs = logs
        self._program = tuple(program)
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Child:
        """Starts `switchyard` with `arguments`."""
        return self.start_program(name, [*self._program, *arguments], environment=environment)

    def start_program(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Starts any program, with variables added to this process's environment."""
        log, output = self._logs / f"{name}.log", self._logs / f"{name}.out"
        with log.open("wb") as errors, output.open("wb") as written:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )
        child = Child(name, process, log, output)
        self._children.append(child)
        return child

    def run(self, name: str, arguments: Sequence[str]) -> str:
        """Runs `switchyard` with `arguments` to its end and returns what it wrote to standard output.

        Raises:
            DemoFailed: it failed.
        """
        child = self.start(name, arguments)
        child.process.wait()
        child.running()
        return child.text()

    def stop(self, child: Child) -> None:
        """Stops one child."""
        stop(child.process, _STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        for child in self._children:
            stop(child.process, _STOP_S)


def wait_until_all_end(children: Sequence[Child], watch: Callable[[], None]) -> None:
    """Waits for every child, calling `watch` in between.

    Raises:
        DemoFailed: one of them failed; the others are left to the caller.
    """
    running = list(children)
    while running:
        watch()
        time.sleep(_POLL_S)
        running = [child for child in running if child.running()]
    watch()


def wait_for_facts(child: Child, ready: Path, limit_s: float) -> dict[str, object]:
    """Waits for the ready file of a service and returns what is in it.

    Raises:
        DemoFailed: the service ended, or was not ready within `limit_s` seconds.
    """
    end_s = time.monotonic() + limit_s
    while not ready.exists():
        if not child.running():
            raise DemoFailed(f"{child.name} ended before it was ready; see {child.log}.")
        if time.monotonic() > end_s:
            raise DemoFailed(f"{child.name} was not ready within {limit_s:g} s; see {child.log}.")
        time.sleep(_POLL_S)
    found = json.loads(ready.read_bytes())
    if not isinstance(found, dict):
        raise DemoFailed(f"{ready} holds {type(found).__name__}, expected the addresses of {child.name}.")
    return found
