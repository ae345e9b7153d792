"""The recipe file: YAML text into a `Recipe`, with every fault at once.

Owns the two things that YAML alone gets wrong for a recipe: PyYAML keeps the last of two equal keys in
silence, and reads `2e-4` as text. Relative paths are resolved against the file's directory, here and nowhere
else.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from switchyard.trainer.errors import Fault, RecipeInvalid, RecipeUnreadable
from switchyard.trainer.recipe import Recipe

_TOKEN: Final = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


class _RecipeLoader(yaml.SafeLoader):
    """SafeLoader that refuses equal keys and reads exponents without a dot as numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key `{key}` occurs twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file.

    Args:
        path: YAML file in UTF-8.
        changes: Keys that are other than in the file, each as `section.key=value` with a value of YAML.

    Returns:
        The recipe, its relative paths resolved against the directory of `path`.

    Raises:
        RecipeUnreadable: If the file is missing, not UTF-8, not YAML, or names a key twice.
        RecipeInvalid: If keys or values are wrong; lists all of them.
    """
    return resolved(written_recipe(path, changes), path.resolve().parent)


def written_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file, its paths as they are written.

    Args:
        path: As for `load_recipe`.
        changes: As for `load_recipe`.

    Raises:
        RecipeUnreadable, RecipeInvalid: As `load_recipe` raises them.
    """
    try:
        document = _RecipeLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise RecipeUnreadable(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeUnreadable(f"the recipe {path} is not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeUnreadable(f"the recipe {path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeUnreadable(
            f"the recipe {path} holds {type(document).__name__}; expected a mapping with name, base, data, train"
        )
    for change in changes:
        _change(document, change)
    return parse_recipe(document, source=str(path))


def _change(document: dict[object, object], change: str) -> None:
    place, sign, text = change.partition("=")
    *sections, key = place.split(".")
    if not sign or not all([*sections, key]):
        raise RecipeInvalid("--set:", [Fault(change, "is not of the form section.key=value")])
    try:
        value = _RecipeLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise RecipeInvalid("--set:", [Fault(place, f"the value is not YAML: {error}")]) from error
    for section in sections:
        inner = document.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeInvalid("--set:", [Fault(place, f"`{section}` is no section of the recipe")])
        document = inner
    document[key] = value


def parse_recipe(document: dict[object, object], *, source: str = "recipe") -> Recipe:
    """Validates a recipe that is already a mapping; its paths stay as written.

    Args:
        document: What the YAML file holds.
        source: What to call the recipe in messages.

    Raises:
        RecipeInvalid: If keys or values are wrong; lists all of them.
    """
    faults = list(_secrets("", document))
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        faults += [_fault(detail) for detail in error.errors(include_url=False)]
        raise _invalid(source, faults) from error
    if faults:
        raise _invalid(source, faults)
    return recipe


def _invalid(source: str, faults: list[Fault]) -> RecipeInvalid:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return RecipeInvalid(f"{source} has {count}:", faults)


def _secrets(place: str, value: object) -> Iterator[Fault]:
    """Finds tokens of the Hub, which would be kept in every manifest."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, str) and _TOKEN.search(value):
        yield Fault(place, "holds a token of the Hub; recipes are kept and shown, so set HF_TOKEN in the environment")


def _fault(detail: ErrorDetails) -> Fault:
    # Parts with brackets are pydantic's names for the alternatives of a union.
    subject = ".".join(str(part) for part in detail["loc"] if "[" not in str(part)) or "recipe"
    match detail["type"]:
        case "extra_forbidden":
            message = "unknown key"
        case "missing":
            message = "is missing"
        case "conflict" | "value_error":
            message = detail["msg"].removeprefix("Value error, ")
        case _:
            message = f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, found {detail['input']!r}"
    return Fault(subject, message)


def resolved(recipe: Recipe, directory: Path) -> Recipe:
    """Returns a recipe whose relative paths are those of a directory."""
    return recipe.with_paths(lambda path: directory / path.expanduser())
