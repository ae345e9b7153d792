from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from switchyard.clients.cli import app
from switchyard.clients.demo.material import Scale
from switchyard.clients.demo.run import run_demo
from switchyard.clients.errors import DemoFailed

FAKE = [sys.executable, "-P", str(Path(__file__).parents[1] / "support" / "fake_switchyard.py")]


def test_the_demo_goes_through_every_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "demo"
    assert run_demo(scale=Scale(), directory=place, serve=False, as_json=True, program=FAKE) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [(task["name"], task["before"]["right"], task["after"]["share"]) for task in found["tasks"]] == [
        ("sums", 0, 1.0),
        ("tags", 0, 1.0),
    ]
    assert [task["loss"] for task in found["tasks"]] == [0.5, 0.5]
    assert all(check["passed"] for check in found["checks"])
    assert len(found["checks"]) == 7
    assert len(found["batch"]["lines"]) == 12
    assert found["promote"]["new"]["version"] == 2
    assert found["metrics"]["requests answered"] == "42"
    assert list(found["seconds"]) == ["data", "training", "publishing", "measuring", "scenes"]
    assert "all checks passed" in printed.err
    assert (place / "runs" / "sums" / "adapter" / "adapter_config.json").is_file()


def test_the_demo_shows_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(scale=Scale(), directory=tmp_path / "d", serve=False, as_json=False, program=FAKE) == 0
    text = capsys.readouterr().out
    for expected in ("demo/sums@prod", "served by base bbbbbbbbbbbb", "100.0 % (12/12,", "the alias moved after"):
        assert expected in text
    assert "FAILED" not in text


def test_a_failing_server_ends_the_demo_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SERVE_FAILS", "1")
    with pytest.raises(DemoFailed, match="server ended with status 1") as caught:
        run_demo(scale=Scale(), directory=tmp_path / "d", serve=False, as_json=True, program=FAKE)
    assert "BASE_REFUSED" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_demo_names_commands_and_stops_its_server_when_told(tmp_path: Path, number: int) -> None:
    script = (
        "import sys; from pathlib import Path; from switchyard.clients.demo.material import Scale;"
        "from switchyard.clients.demo.run import run_demo;"
        f"sys.exit(run_demo(scale=Scale(), directory=Path({str(tmp_path / 'd')!r}), serve=True, as_json=True,"
        f" program={FAKE!r}))"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", script], stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        lines = iter(demo.stderr.readline, "")
        said = next(line for line in lines if "until Ctrl-C" in line)
        commands = [next(lines).strip() for _ in range(3)]
        address = re.findall(r"127\.0\.0\.1:\d+", said)[0]
        server = json.loads((tmp_path / "d" / "server.json").read_text())
        assert server["grpc"] == address
        for command in commands:
            words = shlex.split(command.replace("$'", "'"))
            assert words[0] == "switchyard"
            assert CliRunner().invoke(app, words[1:]).exit_code == 0, command
        demo.send_signal(number)
        assert demo.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server["pid"], 0)


def test_a_failing_run_ends_the_demo_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TRAIN_FAILS", "tags")
    with pytest.raises(DemoFailed, match="made to fail") as caught:
        run_demo(scale=Scale(), directory=tmp_path / "d", serve=False, as_json=True, program=FAKE)
    assert "train-tags" in str(caught.value)
