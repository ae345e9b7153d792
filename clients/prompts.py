"""Prompts from a file: what several adapters are asked, and what they should say.

Two forms: JSON lines with `prompt` and, where the right answer is known, `completion`, which are the rows that the
trainer learns from; or plain text with one prompt on each line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from switchyard.clients.errors import Fault, PromptsInvalid

_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask.

    Attributes:
        line: where it stands in its file, counted from 1.
        text: what is sent.
        expected: the right answer, or None when nobody knows it.
    """

    line: int
    text: str
    expected: str | None


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Reads every prompt of a file; empty lines are no prompts.

    Args:
        path: `.jsonl` for JSON lines, anything else for text; UTF-8.

    Raises:
        PromptsInvalid: the file cannot be read, has bad lines, all of them listed, or no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsInvalid(f"{path} cannot be read as UTF-8 text: {error}.") from error
    read = _json_prompt if path.suffix == ".jsonl" else _text_prompt
    prompts: list[Prompt] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = read(number, line)
            if isinstance(found, Prompt):
                prompts.append(found)
            else:
                faults.append(Fault(f"{path.name}:{number}", "", found))
    if faults:
        raise PromptsInvalid(f"{path} has {len(faults)} bad lines:", faults=tuple(faults[:_SHOWN_FAULTS]))
    if not prompts:
        raise PromptsInvalid(f"{path} holds no prompt; expected one on each line.")
    return tuple(prompts)


def _text_prompt(number: int, line: str) -> Prompt:
    return Prompt(number, line.rstrip("\r"), None)


def _json_prompt(number: int, line: str) -> Prompt | str:
    """Returns the prompt, or what is wrong with the line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"is not JSON: {error}"
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        return "expected an object with a text `prompt` and, if the answer is known, a text `completion`"
    expected = row.get("completion")
    if expected is not None and not isinstance(expected, str):
        return f"`completion` is {type(expected).__name__}, expected text"
    return Prompt(number, row["prompt"], expected)
