"""Rendering chat templates as transformers does, in the process of a worker.

A template is a program that somebody published. It gets no name but those below, cannot change what it
is given, and stops at the limits that the process has (`switchyard.server.chat.render_worker`).
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Final, Never

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from switchyard.registry.serving_contract import GenerationBlock
from switchyard.registry.strict_json import Json
from switchyard.server.chat.origin import masked

_COMPILED: Final = 64

_AS_THEY_ARE: Final = frozenset({"role", "type"})
"""Members whose values templates compare; both have a few values that the server knows."""


class Refused(Exception):
    """The template says that it cannot take this conversation."""


def render_both(
    template: str, turns: list[Json], tools: list[Json], variables: dict[str, Json], most_characters: int
) -> tuple[str, str]:
    """The prompt, and the same with everything masked that was said; see `switchyard.server.chat.origin`.

    Args:
        template: a chat template.
        turns: see `turn_data`.
        tools: see `tool_data`.
        variables: what else templates may name, e.g. `bos_token`.
        most_characters: longest prompt.

    Raises:
        Refused: the template raised an exception of its own.
        TemplateError: it does something that it may not, or is wrong.
        OverflowError: the prompt is too long.
    """
    compiled = _compiled(template)
    text = _rendered(compiled, turns, tools, variables, most_characters)
    try:
        return text, _rendered(compiled, _masked(turns), _masked(tools), variables, most_characters)
    except (Refused, TemplateError, TypeError, LookupError, ValueError) as error:
        raise TemplateError(
            f"with other words in the same turns it fails ({type(error).__name__}: {error}), so it cannot be seen "
            "which control tokens are its own"
        ) from error


def _rendered(
    template: Template, turns: object, tools: object, variables: dict[str, Json], most_characters: int
) -> str:
    pieces, length = [], 0
    given = {"messages": turns, "tools": tools or None, "documents": None, "add_generation_prompt": True}
    for piece in template.generate(**(variables | given)):
        length += len(piece)
        if length > most_characters:
            raise OverflowError(f"the prompt has more than {most_characters} characters")
        pieces.append(piece)
    return "".join(pieces)


def _masked(value: object, key: str = "") -> object:
    """The same tree with every text in it masked."""
    if isinstance(value, str):
        return value if key in _AS_THEY_ARE else masked(value)
    if isinstance(value, list):
        return [_masked(one, key) for one in value]
    if isinstance(value, dict):
        return {name: _masked(one, name) for name, one in value.items()}
    return value


@lru_cache(maxsize=_COMPILED)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationBlock, loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    environment.globals["namespace"] = _names
    return environment.from_string(template)


class _Names(Namespace):
    """A namespace without names that lead to the inside of Python."""

    def __setitem__(self, name: str, value: object) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _names(**given: object) -> _Names:
    for name in given:
        _check_name(name)
    return _Names(**given)


def _check_name(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"{name!r} begins with an underscore; give it another name")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: object) -> Never:
    raise Refused(str(message))


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
