from __future__ import annotations

import io

import pytest
from rich.console import Console

from switchyard.trainer.events import Curve, Evaluated, RunEnded, RunStarted, StepDone, StepLogged
from switchyard.trainer.plots import draw_curves, smoothed
from switchyard.trainer.progress import LineProgress, TerminalProgress, progress_for

STARTED = RunStarted("address", 100, 1600, 1234, 56789)


def logged(step: int, loss: float = 1.5) -> StepLogged:
    return StepLogged(step, step / 10, loss, 1e-3, 0.5, 0.9, step * 1000, step * 0.5)


def test_a_pipe_gets_ten_lines_and_the_evaluations() -> None:
    out = io.StringIO()
    progress = progress_for(Console(file=out))
    assert isinstance(progress, LineProgress)
    with progress:
        progress.receive(STARTED)
        for step in range(1, 101):
            progress.receive(StepDone(step))
            progress.receive(logged(step))
        progress.receive(Evaluated("dev", 100, 0.25, 0.9812, 200))
        progress.receive(RunEnded(100, 50.0))
    lines = out.getvalue().splitlines()
    assert lines[0] == "address: 1,600 rows, 100 steps; training 1,234 of 56,789 parameters (2.17%)"
    assert len(lines) == 12
    assert lines[1] == "step 10/100  loss 1.5000  2,000 tok/s  5 s"
    assert lines[-1] == "dev at step 100: loss 0.2500, 98.12% of tokens right over 200 rows"


def test_a_terminal_gets_a_bar_with_loss_speed_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.trainer.progress.held_bytes", lambda: 3 * 1024**3 // 2)
    out = io.StringIO()
    progress = progress_for(Console(file=out, force_terminal=True, width=120))
    assert isinstance(progress, TerminalProgress)
    with progress:
        progress.receive(STARTED)
        progress.receive(logged(50))
        progress.receive(StepDone(50))
    text = out.getvalue()
    assert "50/100" in text
    assert "loss 1.5000" in text
    assert "2,000 tok/s" in text
    assert "1.50 GiB" in text


def test_curves_are_a_png_also_for_a_single_entry() -> None:
    curve = Curve()
    curve.receive(logged(1))
    assert draw_curves(curve, "one").startswith(b"\x89PNG")
    for step in range(2, 300):
        curve.receive(logged(step, loss=5 / step))
    curve.receive(Evaluated("dev", 299, 0.02, 0.99, 200))
    assert draw_curves(curve, "many") == draw_curves(curve, "many")


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert smoothed([2.0] * 5) == [2.0] * 5
    assert all(abs(value - 2.0) < 1e-12 for value in smoothed([2.0] * 500))
    after_step = smoothed([1.0] * 400 + [0.0] * 400)
    assert after_step[399] > 0.999
    assert 0 < after_step[419] < 0.5
    assert after_step[-1] < 1e-3
