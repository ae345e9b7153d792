"""Processes whose system calls are recorded, failed or made deadly, with strace.

The process is forked from one that has imported everything, waits at a gate until strace holds it,
and only then begins: so the n-th call is the n-th of the work, not of Python's start.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

# Calls that leave something behind; a crash between two of them is a case of its own.
EFFECTS = (
    "openat",
    "mkdir",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "fchmod",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "ftruncate",
    "fallocate",
)
# The calls with which a process acknowledges.
_REPORTS = ("writev",)
_WAIT_S = 120.0
_PR_SET_PTRACER = 0x59616D61
_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
_FD = re.compile(r"(?P<number>\d+|AT_FDCWD)<(?P<path>[^>]*)>")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One line of strace's log.

    Attributes:
        name: of the system call.
        paths: every file that it is about, in the order of its arguments.
        ok: whether it succeeded.
        error: name of the error, or empty.
        injected: whether strace made the result up.
        arguments: as strace writes them.
    """

    name: str
    paths: tuple[str, ...]
    ok: bool
    error: str
    injected: bool
    arguments: str


@cache
def why_not() -> str:
    """Why processes cannot be traced on this machine; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "true"],
        capture_output=True,
        check=False,
    )
    return (
        "" if probe.returncode == 0 else f"strace cannot trace here: {probe.stderr.decode(errors='replace')[-200:]}"
    )


def run_traced(
    processes: ForkServerContext, log: Path, target: Callable[..., None], *arguments: Any, inject: str = ""
) -> int | None:
    """Runs a function in a new process under strace; returns its exit code, a negative one is a signal.

    Args:
        processes: makes the process.
        log: gets strace's record of the calls in `EFFECTS`.
        target: what runs.
        arguments: for it.
        inject: a fault in strace's words, such as `fsync:signal=KILL:when=3`.
    """
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_behind_gate, args=(theirs, target, *arguments))
    process.start()
    theirs.close()
    ours.recv()
    # The target of an injection has to be among the traced calls; `?` allows for names that a machine has not.
    options = ["-e", "trace=" + ",".join(f"?{name}" for name in (*EFFECTS, *_REPORTS))]
    options += ["-e", f"inject={inject}"] if inject else []
    # `-y` writes the file behind each descriptor; a short string limit cuts written data, never names.
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-s", "0", "-o", str(log), *options, "-p", str(process.pid)], stderr=subprocess.PIPE
    )
    try:
        if tracer.stderr is None or b"attached" not in (line := tracer.stderr.readline()):
            raise RuntimeError(f"strace did not attach: {line!r}")
        ours.send(None)
        process.join(_WAIT_S)
        return process.exitcode
    finally:
        if process.is_alive():
            process.kill()
        ours.close()
        tracer.communicate(timeout=_WAIT_S)


def _behind_gate(gate: Connection, target: Callable[..., None], *arguments: Any) -> None:
    # Where only ancestors may trace, strace is no ancestor of this process; elsewhere the call does nothing.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    gate.send(None)
    gate.recv()
    target(*arguments)


def calls_of(log: Path) -> list[Call]:
    """Reads strace's record."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.fullmatch(line)
        if match is None:
            continue
        rest = match["rest"]
        error = re.match(r" (E[A-Z]+)", rest)
        found.append(
            Call(
                name=match["name"],
                paths=_paths(match["arguments"]),
                ok=not match["result"].startswith(("-", "?")),
                error=error[1] if error else "",
                injected="(INJECTED)" in rest,
                arguments=match["arguments"],
            )
        )
    return found


def counts_of(log: Path) -> dict[str, int]:
    """How often each call of `EFFECTS` was made."""
    return dict(sorted(Counter(call.name for call in calls_of(log) if call.name in EFFECTS).items()))


def _paths(arguments: str) -> tuple[str, ...]:
    """Names are absolute wherever the registry gives one; descriptors come with theirs."""
    found = [(match.start(), match["path"]) for match in _FD.finditer(arguments) if match["number"] != "AT_FDCWD"]
    found += [(match.start(), match[1]) for match in _NAME.finditer(arguments) if match[1].startswith("/")]
    return tuple(path for _, path in sorted(found))
