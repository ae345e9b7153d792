"""docs/chat.md is true: its example is a contract, and its table has every field."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from switchyard.registry.serving_contract import SAMPLING_RANGES, ServingContract, contract_of

PAGE = (Path(__file__).parents[3] / "docs" / "chat.md").read_text(encoding="utf-8")


def test_the_example_is_a_contract() -> None:
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    contract = contract_of(example.encode())
    assert all(getattr(contract, one.name) for one in fields(ServingContract))


def test_the_table_has_every_field() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [one.name for one in fields(ServingContract)]
    assert re.findall(r"`(\w+)`", dict(rows)["sampling"]) == list(SAMPLING_RANGES)
