"""What the fields of the registry's calls may be, where the wire says less than the library needs.

The library judges names, refs and states itself. Here are the limits that
concern only callers from outside: how long, how many, how deep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.errors import FieldFault, InvalidField

MAX_REASON_CHARACTERS: Final = 2000
MAX_EVIDENCE_BYTES: Final = 16 << 10
MAX_EVIDENCE_DEPTH: Final = 16
MAX_QUERY_CHARACTERS: Final = 4096
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_NAME_CHARACTERS: Final = 256
MAX_SECONDS: Final = 3650 * 86400.0
MAX_INTEGER: Final = (1 << 63) - 1
"""Largest integer that the databases hold."""


class FieldChecks:
    """Gathers the faults of one request, so that all of them are told at once."""

    def __init__(self) -> None:
        self._faults: list[FieldFault] = []

    def text(self, field: str, value: str, most: int) -> str:
        """A text of at most `most` characters, printable but for line ends."""
        if len(value) > most or not value.replace("\n", " ").isprintable():
            self._add(field, f"{len(value)} characters; expected at most {most}, all printable")
        return value

    def number(self, field: str, value: float, least: float, most: float) -> None:
        """A number from `least` to `most`; NaN is none."""
        if not least <= value <= most:
            self._add(field, f"{value:g} is not from {least:g} to {most:g}")

    def size(self, field: str, count: int, least: int, most: int, unit: str) -> None:
        """A number of things."""
        if not least <= count <= most:
            self._add(field, f"{count} {unit}; expected {least} to {most}")

    def json_object(self, field: str, text: str) -> Mapping[str, Json]:
        """The JSON object in `text`; empty text is an empty object."""
        data = text.encode()
        if not data:
            return {}
        if len(data) > MAX_EVIDENCE_BYTES:
            self._add(field, f"{len(data)} bytes; at most {MAX_EVIDENCE_BYTES} are taken")
            return {}
        try:
            value = parse_json(data)
        except JsonRefused as error:
            self._add(field, str(error))
            return {}
        if not isinstance(value, dict):
            self._add(field, "it is no JSON object; write `{...}`")
            return {}
        if _deeper_than(value, MAX_EVIDENCE_DEPTH):
            self._add(field, f"it is nested more than {MAX_EVIDENCE_DEPTH} levels deep")
            return {}
        return value

    def require(self, field: str, ok: bool, message: str) -> None:
        """Anything else that must hold."""
        if not ok:
            self._add(field, message)

    def refuse_faults(self) -> None:
        """Ends the checks.

        Raises:
            InvalidField: there was a fault; lists all.
        """
        if self._faults:
            raise InvalidField(tuple(self._faults))

    def _add(self, field: str, message: str) -> None:
        self._faults.append(FieldFault(field, FieldReason.LIMIT, message))


def _deeper_than(value: Json, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(part, levels - 1) for part in parts)
