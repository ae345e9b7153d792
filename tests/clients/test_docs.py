from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from switchyard.clients import reference
from switchyard.clients.cli import app
from switchyard.clients.extensions import LazyCommand

DOCS = Path(__file__).parents[2] / "docs"
SUPPORT = Path(__file__).parents[1] / "support"


def test_the_reference_shows_every_help_text_as_it_is() -> None:
    document = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert reference.refreshed(document) == document, "run `python -P -m switchyard.clients.reference docs/cli.md`"


def leaves(group: TyperGroup, context: typer.Context, prefix: str = "") -> Iterator[str]:
    """Every command that is not a group, by its full name."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        loaded = command._load() if isinstance(command, LazyCommand) else command
        if isinstance(loaded, TyperGroup):
            yield from leaves(loaded, context, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"
        if isinstance(command, LazyCommand):
            yield from (f"{prefix}{name} {flag}" for flag in command.variants)


def test_the_reference_has_every_command() -> None:
    document = (DOCS / "cli.md").read_text(encoding="utf-8")
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    assert sorted(leaves(root, typer.Context(root))) == sorted(reference.commands_in(document))


def test_a_stale_block_is_noticed() -> None:
    document = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert reference.refreshed(document.replace("Publish an adapter", "Forget an adapter")) == document


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A shell where `switchyard` is the real command line, and its heavy commands are played."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "switchyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P {SUPPORT / "fake_switchyard.py"} "$@"\n')
    program.chmod(0o755)
    address = f"unix:{tmp_path}/s"
    yield {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "BASE": "base",
        "SWITCHYARD_SERVER": address,
        "FAKE_LISTEN": address,
        "FAKE_TASKS": "address,edits",
    }
    ready = tmp_path / "server.json"
    if ready.exists():
        os.kill(json.loads(ready.read_text())["pid"], signal.SIGTERM)


def test_the_quick_start_runs_as_it_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    document = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    script = "set -eu\n" + "".join(re.findall(r"^```bash\n(.*?)^```$", document, re.MULTILINE | re.DOTALL))
    # The server keeps running, so its output must not hold this test's pipe open.
    script = script.replace("server.json &", "server.json > server.log 2>&1 &")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo/address@prod: version 1 → version 2" in done.stdout
    assert "demo/address@prod: version 2 → version 1" in done.stdout
    assert (tmp_path / "adapter-from-prod" / "adapter_config.json").is_file()
    (program,) = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-P", "-c", f"ADDRESS = {environment['SWITCHYARD_SERVER']!r}\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "demo/address:1" in run.stdout
    assert "VERSION_NOT_FOUND" in run.stdout
