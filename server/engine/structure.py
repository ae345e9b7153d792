"""What the text of an answer has to look like."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class StructureKind(StrEnum):
    """How a structure is written down."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"
    CHOICES = "choices"


@dataclass(frozen=True, slots=True)
class Structure:
    """What was asked for, before it was compiled.

    Attributes:
        kind: how to read `texts`.
        texts: the schema, the expression or the grammar; for choices, each of them.
    """

    kind: StructureKind
    texts: tuple[str, ...]


class Grammar(Protocol):
    """A compiled structure.

    The engine only carries it: the sampler that made it knows what is inside.
    """

    @property
    def digest(self) -> str:
        """`sha256:<64 hex>` of the structure and the tokenizer it was compiled for."""
        ...
