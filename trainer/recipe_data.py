"""The recipe's data: which files, in which form, and what is done about bad rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from switchyard.trainer.recipe_section import Section
from switchyard.trainer.row_formats import ALPACA_PROMPT, DataFormat


class Leaks(StrEnum):
    """What is done about rows that are learnt and judged."""

    WARN = "warn"
    ERROR = "error"


def _with_question(template: str) -> str:
    if template.count("{question}") != 1:
        raise ValueError("names {question} not exactly once, so the rows would not say what is asked")
    return template


class DataSection(Section):
    """Files of rows, relative to the recipe file: JSON lines, .json, .csv, .parquet, or directories of `datasets`."""

    train: Annotated[Path, Field(strict=False)]
    """What the adapter learns."""

    dev: Annotated[Path | None, Field(strict=False)] = None
    """Evaluated during training (`train.eval_steps`) and at its end."""

    test: Annotated[Path | None, Field(strict=False)] = None
    """Evaluated once, after training."""

    format: Annotated[DataFormat, Field(strict=False)] = DataFormat.PROMPT_COMPLETION
    """`prompt-completion`; `alpaca` (instruction, input, output); `chat` (messages of role and content) and
    `sharegpt` (conversations of from and value), where each answer is learnt once, with what was said before it;
    `text` (whole .txt, .md and .html files, directories of them, or rows with the key text), where all is learnt."""

    alpaca_prompt: Annotated[str, AfterValidator(_with_question)] = ALPACA_PROMPT
    """Prompt of `alpaca` rows; `{question}` is the instruction and, on a line of its own, the input."""

    skip_bad: bool = False
    """Leave bad rows out and count them, instead of refusing the file."""

    leaks: Annotated[Leaks, Field(strict=False)] = Leaks.WARN
    """What rows of `dev` or `test` that occur in `train` are: `warn` about them, or refuse them as an `error`."""
