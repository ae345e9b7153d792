"""Embedded mode: a registry directory used without a running server.

`switchyard registry-service` is started as a child on a socket that only this
user can reach, used like any server, and stopped at the end. The command line
so keeps one way to talk to a registry, and the registry's code stays where it
belongs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from switchyard.clients.errors import EmbeddedFailed

_START_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.01
_SHOWN_CHARACTERS: Final = 2000

PROGRAM: Final = (sys.executable, "-P", "-m", "switchyard.clients.cli")
"""This command line, as a child process."""


@contextmanager
def embedded_registry(directory: Path, program: Sequence[str] = PROGRAM) -> Iterator[str]:
    """Serves the registry in `directory` from a child process while the block runs.

    Args:
        directory: the registry; made by the child when it is new.
        program: command line of `switchyard`.

    Yields:
        Address of the child.

    Raises:
        EmbeddedFailed: the child ended, or was not ready in time.
    """
    # The socket's path must fit into 107 bytes, which the registry's own may not.
    with tempfile.TemporaryDirectory(prefix="switchyard-") as place:
        address = f"unix:{place}/s"
        ready = Path(place) / "ready"
        arguments = ["--registry", str(directory), "--listen", address, "--ready-file", str(ready)]
        with (Path(place) / "log").open("w+b") as log:
            # The child ends with its standard input, so it cannot outlive a command that was killed.
            child = subprocess.Popen(
                [*program, "registry-service", *arguments, "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
            try:
                _wait_until_ready(child, ready, Path(log.name))
                yield address
            finally:
                stop(child, _STOP_S)


def stop(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Asks `child` to end and makes it end after `grace_s` seconds."""
    try:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        if child.stdin is not None:
            child.stdin.close()


def _wait_until_ready(child: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while not ready.exists():
        ended = child.poll()
        if ended is not None or time.monotonic() > end_s:
            state = f"ended with status {ended}" if ended is not None else f"was not ready within {_START_S:g} s"
            raise EmbeddedFailed(
                f"the registry service for embedded mode {state}. What it said:\n{_tail(log)}\n"
                "Check the directory given with --registry."
            )
        time.sleep(_POLL_S)


def _tail(log: Path) -> str:
    text = log.read_bytes()[-_SHOWN_CHARACTERS:].decode("utf-8", "replace").strip()
    return text or f"(nothing; process {os.getpid()} started it)"
