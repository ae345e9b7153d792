"""The parameters of a generation: what each may be, what it is when left out, what it does.

One table: bounds refuse by it, and the page about generation is written from it
(`python -P -m switchyard.server.calls.parameters docs/generation.md`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_ALTERNATIVES: Final = 20
MAX_ANSWERS: Final = 16
MAX_BIAS: Final = 100.0
MAX_BIASES: Final = 1024
MAX_CHOICES: Final = 256
MAX_CHOICE_BYTES: Final = 1024
MAX_LISTED_TOKENS: Final = 4096
MAX_LOGPROBS: Final = 32768
"""Entries of all logprobs of one request: they have to fit one message of 4 MiB."""

MAX_PRIORITY: Final = 100
MAX_SEED: Final = (1 << 64) - 1
MAX_STOPS: Final = 16
MAX_STOP_BYTES: Final = 256
MAX_STOP_TOKENS: Final = 64
MAX_STRUCTURE_BYTES: Final = 64 * 1024
MAX_TEMPERATURE: Final = 100.0
MIN_TEMPERATURE: Final = 0.001
"""Smallest temperature above zero; below it logits divided by it overflow float32 for no visible effect."""


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a field may have.

    Attributes:
        low: the smallest of them.
        high: the largest of them.
        above_low: whether `low` itself is out.
        or_zero: whether 0 is fine too.
    """

    low: float
    high: float
    above_low: bool = False
    or_zero: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is one of them; NaN never is."""
        if self.or_zero and value == 0:
            return True
        return self.low <= value <= self.high and not (self.above_low and value == self.low)

    def __str__(self) -> str:
        zero = "0 or " if self.or_zero else ""
        low = f"above {_number(self.low)}" if self.above_low else f"from {_number(self.low)}"
        return f"{zero}{low} to {_number(self.high)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a request.

    Attributes:
        field: its path in `GenerateRequest`.
        range: the numbers that it may be, or in words what it may be.
        default: what it is when left out.
        meaning: what it does.
    """

    field: str
    range: Range | str
    default: str
    meaning: str


PARAMETERS: Final[tuple[Parameter, ...]] = (
    Parameter(
        "sampling.temperature",
        Range(MIN_TEMPERATURE, MAX_TEMPERATURE, or_zero=True),
        "0",
        "Divides the logits. 0 takes the most probable token; top_k, top_p, min_p and typical_p then change nothing.",
    ),
    Parameter("sampling.top_k", Range(0, (1 << 31) - 1), "0", "Keeps this many of the most probable tokens; 0: all."),
    Parameter(
        "sampling.top_p",
        Range(0, 1, above_low=True),
        "1",
        "Keeps the fewest most probable tokens that have this mass together (arXiv:1904.09751).",
    ),
    Parameter(
        "sampling.min_p",
        Range(0, 1),
        "0",
        "Keeps tokens at least this probable, as a fraction of the most probable one (arXiv:2407.01082).",
    ),
    Parameter(
        "sampling.typical_p",
        Range(0, 1, above_low=True),
        "1",
        "Keeps the tokens whose surprise is nearest the expected one and that have this mass together "
        "(arXiv:2202.00666).",
    ),
    Parameter("sampling.seed", Range(0, MAX_SEED), "drawn", "The same seed gives the same text, whatever runs."),
    Parameter(
        "sampling.repetition_penalty",
        Range(0, 10, above_low=True),
        "1",
        "Divides positive and multiplies negative logits of tokens in prompt and answer (arXiv:1909.05858, 4.1).",
    ),
    Parameter(
        "sampling.presence_penalty",
        Range(-10, 10),
        "0",
        "Taken once from the logit of each token that the answer has; the prompt does not count.",
    ),
    Parameter(
        "sampling.frequency_penalty",
        Range(-10, 10),
        "0",
        "Taken from the logit of a token as often as the answer has it; the prompt does not count.",
    ),
    Parameter(
        "sampling.logit_bias",
        f"up to {MAX_BIASES} tokens, each from {-MAX_BIAS:g} to {MAX_BIAS:g}",
        "none",
        "Added to the logits of single tokens.",
    ),
    Parameter(
        "sampling.allowed_token_ids",
        f"up to {MAX_LISTED_TOKENS} tokens",
        "all",
        "Only these are chosen. The end-of-sequence token is too only when it is named.",
    ),
    Parameter("sampling.banned_token_ids", f"up to {MAX_LISTED_TOKENS} tokens", "none", "These are never chosen."),
    Parameter(
        "sampling.n",
        Range(1, MAX_ANSWERS),
        "1",
        "Answers to give, each with a random stream of its own; more than one needs a temperature.",
    ),
    Parameter(
        "sampling.best_of",
        Range(1, MAX_ANSWERS),
        "n",
        "Answers to make, at least n; the n with the largest sum of logprobs are given, at the end.",
    ),
    Parameter(
        "sampling.logprobs",
        Range(0, MAX_ALTERNATIVES),
        "off",
        "Reports the logprob of each chosen token and of this many of the most probable ones.",
    ),
    Parameter(
        "sampling.prompt_logprobs",
        Range(0, MAX_ALTERNATIVES),
        "off",
        "The same for each token of the prompt after the first.",
    ),
    Parameter(
        "stopping.max_tokens", "from 1 to what the context leaves", "the server's", "The longest answer, in tokens."
    ),
    Parameter(
        "stopping.min_tokens",
        "from 0 to max_tokens",
        "0",
        "No token that ends the answer is chosen before this many others; a stop string still ends it.",
    ),
    Parameter(
        "stopping.stop",
        f"up to {MAX_STOPS} texts, each of 1 to {MAX_STOP_BYTES} bytes",
        "none",
        "The answer ends before the first of these.",
    ),
    Parameter(
        "stopping.stop_token_ids",
        f"up to {MAX_STOP_TOKENS} tokens",
        "none",
        "End the answer as the end-of-sequence token does, and have no text then.",
    ),
    Parameter("stopping.ignore_eos", "true or false", "false", "Goes on past the end-of-sequence token."),
    Parameter(
        "structure",
        f"one JSON schema, regular expression or Lark grammar of 1 to {MAX_STRUCTURE_BYTES} bytes, "
        f"or 1 to {MAX_CHOICES} different choices of 1 to {MAX_CHOICE_BYTES} bytes",
        "none",
        "The whole text of the answer matches it, unless max_tokens, a stop string or a stop token ends it before.",
    ),
    Parameter(
        "priority", Range(-MAX_PRIORITY, MAX_PRIORITY), "0", "Higher goes first among the requests of one tenant."
    ),
)

RANGES: Final[dict[str, Range]] = {one.field: one.range for one in PARAMETERS if isinstance(one.range, Range)}
"""The ranges of the fields that are one number, by the field's path."""

TABLE_BEGINS: Final = "<!-- parameters: written by switchyard.server.calls.parameters -->\n"
TABLE_ENDS: Final = "<!-- end of parameters -->\n"


def parameter_table() -> str:
    """The table of a page for people, in Markdown."""
    rows = [f"| `{one.field}` | {one.range} | {one.default} | {one.meaning} |\n" for one in PARAMETERS]
    return "| Field | May be | When left out | What it does |\n|---|---|---|---|\n" + "".join(rows)


def with_table(page: str) -> str:
    """The page with the table as it is now between its two marks."""
    before, _, rest = page.partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    return f"{before}{TABLE_BEGINS}{parameter_table()}{TABLE_ENDS}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_table(target.read_text(encoding="utf-8")), encoding="utf-8")
