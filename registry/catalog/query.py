r"""The query language for versions. Pure: it parses text and knows no database.

A query is a list of terms that must all hold, in any order:

    tag:task=ner  tag:draft  metric:exact_match>=0.9  alias:prod  state:ready,yanked
    base:sha256:…  dataset:sha256:…  parent:sha256:…  publisher:ann*  namespace:team
    feature:rslora  target:q_proj  rank<=16  ner*  team/ner*

A bare word is a pattern for the adapter's name, or for `namespace/adapter` when it has a slash. In a
pattern `*` stands for any text, as the first character, the last, or both. A value with spaces stands
in double quotes, with `\` before a quote or a backslash; inside quotes `*` is an ordinary character.
Without a `state` term, versions that are gone are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from switchyard.registry.digest import is_digest
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import is_name
from switchyard.registry.verdicts import shown

_MOST_CHARACTERS = 4096
_MOST_TERMS = 32
_TOKEN = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\["\\])*")+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"\Z')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
_COMPARISON = re.compile(
    r"(?P<left>(?:[^\"<>=]|\"(?:[^\"\\]|\\[\"\\])*\")+)(?P<operator><=|>=|<|>|=)(?P<right>.+)\Z", re.S
)
_NAME_PATTERN = re.compile(r"\*?[a-z0-9._-]*\*?(?:/\*?[a-z0-9._-]*\*?)?\Z")
_WORD = re.compile(r"[a-z0-9_]{1,64}\Z")


class Field(StrEnum):
    """What a term is about; the value is how it is written."""

    NAME = "name"
    NAMESPACE = "namespace"
    TAG = "tag"
    METRIC = "metric"
    ALIAS = "alias"
    STATE = "state"
    BASE = "base"
    DATASET = "dataset"
    PARENT = "parent"
    PUBLISHER = "publisher"
    FEATURE = "feature"
    TARGET = "target"
    RANK = "rank"


class Operator(StrEnum):
    """How a number is compared."""

    LESS = "<"
    AT_MOST = "<="
    EQUAL = "="
    AT_LEAST = ">="
    MORE = ">"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text to be found.

    Attributes:
        text: what must be there, letter by letter.
        open_start: anything may stand before it.
        open_end: anything may stand after it.
    """

    text: str
    open_start: bool = False
    open_end: bool = False

    def matches(self, value: str) -> bool:
        """Tells whether a value fits."""
        if self.open_start and self.open_end:
            return self.text in value
        if self.open_start:
            return value.endswith(self.text)
        return value.startswith(self.text) if self.open_end else value == self.text


ANYTHING = Pattern("", open_end=True)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition.

    Attributes:
        field: what it is about.
        key: of the tag, or name of the metric; otherwise empty.
        patterns: texts of which one must fit; for a name, the namespace's and the adapter's.
        operator: for metrics and the rank.
        number: what they are compared with.
    """

    field: Field
    key: str = ""
    patterns: tuple[Pattern, ...] = ()
    operator: Operator = Operator.EQUAL
    number: float = 0.0


@dataclass(frozen=True, slots=True)
class VersionQuery:
    """Conditions that must all hold.

    Attributes:
        terms: the conditions.
    """

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionQuery:
        """Reads a query.

        Raises:
            ArgumentInvalid: a term that does not parse, with what is allowed; all of them are told.
        """
        if len(text) > _MOST_CHARACTERS:
            raise ArgumentInvalid(f"the query has {len(text)} characters; expected at most {_MOST_CHARACTERS}")
        tokens, rest = _TOKEN.findall(text), _TOKEN.sub("", text).strip()
        faults = [f"a quote is not closed near {shown(rest)}"] if rest else []
        if len(tokens) > _MOST_TERMS:
            faults.append(f"{len(tokens)} terms are given; expected at most {_MOST_TERMS}")
        terms = []
        for token in tokens:
            try:
                terms.append(_term(token))
            except ValueError as error:
                faults.append(f"{shown(token)}: {error}")
        if faults:
            raise ArgumentInvalid(f"query refused: {'; '.join(faults)}")
        return cls(tuple(terms))

    @property
    def names_states(self) -> bool:
        """Whether a term is about states; without one, versions that are gone are left out."""
        return any(term.field is Field.STATE for term in self.terms)


def _term(token: str) -> Term:
    rank = _COMPARISON.match(token)
    if rank is not None and rank["left"] == Field.RANK:
        return Term(Field.RANK, operator=Operator(rank["operator"]), number=_number(rank["right"]))
    name, colon, value = token.partition(":")
    if not colon:
        if _NAME_PATTERN.match(token) is None:
            raise ValueError(
                f"is neither a pattern for names (a-z, 0-9, '.', '_', '-', '/', with '*' first or last) "
                f"nor one of {_FORMS}"
            )
        return _name(token)
    reader = _READERS.get(name)
    if reader is None:
        raise ValueError(f"unknown field {shown(name)}; expected one of {_FORMS}")
    if not value:
        raise ValueError("the value is missing")
    return reader(value)


def _name(value: str) -> Term:
    namespace, slash, adapter = value.rpartition("/")
    return Term(Field.NAME, patterns=(_pattern(namespace) if slash else ANYTHING, _pattern(adapter)))


def _tag(value: str) -> Term:
    key, equals, wanted = value.partition("=")
    if not is_name(key):
        raise ValueError(f"{shown(key)} is no key of a tag; write tag:key=value, or tag:key for any value")
    return Term(Field.TAG, key, (_pattern(wanted) if equals else ANYTHING,))


def _metric(value: str) -> Term:
    found = _COMPARISON.match(value)
    if found is None:
        raise ValueError("write metric:name>=number, with one of <, <=, =, >=, >")
    name = _plain(found["left"])
    return Term(Field.METRIC, name, operator=Operator(found["operator"]), number=_number(found["right"]))


def _alias(value: str) -> Term:
    return Term(Field.ALIAS, patterns=(_pattern(value),))


def _namespace(value: str) -> Term:
    return Term(Field.NAMESPACE, patterns=(_pattern(value),))


def _publisher(value: str) -> Term:
    return Term(Field.PUBLISHER, patterns=(_pattern(value),))


def _state(value: str) -> Term:
    words = value.split(",")
    unknown = [word for word in words if word.upper() not in VersionState.__members__]
    if unknown:
        allowed = ", ".join(state.lower() for state in VersionState)
        raise ValueError(f"{', '.join(map(shown, unknown))} is no state; expected one or more of {allowed}")
    return Term(Field.STATE, patterns=tuple(Pattern(word.upper()) for word in words))


def _digest(field: Field, value: str) -> Term:
    if not is_digest(value):
        raise ValueError("expected sha256: and 64 hexadecimal digits")
    return Term(field, patterns=(Pattern(value),))


def _word(field: Field, value: str) -> Term:
    if _WORD.match(value) is None:
        raise ValueError("expected a word of a-z, 0-9 and '_'")
    return Term(field, patterns=(Pattern(value),))


_READERS: Mapping[str, Callable[[str], Term]] = MappingProxyType(
    {
        "tag": _tag,
        "metric": _metric,
        "alias": _alias,
        "state": _state,
        "publisher": _publisher,
        "namespace": _namespace,
        "name": _name,
        "base": lambda value: _digest(Field.BASE, value),
        "dataset": lambda value: _digest(Field.DATASET, value),
        "parent": lambda value: _digest(Field.PARENT, value),
        "feature": lambda value: _word(Field.FEATURE, value),
        "target": lambda value: _word(Field.TARGET, value),
    }
)
_FORMS = ", ".join([*(f"{name}:…" for name in _READERS), "rank<=…"])


def _pattern(text: str) -> Pattern:
    quoted = _QUOTED.match(text)
    if quoted is not None:
        return Pattern(_unescaped(quoted[1]))
    open_start, open_end = text.startswith("*"), text.endswith("*")
    if text == "*":
        return ANYTHING
    bare = text[open_start : len(text) - open_end]
    if "*" in bare or '"' in bare:
        raise ValueError(
            "'*' may stand first or last only, and quotes around the whole value; quote it to mean a '*'"
        )
    return Pattern(bare, open_start, open_end)


def _plain(text: str) -> str:
    quoted = _QUOTED.match(text)
    if quoted is None and '"' in text:
        raise ValueError("quotes stand around the whole name")
    return text if quoted is None else _unescaped(quoted[1])


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.S)


def _number(text: str) -> float:
    if _NUMBER.match(text) is None or not math.isfinite(float(text)):
        raise ValueError(f"{shown(text)} is no number")
    return float(text)
