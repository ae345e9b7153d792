"""Documents whose console blocks are run: commands after `$ `, then what they print.

In what is printed, `...` alone on a line stands for any lines, and `…` for any characters.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "\x1e"
_LIMIT_S = 400


@dataclass(frozen=True)
class Step:
    """One command and the lines that the document shows below it."""

    command: str
    shown: tuple[str, ...]


def steps(document: str) -> list[Step]:
    """The commands of a document, in order. A line that begins with `> ` continues a command."""
    found: list[Step] = []
    for block in _BLOCK.findall(document):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:], ()))
            elif line.startswith("> ") and not found[-1].shown:
                found[-1] = Step(f"{found[-1].command}\n{line[2:]}", ())
            else:
                found[-1] = Step(found[-1].command, (*found[-1].shown, line))
    return found


def run(document: str, directory: Path, environment: Mapping[str, str]) -> list[tuple[Step, str]]:
    """Runs every command in one shell; fails at the first that fails."""
    taken = steps(document)
    script = "set -eu -o pipefail\nexec 2>&1\n"
    script += "".join(f"printf '{_MARK}'\n{step.command}\n" for step in taken)
    # A file, not a pipe: a service that the page leaves behind must not keep the reader waiting.
    transcript = directory / "transcript"
    with transcript.open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=directory, env=dict(environment), stdout=output, start_new_session=True
        )
        try:
            status = shell.wait(_LIMIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = transcript.read_text().split(_MARK)[1:]
    assert status == 0, f"`{taken[len(printed) - 1].command}` failed:\n{printed[-1]}"
    return list(zip(taken, printed, strict=True))


def agrees(shown: tuple[str, ...], printed: str) -> bool:
    """Whether a command printed what the document shows."""
    if not shown:
        return True
    lines = [r"(?:.*\n)*?" if line.strip() == "..." else _pattern(line) for line in shown]
    return re.fullmatch("".join(lines), printed.rstrip("\n") + "\n") is not None


def _pattern(line: str) -> str:
    # Columns are as wide as what is in them, which is not what a document is about.
    words = [".*?".join(re.escape(part) for part in word.split("…")) for word in line.split()]
    return r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n"
