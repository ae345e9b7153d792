"""docs/serving.md and docs/errors.md are true: their commands parse, their tables are those of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from switchyard.server.calls.field_reasons import FIELD_MEANINGS, FieldReason
from switchyard.server.config import ServerConfig
from switchyard.server.rpc.document import errors_page

DOCS = Path(__file__).parents[2] / "docs"
SERVING = (DOCS / "serving.md").read_text(encoding="utf-8")
OPENAI = (DOCS / "openai.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ switchyard ")
    for block in re.findall(r"```console\n(.*?)```", SERVING + OPENAI, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ switchyard ")
]


def test_the_errors_page_is_what_the_tables_say() -> None:
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == errors_page(), (
        "write it again: python -P -m switchyard.server.rpc.document docs/errors.md"
    )


def test_every_field_reason_has_a_meaning() -> None:
    assert set(FIELD_MEANINGS) == set(FieldReason)


def test_the_settings_are_those_of_the_code() -> None:
    table = SERVING.split("| Setting | Default | Meaning |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE))
    assert list(rows) == list(ServerConfig.model_fields)
    for name, field in ServerConfig.model_fields.items():
        if not field.is_required() and field.default is not None:
            stated = rows[name].strip()
            assert yaml.safe_load(stated) == getattr(field.default, "value", field.default), name


def test_the_example_is_a_configuration() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", SERVING, re.DOTALL)
    ServerConfig.model_validate(yaml.safe_load(example))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_flags_that_the_page_shows(command: str) -> None:
    words = shlex.split(command)
    switchyard = str(Path(sys.executable).parent / "switchyard")
    found = subprocess.run(
        [switchyard, words[0], "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
    )
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {flag for flag in flags if flag not in found.stdout} == set()
