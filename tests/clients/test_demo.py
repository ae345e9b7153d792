from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

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


def test_a_failing_run_ends_the_demo_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TRAIN_FAILS", "tags")
    with pytest.raises(DemoFailed, match="made to fail") as caught:
        run_demo(scale=Scale(), directory=tmp_path / "d", serve=False, as_json=True, program=FAKE)
    assert "train-tags" in str(caught.value)
