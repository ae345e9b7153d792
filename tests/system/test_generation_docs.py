"""The page about generating: every command runs and prints what it shows, and its table is that of the code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import console_docs
import pytest
from tiny_base import make_tiny_llama

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.calls.parameters import PARAMETERS, parameter_table, with_table

PAGE = Path(__file__).parents[2] / "docs" / "generation.md"


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    make_tiny_llama(tmp_path / "base")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "switchyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m switchyard.clients.cli "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    environment = kept | {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    ran = console_docs.run(PAGE.read_text(encoding="utf-8"), tmp_path, environment)
    assert len(ran) > 15
    wrong = [
        f"$ {step.command}\nshown:\n" + "\n".join(step.shown) + f"\nprinted:\n{printed}"
        for step, printed in ran
        if not console_docs.agrees(step.shown, printed)
    ]
    assert not wrong, "\n\n".join(wrong)


def test_the_table_is_that_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert parameter_table() in page
    assert with_table(page) == page, "write it: python -P -m switchyard.server.calls.parameters docs/generation.md"
    assert with_table(page.replace("| `sampling.n` |", "| `gone` |")) == page


def test_the_table_has_every_field_of_the_contract() -> None:
    fields = [f"sampling.{one.name}" for one in pb.SamplingParams.DESCRIPTOR.fields]
    fields += [f"stopping.{one.name}" for one in pb.StoppingParams.DESCRIPTOR.fields]
    assert sorted(one.field for one in PARAMETERS) == sorted([*fields, "structure", "priority"])
