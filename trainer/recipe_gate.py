"""What an adapter must show on `data.test` before it is published.

Owns the metrics and their thresholds. They judge an adapter and change nothing in it, so they are no part of a
recipe's digest; the report that travels with the adapter holds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from switchyard.trainer.recipe_section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Failed(StrEnum):
    """What happens to an adapter that does not pass."""

    KEEP = "keep"
    PUBLISH = "publish"


class RuleSection(Section):
    """A metric that scores each answer between 0 and 1, and what the mean must be."""

    at_least: Share | None = None
    """Smallest mean that passes."""

    over_base: Share | None = None
    """Smallest gain over the base model without the adapter that passes."""

    under_parent: Share | None = None
    """Largest loss against `gate.parent` that passes; without it the paired test alone decides."""


def _compilable(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return pattern


class RegexSection(RuleSection):
    """Answers of a form."""

    pattern: Annotated[str, AfterValidator(_compilable)]
    """Regular expression of Python that must match the whole answer."""


class SchemaSection(RuleSection):
    """Answers that are JSON of a form."""

    path: Annotated[Path, Field(strict=False)]
    """JSON Schema that each answer must satisfy; relative to the recipe file."""


class CustomSection(RuleSection):
    """A metric of your own."""

    path: Annotated[Path, Field(strict=False)]
    """Python file; relative to the recipe file."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "score"
    """Function in it that is called with prompt, expected answer and answer, and returns a number between 0 and 1."""


class PerplexitySection(Section):
    """How surprising the right answers are: exp of the mean loss per token, 1 at best."""

    at_most: Annotated[float, Field(ge=1)] | None = None
    """Largest value that passes."""

    over_parent: Annotated[float, Field(ge=0)] | None = None
    """Largest rise over `gate.parent` that passes."""


class GateSection(Section):
    """What is measured on `data.test` for base, parent and new adapter. Without a metric there is no gate."""

    exact_match: RuleSection | None = None
    """Answers that are the expected text, white space around them aside."""

    json_match: RuleSection | None = None
    """Answers that are the expected JSON value; white space and the order of keys do not count."""

    json_valid: RuleSection | None = None
    """Answers that are JSON at all."""

    regex: RegexSection | None = None
    """Answers of a form."""

    json_schema: SchemaSection | None = None
    """Answers that are JSON of a form."""

    custom: CustomSection | None = None
    """A metric of your own."""

    perplexity: PerplexitySection | None = None
    """How surprising the right answers are."""

    rows: Annotated[int | None, Field(ge=1)] = None
    """Rows of `data.test` that are asked, from its start; all by default."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens after which an answer is cut off."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows that are asked at once."""

    parent: str | None = None
    """Version that the adapter is compared with, such as `ns/name@prod`, in the registry it is published to."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The adapter fails when it is worse than the parent and McNemar's test gives less than this."""

    golden: Annotated[int, Field(ge=0, le=64)] = 4
    """Prompts of `data.test` whose tokens and log probabilities travel with the version. A server that it is
    published to must say the same before an alias is moved."""

    failed: Annotated[Failed, Field(strict=False)] = Failed.KEEP
    """What happens to an adapter that does not pass: `keep` it unpublished, or `publish` it without an alias."""

    @property
    def is_on(self) -> bool:
        """Whether anything is measured."""
        return any(getattr(self, name) is not None for name in METRICS)

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Settings without a metric would be ignored, and so would a comparison with nobody."""
        metrics = [name for name in METRICS if given.get(name) is not None]
        if cls.changed(given) and not metrics:
            return [f"names no metric; give at least one of {', '.join(METRICS)}"]
        if given.get("parent") is None:
            compared = [name for name in metrics if _is_set(given[name], ("under_parent", "over_parent"))]
            return [f"`{name}` is compared with the parent: give `gate.parent`" for name in compared]
        return []


ANSWER_METRICS: Final = ("exact_match", "json_match", "json_valid", "regex", "json_schema", "custom")
"""Metrics that score answers, the strictest first; the first that a recipe names tells right from wrong."""

METRICS: Final = (*ANSWER_METRICS, "perplexity")


def _is_set(rule: object, names: tuple[str, ...]) -> bool:
    return any(
        (rule.get(name) if isinstance(rule, Mapping) else getattr(rule, name, None)) is not None for name in names
    )
