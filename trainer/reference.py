"""The recipe's reference: every key with its values, default and meaning, as Markdown.

Owns nothing but the rendering; the words are those of `switchyard.trainer.recipe`. `docs/training.md` holds
the result, and a test keeps the two equal.
"""

from __future__ import annotations

import typing

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from switchyard.trainer.recipe import Recipe

_BOUNDS = (
    (annotated_types.Ge, "≥", "ge"),
    (annotated_types.Gt, ">", "gt"),
    (annotated_types.Le, "≤", "le"),
    (annotated_types.Lt, "<", "lt"),
)


def recipe_reference() -> str:
    """Returns one Markdown table with all keys of a recipe."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        lines += _rows(name, field)
    return "\n".join(lines) + "\n"


def _rows(path: str, field: FieldInfo) -> list[str]:
    section = _section_of(field)
    if section is not None:
        return [row for name, inner in section.model_fields.items() for row in _rows(f"{path}.{name}", inner)]
    meaning = " ".join((field.description or "").split())
    bounds = _bounds(field)
    return [f"| `{path}` | {_default(field)} | {meaning}{f' ({bounds})' if bounds else ''} |"]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Returns the section that a key holds, whether it must be given or not."""
    choices = (field.annotation, *typing.get_args(field.annotation))
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default in (None, (), {}):
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(field: FieldInfo) -> str:
    return ", ".join(
        f"{sign} {getattr(constraint, attribute)}"
        for kind, sign, attribute in _BOUNDS
        for constraint in field.metadata
        if isinstance(constraint, kind)
    )
