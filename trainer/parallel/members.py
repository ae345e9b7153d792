"""Members: the other processes of a run, started and ended by the first.

Owns their lives. The first process is the one that a person started, so signals, exit codes and what is printed stay
as they are with one process. A member is told what to do on its standard input, ends when that is closed, and is
heard only when it ends by itself; what it said then is shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from switchyard.trainer.errors import ProcessLost
from switchyard.trainer.recipe import Recipe

MEMBER: Final = "switchyard.trainer.parallel.member"
_POLL_S: Final = 0.02
_LINES: Final = 15
"""Lines of a lost member that are shown."""


@dataclass(frozen=True, slots=True)
class _Member:
    rank: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def last_words(self) -> str:
        """Returns the end of what it wrote to standard error."""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LINES:])


class Members:
    """The processes 1, 2, … of a run on this machine.

    Args:
        recipe: What is done, with absolute paths.
        out_dir: Where the first process writes, and where checkpoints are read.
        count: Processes of the run, the first included.
        environment: Variables by which they find each other.
        threads: Threads of torch's CPU arithmetic of each, or None.
    """

    def __init__(
        self, recipe: Recipe, out_dir: Path, count: int, environment: Mapping[str, str], threads: int | None
    ) -> None:
        order = {"recipe": recipe.model_dump(mode="json", exclude_defaults=True), "out_dir": str(out_dir.resolve())}
        line = json.dumps(order | {"threads": threads}).encode() + b"\n"
        self._members = [_started(rank, line, environment) for rank in range(1, count)]

    def lost(self, within_s: float) -> ProcessLost | None:
        """Returns what became of a member that ended by itself, or None when all are there for some time."""
        deadline = time.monotonic() + within_s
        while True:
            for one in self._members:
                ended = one.process.poll()
                if ended:
                    return ProcessLost(_lost_message(one, len(self._members) + 1, ended))
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)

    def end(self) -> None:
        """Ends the members; those that did their part have nothing left to do."""
        for one in self._members:
            one.process.kill()
            one.process.wait()
            if one.process.stdin is not None:
                one.process.stdin.close()
            one.said.close()


def _started(rank: int, order: bytes, environment: Mapping[str, str]) -> _Member:
    said = tempfile.TemporaryFile(prefix="switchyard-member-")  # noqa: SIM115 - open as long as the member lives
    process = subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        # Ctrl-C is for the first process, which tells the others when they stop.
        start_new_session=True,
    )
    if process.stdin is not None:
        process.stdin.write(order)
        process.stdin.flush()
    return _Member(rank, process, said)


def command() -> Sequence[str]:
    """Returns the command line of a member."""
    return [sys.executable, "-P", "-m", MEMBER]


def _lost_message(member: _Member, count: int, ended: int) -> str:
    how = f"was killed by signal {-ended}" if ended < 0 else f"ended with {ended}"
    text = (
        f"process {member.rank} of {count} {how}; the newest checkpoint is whole, and the same command goes on "
        "from it"
    )
    words = member.last_words()
    return f"{text}. It said:\n{words}" if words else text
