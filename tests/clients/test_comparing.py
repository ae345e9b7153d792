from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_services import FakeServer, Refusal, plain_answer
from rich.console import Console
from typer.testing import CliRunner, Result

from switchyard.clients import errors
from switchyard.clients.cli import app
from switchyard.clients.comparing import Contender
from switchyard.clients.comparison_page import ComparisonPage
from switchyard.clients.prompts import Prompt, read_prompts
from switchyard.proto.inference.v1 import inference_pb2 as pb


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWITCHYARD_SERVER", raising=False)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """The base says the words backwards, so one of the two completions is what it says."""
    path = tmp_path / "test.jsonl"
    rows = [{"prompt": "one two", "completion": "two one\n"}, {"prompt": "three four", "completion": "FOUR"}]
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    return path


def shouting(request: pb.GenerateRequest) -> list[Any]:
    """An adapter says what the base says, louder; adapter `quiet` is not there, and a failing prompt fails."""
    events: list[Any] = plain_answer(request)
    if request.adapter.startswith("team/quiet"):
        return [Refusal(grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND", "nothing is named team/quiet")]
    if request.adapter and "fail" in request.prompt:
        return [events[0], Refusal(grpc.StatusCode.INTERNAL, "WEIGHTS_DAMAGED", "cannot be read")]
    for event in events if request.adapter else []:
        if event.HasField("chunk"):
            event.chunk.text = event.chunk.text.upper()
    return events


def compare(server: FakeServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", *arguments, "--server", server.address])


def test_everyone_is_asked_every_prompt_with_the_same_parameters(server: FakeServer, prompts: Path) -> None:
    server.inference.script = shouting
    done = compare(server, "team/loud@prod", "--prompts", str(prompts), "--json", "--max-tokens", "9", "--seed", "3")
    assert done.exit_code == 0, done.output
    *rows, last = (json.loads(line) for line in done.stdout.splitlines())
    said = [[answer["answer"]["text"] for answer in row["answers"]] for row in rows]
    assert said == [["two one", "TWO ONE"], ["four three", "FOUR THREE"]]
    assert [row["prompt"]["line"] for row in rows] == [1, 3]
    assert [[answer["is_exact"] for answer in row["answers"]] for row in rows] == [[True, False], [False, False]]
    base, loud = last["standings"]
    assert (base["asked"], base["exact"], base["expected"], base["as_first"]) == ("base", 1, 2, 2)
    assert (loud["asked"], loud["exact"], loud["as_first"], loud["failed"]) == ("team/loud@prod", 0, 0, 0)
    assert loud["served"].startswith("team/loud:1 ")
    asked = [one for one in server.inference.requests if one.stopping.max_tokens != 1]
    assert {(one.sampling.temperature, one.sampling.seed, one.stopping.max_tokens) for one in asked} == {(0.0, 3, 9)}


def test_an_alias_stands_for_the_version_that_it_named_first(server: FakeServer, prompts: Path) -> None:
    assert compare(server, "team/loud@prod", "--prompts", str(prompts), "--no-base").exit_code == 0
    first, *others = [one.adapter for one in server.inference.requests]
    assert (first, set(others)) == ("team/loud@prod", {"team/loud:1"})


def test_people_see_columns_and_standings(server: FakeServer, prompts: Path) -> None:
    server.inference.script = shouting
    done = compare(server, "team/loud", "--prompts", str(prompts))
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["base", "team/loud"] in lines
    assert ["✓", "two", "one", "✗", "TWO", "ONE"] in lines
    assert lines[-2][:5] == ["base", "1", "of", "2", "2"]
    assert lines[-1][:5] == ["team/loud", "0", "of", "2", "0"]


def test_everyone_who_does_not_answer_is_named_before_anything_is_shown(server: FakeServer, prompts: Path) -> None:
    server.inference.script = shouting
    done = compare(server, "team/quiet:7", "team/loud", "team/quiet@x", "--prompts", str(prompts))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "NOBODY_TO_COMPARE" in done.stderr
    assert "team/quiet:7 [VERSION_NOT_FOUND]" in done.stderr
    assert "team/quiet@x [VERSION_NOT_FOUND]" in done.stderr
    assert "team/loud" not in done.stderr


def test_an_answer_that_fails_stands_in_its_place_and_the_rest_goes_on(server: FakeServer, tmp_path: Path) -> None:
    server.inference.script = shouting
    (tmp_path / "p.txt").write_text("fine\nfail here\nfine too\n")
    done = compare(server, "team/loud", "--prompts", str(tmp_path / "p.txt"), "--json")
    assert done.exit_code == 1
    *rows, last = (json.loads(line) for line in done.stdout.splitlines())
    assert [row["answers"][1]["reason"] for row in rows] == ["", "WEIGHTS_DAMAGED", ""]
    assert [(one["answered"], one["failed"]) for one in last["standings"]] == [(3, 0), (2, 1)]
    shown = compare(server, "team/loud", "--prompts", str(tmp_path / "p.txt"))
    assert "WEIGHTS_DAMAGED cannot be read" in shown.stdout


def test_no_server_is_its_own_exit_code(prompts: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'nobody'}"
    done = CliRunner().invoke(app, ["compare", "a", "--prompts", str(prompts), "--server", address])
    assert done.exit_code == 3


def test_bad_prompts_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "fine"}\n{"promt": 1}\nno json\n{"prompt": "x", "completion": 3}\n')
    with pytest.raises(errors.PromptsInvalid) as caught:
        read_prompts(path)
    assert [fault.subject for fault in caught.value.faults] == ["bad.jsonl:2", "bad.jsonl:3", "bad.jsonl:4"]
    path.write_text("\n \n")
    with pytest.raises(errors.PromptsInvalid, match="no prompt"):
        read_prompts(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.PromptsInvalid, match="UTF-8"):
        read_prompts(path)


def screen(width: int, names: list[str], said: list[str]) -> str:
    """What a terminal of a width holds while text comes."""
    output = io.StringIO()
    console = Console(file=output, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with ComparisonPage([Contender(name, name, "") for name in names], console) as page:
        page.begin(Prompt(1, "question", None))
        for place, text in enumerate(said):
            page.heard(place, text)
    return output.getvalue()


def test_text_is_shown_as_it_comes_and_cannot_drive_the_terminal() -> None:
    shown = screen(80, ["base", "team/a"], ["so far", "\x1b[31mred"])
    assert "so far" in shown
    assert "\x1b[31m" not in shown
    assert "\ufffd[31mred" in shown


def test_narrow_terminals_get_lines_instead_of_columns() -> None:
    wide, narrow = (screen(width, ["base", "team/a"], ["left", "right"]) for width in (80, 40))
    assert any("left" in line and "right" in line for line in wide.splitlines())
    assert not any("left" in line and "right" in line for line in narrow.splitlines())
