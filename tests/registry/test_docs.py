"""docs/registry.md says what the code does: its example runs and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from handmade import write_adapter, write_base

from switchyard.registry import errors
from switchyard.registry.catalog.query import Field, VersionQuery
from switchyard.registry.catalog.state_rules import SERVABLE, USABLE
from switchyard.registry.errors import RegistryError
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import FILE_TYPES
from switchyard.registry.validation.adapter_files import limit_bytes
from switchyard.registry.verdicts import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()


def leaves(kind: type[RegistryError]) -> list[type[RegistryError]]:
    children = kind.__subclasses__()
    return [leaf for child in children for leaf in leaves(child)] if children else [kind]


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter")
    exec(compile(example, "docs/registry.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "1 ()\n"
    assert (tmp_path / "copy" / "README.md").read_text() == "adapter 0\n"


def test_every_error_is_in_the_table() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \| (?=\S)", PAGE, re.MULTILINE))
    assert rows == {leaf.reason: leaf.__name__ for leaf in leaves(RegistryError)}
    retryable = set(re.findall(r"^\| `([A-Z_]+)` \| `\w+` \| retryable:", PAGE, re.MULTILINE))
    assert retryable == {leaf.reason for leaf in leaves(RegistryError) if leaf.retryable}
    assert all(hasattr(errors, name) for name in rows.values())


def test_every_reason_of_a_verdict_is_named() -> None:
    section = PAGE[PAGE.index("Reasons of verdicts") :]
    assert {reason for reason in Reason if f"`{reason}`" not in section} == set()


def test_every_term_of_a_query_is_named() -> None:
    section = PAGE[PAGE.index("## Tags and search") : PAGE.index("## Namespaces")]
    terms = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE)))
    examples = [term.replace("...", "a" * 64) for term in terms]
    assert {VersionQuery.parse(example).terms[0].field for example in examples} == set(Field)


def test_every_state_is_in_the_table() -> None:
    section = PAGE[PAGE.index("## States of a version") : PAGE.index("## Tags and search")]
    rows = dict(re.findall(r"^\| `([A-Z]+)` \| (yes|no)", section, re.MULTILINE))
    assert {state for state, aliased in rows.items() if aliased == "yes"} == SERVABLE
    assert set(rows) == set(VersionState)
    exact = dict(re.findall(r"^\| `([A-Z]+)` \| [^|]+ \| (yes|no)", section, re.MULTILINE))
    assert {state for state, answered in exact.items() if answered == "yes"} == USABLE


def test_every_file_is_named_with_its_limit() -> None:
    section = PAGE[PAGE.index("## What a version holds") : PAGE.index("## On disk")]
    for path in FILE_TYPES:
        (row,) = [line for line in section.splitlines() if line.startswith("|") and f"`{path}`" in line]
        assert ("2 GiB" if limit_bytes(path) == 2 << 30 else "1 MiB") in row
