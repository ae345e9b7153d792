from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from switchyard.clients import RegistryClient, errors
from switchyard.clients.cli import app
from switchyard.clients.embedded import embedded_registry


def test_a_directory_is_served_while_the_block_runs(tmp_path: Path) -> None:
    with embedded_registry(tmp_path / "registry") as address:
        socket = Path(address.removeprefix("unix:"))
        assert socket.exists()
        with RegistryClient(address) as client:
            assert client.adapters() == []
    assert not socket.parent.exists()


def test_the_child_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import pathlib, signal, sys, os\n"
        "ready = sys.argv[sys.argv.index('--ready-file') + 1]\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "pathlib.Path(ready).write_text('{}')\n"
        "signal.pause()\n",
        encoding="utf-8",
    )
    with pytest.raises(ZeroDivisionError), embedded_registry(tmp_path, [sys.executable, str(script)]):
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_child_that_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text("import sys; sys.exit('no such registry')", encoding="utf-8")
    with (
        pytest.raises(errors.EmbeddedFailed, match="no such registry"),
        embedded_registry(tmp_path, [sys.executable, str(script)]),
    ):
        pass


def test_the_command_line_uses_a_directory(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["ls", "--registry", str(tmp_path / "registry"), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == []
    missing = CliRunner().invoke(app, ["show", "a/b:1", "--registry", str(tmp_path / "registry")])
    assert missing.exit_code == 1
    assert "ADAPTER_NOT_FOUND" in missing.stderr


def test_a_killed_command_leaves_no_service_behind(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, subprocess; from pathlib import Path;"
        "from switchyard.clients.embedded import embedded_registry\n"
        f"with embedded_registry(Path({str(tmp_path / 'registry')!r})) as address:\n"
        "    children = Path(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read_text().split()\n"
        "    print(children[0], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    service = int(done.stdout)
    handle = os.pidfd_open(service) if Path(f"/proc/{service}").exists() else None
    if handle is not None:
        import select

        ended, _, _ = select.select([handle], [], [], 30)
        os.close(handle)
        assert ended
