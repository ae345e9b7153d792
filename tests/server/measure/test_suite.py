"""`switchyard bench` on a base so small that its figures mean nothing: that every measurement runs and is told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switchyard.server.measure.commands import bench

PNG = b"\x89PNG\r\n"


@pytest.fixture
def app() -> typer.Typer:
    commands = typer.Typer()
    commands.command()(bench)
    return commands


@pytest.mark.slow
def test_every_measurement_is_made_and_shown(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--shape", "tiny", "--quick", "--out", str(tmp_path / "found")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found" / "bench.json").read_text())
    figures = {(row["measure"], row["case"]): row["value"] for row in found["rows"]}
    assert all(
        math.isfinite(value) and value > 0 for (measure, _), value in figures.items() if measure != "cold adapter"
    )
    measures = {measure for measure, _ in figures}
    assert measures == {
        *("decode", "adapter tax", "prefill", "floor", "memory", "registered adapters", "cold adapter", "gRPC")
    }
    assert ("decode", "16 requests, 16 adapters") in figures
    assert (tmp_path / "found" / "bench.png").read_bytes().startswith(PNG)
    table = (tmp_path / "found" / "bench.md").read_text()
    for _, case in figures:
        assert case in table
    assert "16 requests, 16 adapters" in result.output


def test_an_unknown_shape_is_refused_by_name(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--shape", "huge"])
    assert result.exit_code == 2
    assert "bench-1024x16" in result.output


def test_a_base_that_is_none_is_one_line(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--base", str(tmp_path), "--quick"])
    assert result.exit_code == 1
    assert "error: BASE_REFUSED" in result.stderr
    assert "safetensors" in result.stderr
