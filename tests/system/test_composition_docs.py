"""The page about compositions: every command runs, and prints what the page shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import console_docs
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "composition.md"


@pytest.mark.slow
def test_the_page(tmp_path: Path) -> None:
    from tiny_adapter import make_adapter
    from tiny_base import make_tiny_llama

    base = make_tiny_llama(tmp_path / "base")
    make_adapter(base, tmp_path / "words", seed=1, targets=("q_proj", "v_proj"))
    make_adapter(base, tmp_path / "tone", seed=2, targets=("q_proj", "down_proj"))
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "switchyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m switchyard.clients.cli "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    environment = {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "LOGNAME": "ann", "TZ": "UTC"}
    ran = console_docs.run(PAGE.read_text(encoding="utf-8"), tmp_path, environment)
    assert len(ran) > 10
    wrong = [
        f"$ {step.command}\nshown:\n" + "\n".join(step.shown) + f"\nprinted:\n{printed}"
        for step, printed in ran
        if not console_docs.agrees(step.shown, printed)
    ]
    assert not wrong, "\n\n".join(wrong)
