"""How an adapter wants to be talked to: `serving.json`, one of a version's files.

An adapter is trained with a template, a system prompt and an end of its own; served without them it answers
worse and nobody knows why. So they travel with the weights, under the same digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from jinja2 import Environment, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser

from switchyard.registry.digest import canonical_json
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.verdicts import Findings, Reason, shown

CONTRACT_FILE: Final = "serving.json"
MAX_TEMPLATE_BYTES: Final = 64 << 10
MAX_SYSTEM_BYTES: Final = 32 << 10
MAX_SCHEMA_BYTES: Final = 64 << 10
MAX_STOPS: Final = 8
MAX_STOP_BYTES: Final = 256
MAX_CONTEXT_TOKENS: Final = 1 << 24

SAMPLING_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "temperature": (0.0, 100.0),
        "top_p": (0.001, 1.0),
        "top_k": (0, (1 << 31) - 1),
        "min_p": (0.0, 1.0),
        "typical_p": (0.001, 1.0),
        "repetition_penalty": (0.001, 10.0),
        "presence_penalty": (-10.0, 10.0),
        "frequency_penalty": (-10.0, 10.0),
    }
)
"""What `sampling` may have; each range lies within the one that a request may have."""


@dataclass(frozen=True, slots=True)
class ServingContract:
    """What an adapter brings to a conversation; what is not said is the base's or the caller's.

    Attributes:
        chat_template: makes one prompt of a conversation (Jinja); None for the base's.
        system_prompt: the first turn of a conversation that has no system turn; empty for none.
        stop: strings before which every answer ends.
        sampling: what a request takes that does not say otherwise, by parameter.
        output_schema: JSON schema of every answer that no other structure was asked for; empty for none.
        max_context_tokens: tokens that prompt and answer may have together; None for the server's.
    """

    chat_template: str | None = None
    system_prompt: str = ""
    stop: tuple[str, ...] = ()
    sampling: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    output_schema: str = ""
    max_context_tokens: int | None = None


def read_contract(data: bytes, findings: Findings) -> ServingContract:
    """Reads `serving.json`; every fault goes to `findings`."""
    try:
        document = parse_json(data)
    except JsonRefused as error:
        findings.fault(Reason.FILE_CONTENT, CONTRACT_FILE, f"is not JSON: {error}")
        return ServingContract()
    if not isinstance(document, dict):
        findings.fault(Reason.FILE_CONTENT, CONTRACT_FILE, f"is a {type(document).__name__}; expected a mapping")
        return ServingContract()
    for key in sorted(set(document) - set(_READERS)):
        message = f"is no field of a serving contract; expected some of {', '.join(_READERS)}"
        findings.fault(Reason.FILE_CONTENT, f"{CONTRACT_FILE}#{shown(key)}", message)
    for key in sorted(set(document) & set(_READERS)):
        if (found := _READERS[key](document[key])) is not None:
            findings.fault(Reason.FILE_CONTENT, f"{CONTRACT_FILE}#{key}", found)
    return ServingContract() if findings.faults else _contract(document)


def contract_of(data: bytes) -> ServingContract:
    """Reads the `serving.json` of a version that was published.

    Raises:
        ValueError: it holds a fault, which publishing refuses; says all of them.
    """
    findings = Findings()
    contract = read_contract(data, findings)
    if findings.faults:
        raise ValueError("; ".join(f"{one.subject} {one.message}" for one in findings.faults))
    return contract


def _contract(document: dict[str, Json]) -> ServingContract:
    template, system, stop = document.get("chat_template"), document.get("system_prompt"), document.get("stop")
    sampling, schema, context = (
        document.get("sampling"),
        document.get("output_schema"),
        document.get("max_context_tokens"),
    )
    return ServingContract(
        chat_template=template if isinstance(template, str) else None,
        system_prompt=system if isinstance(system, str) else "",
        stop=tuple(one for one in stop if isinstance(one, str)) if isinstance(stop, list) else (),
        sampling={key: value for key, value in sampling.items() if isinstance(value, int | float)}
        if isinstance(sampling, dict)
        else {},
        output_schema=canonical_json(schema).decode() if isinstance(schema, dict) else "",
        max_context_tokens=context if isinstance(context, int) else None,
    )


def _template_fault(value: Json) -> str | None:
    fault = _text_fault(MAX_TEMPLATE_BYTES)(value)
    if fault is not None or not isinstance(value, str):
        return fault
    try:
        Environment(autoescape=False, extensions=[loopcontrols, GenerationBlock]).parse(value)  # noqa: S701 - a prompt, no HTML
    except TemplateSyntaxError as error:
        return f"is no template: line {error.lineno}: {shown(error.message or '')}"
    except RecursionError:
        return "is nested too deep"
    return None


class GenerationBlock(Extension):
    """Reads `{% generation %}`, by which templates mark for training what the model has to say."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> Node | list[Node]:
        """Takes the block's content as if it stood there without the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _text_fault(most_bytes: int) -> Callable[[Json], str | None]:
    def fault(value: Json) -> str | None:
        if not isinstance(value, str):
            return f"is a {type(value).__name__}; expected a text"
        size_bytes = len(value.encode())
        if not 1 <= size_bytes <= most_bytes:
            return f"has {size_bytes} bytes; expected 1 to {most_bytes}, or leave it out"
        return None

    return fault


def _stop_fault(value: Json) -> str | None:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_STOPS:
        return f"is no list of 1 to {MAX_STOPS} texts"
    for index, one in enumerate(value):
        if (fault := _text_fault(MAX_STOP_BYTES)(one)) is not None:
            return f"[{index}] {fault}"
    return None


def _sampling_fault(value: Json) -> str | None:
    if not isinstance(value, dict):
        return f"is a {type(value).__name__}; expected a mapping from parameters to numbers"
    found = []
    for name, number in sorted(value.items()):
        if name not in SAMPLING_RANGES:
            found.append(f"{shown(name)} is none of {', '.join(SAMPLING_RANGES)}")
            continue
        low, high = SAMPLING_RANGES[name]
        of_kind = isinstance(number, int) if isinstance(low, int) else isinstance(number, int | float)
        if not of_kind or isinstance(number, bool) or not _within(number, low, high):
            found.append(f"{name} is {shown(str(number))}, expected {low:g} to {high:g}")
    return "; ".join(found) or None


def _within(number: Json, low: float, high: float) -> bool:
    return isinstance(number, int | float) and math.isfinite(number) and low <= number <= high


def _schema_fault(value: Json) -> str | None:
    if not isinstance(value, dict):
        return f"is a {type(value).__name__}; expected a JSON schema"
    size_bytes = len(canonical_json(value))
    return f"has {size_bytes} bytes; expected at most {MAX_SCHEMA_BYTES}" if size_bytes > MAX_SCHEMA_BYTES else None


def _context_fault(value: Json) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CONTEXT_TOKENS:
        return f"is {shown(str(value))}; expected a number of tokens from 1 to {MAX_CONTEXT_TOKENS}"
    return None


_READERS: Final[Mapping[str, Callable[[Json], str | None]]] = {
    "chat_template": _template_fault,
    "system_prompt": _text_fault(MAX_SYSTEM_BYTES),
    "stop": _stop_fault,
    "sampling": _sampling_fault,
    "output_schema": _schema_fault,
    "max_context_tokens": _context_fault,
}
"""Every field, and what is wrong with its value; None when nothing is."""
