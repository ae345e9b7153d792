"""Golden prompts: what plain PEFT says to a few prompts, token by token, so that a server can be held to it.

Owns `golden.json`, one of a version's files: token ids of prompt and greedy answer, and at every place of the answer
the most probable tokens with their log probabilities. It is made from the adapter's files on the base as it was
quantised for training, and says nothing about a base in another precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

GOLDEN_FILE: Final = "golden.json"
SCHEMA: Final = 1
TOP: Final = 5
"""Tokens that are recorded at each place."""

_TOLERANCES: Final = {"float32": 0.01, "bfloat16": 0.5, "float16": 0.1}
"""Nats by which another way to compute the same may differ: about the rounding of one logit in each type."""


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """One prompt with its answer.

    Attributes:
        token_ids: Of prompt and answer.
        prompt_tokens: How many of them are the prompt's.
        top: For each token of the answer, the most probable tokens at its place with their log probability in nats.
    """

    token_ids: tuple[int, ...]
    prompt_tokens: int
    top: tuple[Mapping[int, float], ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden prompts of a version.

    Attributes:
        quantization: How the base was quantised, as a label.
        tolerance: Largest difference of a log probability that counts as equal, in nats.
        prompts: At least one.
    """

    quantization: str
    tolerance: float
    prompts: tuple[GoldenPrompt, ...]

    def document(self) -> dict[str, object]:
        """Returns the file as a JSON document."""
        return {
            "schema": SCHEMA,
            "quantization": self.quantization,
            "tolerance": self.tolerance,
            "prompts": [
                {
                    "token_ids": list(one.token_ids),
                    "prompt_tokens": one.prompt_tokens,
                    "top": [{str(token): round(value, 5) for token, value in place.items()} for place in one.top],
                }
                for one in self.prompts
            ],
        }


def tolerance_of(compute_dtype: str) -> float:
    """Returns the tolerance for a type of arithmetic."""
    return _TOLERANCES[compute_dtype]


def golden_from(content: bytes) -> Golden:
    """Reads a file that `Golden.document` made.

    Raises:
        ValueError: If it is none, or of another schema.
    """
    try:
        document = json.loads(content)
        if document["schema"] != SCHEMA:
            raise ValueError(f"{GOLDEN_FILE} has schema {document['schema']!r}, expected {SCHEMA}")
        return Golden(
            str(document["quantization"]),
            float(document["tolerance"]),
            tuple(_prompt(one) for one in document["prompts"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{GOLDEN_FILE} is not what the trainer writes: {error!r}") from error


def _prompt(document: Mapping[str, object]) -> GoldenPrompt:
    ids, top, count = document["token_ids"], document["top"], document["prompt_tokens"]
    if not (isinstance(ids, list) and isinstance(top, list) and isinstance(count, int)):
        raise TypeError("a prompt has another layout")
    if len(top) != len(ids) - count or count < 1:
        raise TypeError(f"{len(ids)} tokens, {count} of the prompt, and {len(top)} places do not fit")
    return GoldenPrompt(
        tuple(int(token) for token in ids),
        count,
        tuple({int(token): float(value) for token, value in place.items()} for place in top),
    )


def largest_difference(prompt: GoldenPrompt, served: Sequence[Mapping[int, float]]) -> float:
    """Returns how far a server is from a golden prompt, in nats.

    Args:
        prompt: What PEFT said.
        served: What the server gave for the same places: log probability by token. A token that it leaves out is as
            far away as the least probable one that it names, at least.
    """
    worst = 0.0
    for expected, found in zip(prompt.top, served, strict=True):
        least = min(found.values())
        for token, value in expected.items():
            worst = max(worst, abs(value - found[token]) if token in found else max(0.0, value - least))
    return worst
