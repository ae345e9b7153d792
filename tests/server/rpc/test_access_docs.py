"""docs/access.md is true: its tables are those of the code, its commands run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import console_docs
import pytest

from switchyard.clients import credentials
from switchyard.registry.access.policy import CANDIDATE, Role, Scope, role_grants
from switchyard.server.rpc.access_rules import RULES

PAGE = (Path(__file__).parents[3] / "docs" / "access.md").read_text(encoding="utf-8")


def table(first: str) -> dict[str, list[str]]:
    """Rows of the table whose first heading is this, by their first cell."""
    body = re.split(rf"^\| {first} \|.*\n\|[-|]+\n", PAGE, flags=re.MULTILINE)[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_scopes_and_the_calls_that_need_them() -> None:
    rows = table("Scope")
    assert list(rows) == [str(scope) for scope in Scope if scope in rows]
    assert set(rows) == {str(scope) for scope in Scope}
    named = [call for row in rows.values() for call in re.findall(r"`(\w+)`", row[1])]
    assert sorted(named) == sorted(method.rpartition("/")[2] for method in RULES)


def test_the_roles() -> None:
    rows = table("Role")
    assert set(rows) == {str(role) for role in Role}
    for role in (Role.READER, Role.CALLER, Role.PUBLISHER, Role.PROMOTER):
        scopes = {str(grant.scope) for grant in role_grants(role, "ns")}
        assert set(re.findall(r"`(\w+:\w+)`", rows[str(role)][0])) == scopes
    assert f"`{CANDIDATE}`" in rows["publisher"][0]


def test_the_variables_of_clients() -> None:
    known = {value for name, value in vars(credentials).items() if name.endswith("_VARIABLE")}
    assert set(table("Variable")) == known


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path) -> None:
    first = PAGE.split("## TLS")[0]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = console_docs.run(first, tmp_path, environment)
    assert all(console_docs.agrees(step.shown, printed) for step, printed in ran)
    assert re.fullmatch(r"swy_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n", (tmp_path / "token").read_text())
    listing = next(printed for step, printed in ran if " ls " in step.command)
    assert "deny adapter:read on shared/secret" in " ".join(listing.split())
