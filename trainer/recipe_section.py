"""A section of a recipe: frozen, strict, and with all its faults told at once.

Owns what every section shares: unknown keys are errors, a conflict between keys is reported beside the faults
of single keys, and a key that came later leaves the digests of older recipes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


@dataclass(frozen=True, slots=True)
class Later:
    """What `LATER` is."""


LATER: Final = Later()
"""Marks, in `Annotated`, a key that came after the first recipes: with its default it is not part of
`Section.document()`, so a recipe that does not use it keeps its digest."""


class Section(BaseModel):
    """One section of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Returns what is wrong between keys, from the values as given."""
        return []

    @classmethod
    def changed(cls, given: Mapping[str, object]) -> set[str]:
        """Returns the known keys that do not have their default: a lock spells out all others too."""
        return {name for name, field in cls.model_fields.items() if name in given and given[name] != field.default}

    def document(self) -> dict[str, object]:
        """Returns the resolved keys as JSON values, without the later ones that have their default."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if LATER in field.metadata and value == field.get_default(call_default_factory=True):
                del values[name]
            elif isinstance(value, Section):
                values[name] = value.document()
        return values

    def with_paths(self, change: Callable[[Path], Path]) -> Self:
        """Returns the section with every path in it, at any depth, changed."""
        return self.model_copy(
            update={name: _changed(getattr(self, name), change) for name in type(self).model_fields}
        )

    @model_validator(mode="wrap")
    @classmethod
    def _with_conflicts(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        # An "after" validator would stay silent until every key is right by itself.
        conflicts = cls.conflicts(given) if isinstance(given, Mapping) else []
        details = [_detail("conflict", message, (), given) for message in conflicts]
        try:
            section = validate(given)
        except ValidationError as error:
            single = [_detail(one["type"], one["msg"], one["loc"], one["input"]) for one in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, single + details) from error
        if details:
            raise ValidationError.from_exception_data(cls.__name__, details)
        return section


def _changed(value: object, change: Callable[[Path], Path]) -> object:
    if isinstance(value, Path):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(one, change) for one in value)
    return value.with_paths(change) if isinstance(value, Section) else value


def _detail(kind: str, message: str, place: tuple[int | str, ...], found: object) -> InitErrorDetails:
    error = PydanticCustomError(kind, "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=found)


def value_at(given: object, *keys: str) -> object:
    """Returns a nested value of mappings or sections as given, or None."""
    for key in keys:
        given = given.get(key) if isinstance(given, Mapping) else getattr(given, key, None)
    return given
