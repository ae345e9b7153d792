"""The registry's how-to and its runbook: every command runs, and prints what the page shows."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import console_docs
import pytest
from handmade import write_adapter, write_base

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell with this command line and a registry directory, and nothing else of ours."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "switchyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m switchyard.clients.cli "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    return {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LOGNAME": "ann",
        "TZ": "UTC",
    }


def check(page: str, directory: Path, environment: dict[str, str]) -> None:
    document = (DOCS / page).read_text(encoding="utf-8")
    ran = console_docs.run(document, directory, environment)
    assert len(ran) > 10
    wrong = [
        f"$ {step.command}\nshown:\n" + "\n".join(step.shown) + f"\nprinted:\n{printed}"
        for step, printed in ran
        if not console_docs.agrees(step.shown, printed)
    ]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.slow
def test_the_tasks(tmp_path: Path, environment: dict[str, str]) -> None:
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", seed=0)
    write_adapter(tmp_path / "better", seed=1)
    shutil.copytree(tmp_path / "better", tmp_path / "broken")
    (tmp_path / "broken" / "adapter_model.safetensors").write_bytes(b"\x80\x04not safetensors")
    check("registry-tasks.md", tmp_path, environment)


@pytest.mark.slow
def test_rollouts(tmp_path: Path, environment: dict[str, str]) -> None:
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", seed=0)
    write_adapter(tmp_path / "better", seed=1)
    check("rollouts.md", tmp_path, environment)


@pytest.mark.slow
def test_the_runbook(tmp_path: Path, environment: dict[str, str]) -> None:
    from publishing import publish

    from switchyard.registry.base_model import describe_base
    from switchyard.registry.refs import AdapterName
    from switchyard.registry.store import Registry

    name = AdapterName("team", "addresses")
    with Registry.open(tmp_path / "registry") as registry:
        base = registry.register_base(describe_base(write_base(tmp_path / "base")))
        publish(registry, base, name, write_adapter(tmp_path / "adapter", seed=0))
        for seed in (1, 2):
            publish(registry, base, name, write_adapter(tmp_path / f"better-{seed}", seed=seed), set_alias="prod")
    check("registry-runbook.md", tmp_path, {**environment, "SWITCHYARD_REGISTRY": "registry"})


def test_a_page_that_lies_is_noticed(tmp_path: Path) -> None:
    page = (
        "```console\n$ x=1\n$ echo one $x\none   1\n$ printf 'a\\nb\\nc\\n'\na\n...\n$ echo cat <<'END'\n> END\n```\n"
    )
    ran = console_docs.run(page, tmp_path, os.environ)
    assert [console_docs.agrees(step.shown, printed) for step, printed in ran] == [True, True, True, True]
    for shown in (("one 2",), ("one",), ("one 1", "more")):
        assert not console_docs.agrees(shown, "one 1\n")
    assert console_docs.agrees(("o… 1",), "one 1\n")
    with pytest.raises(AssertionError, match="`false` failed"):
        console_docs.run("```console\n$ true\n$ false\n$ true\n```\n", tmp_path, os.environ)
