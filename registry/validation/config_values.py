"""Values of `adapter_config.json`, read one field at a time with its own limits.

Each reader records a fault and returns a harmless stand-in, so that one look
finds every fault of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from switchyard.registry.manifest import ADAPTER_CONFIG
from switchyard.registry.strict_json import Json
from switchyard.registry.validation.gate import RANK_LIMIT
from switchyard.registry.verdicts import Findings, Reason, shown

_MOST_ENTRIES = 4096
_MOST_LAYERS = 4096
_LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")
_Number = TypeVar("_Number", int, float)


def is_literal(name: Json) -> bool:
    """Tells whether a name has only characters that mean themselves in a module path."""
    return isinstance(name, str) and 0 < len(name) <= 256 and set(name) <= _LITERAL


class ConfigValues:
    """Readers for the fields of one document.

    Args:
        document: the parsed file.
        findings: receives every fault and warning.
    """

    def __init__(self, document: Mapping[str, Json], findings: Findings) -> None:
        self._document = document
        self._findings = findings

    def rank(self, name: str) -> int:
        """A rank from 1 to the limit."""
        return self._rank(name, self._document.get(name))

    def alpha(self, name: str) -> float:
        """A finite number."""
        return self._alpha(name, self._document.get(name))

    def rank_pattern(self, name: str) -> dict[str, int]:
        """Literal module names to ranks."""
        return self._pattern(name, self._rank)

    def alpha_pattern(self, name: str) -> dict[str, float]:
        """Literal module names to alphas."""
        return self._pattern(name, self._alpha)

    def flag(self, name: str) -> bool:
        """True or false; false when absent."""
        value = self._document.get(name)
        if value not in (None, True, False) or not isinstance(value, (bool, type(None))):
            self._bad(name, value, "true or false")
        return value is True

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some words; the first when absent."""
        value = self._document.get(name)
        if value is None:
            return choices[0]
        if not isinstance(value, str) or value not in choices:
            self._bad(name, value, f"one of {', '.join(choices)}")
            return choices[0]
        return value

    def module_names(self, name: str) -> tuple[str, ...]:
        """Literal module names; a pattern is a fault."""
        value = self._document.get(name)
        if isinstance(value, str):
            self._bad(name, value, "a list of module names")
            return ()
        return self.targets(name) or ()

    def targets(self, name: str) -> tuple[str, ...] | None:
        """Literal module names; None for one pattern, which is never run."""
        value = self._document.get(name)
        if value is None or value == []:
            return ()
        if isinstance(value, str):
            if len(value) > _MOST_ENTRIES:
                self._fault(Reason.PATTERN, name, f"a pattern of {len(value)} characters")
            elif value != "all-linear":
                message = f"the pattern {shown(value)} is not run; the adapted modules are those with tensors"
                self._findings.warn(Reason.TARGETS_FROM_TENSORS, f"{ADAPTER_CONFIG}#{name}", message)
            return None
        if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
            self._bad(name, value, f"a list of at most {_MOST_ENTRIES} module names")
            return ()
        for entry in value:
            if not is_literal(entry):
                self._fault(Reason.PATTERN, name, f"{shown(entry)} is not a plain module name")
        return tuple(str(entry) for entry in value)

    def layers(self, name: str) -> tuple[int, ...] | None:
        """Layer numbers; None for all."""
        value = self._document.get(name)
        if value is None or value == []:
            return None
        numbers = value if isinstance(value, list) else [value]
        good = tuple(number for number in numbers if type(number) is int and number >= 0)
        if len(good) != len(numbers) or len(numbers) > _MOST_LAYERS:
            self._bad(name, value, f"at most {_MOST_LAYERS} layer numbers")
        return good

    def layer_names(self, name: str) -> tuple[str, ...]:
        """Plain names that come before a layer number; empty for any."""
        value = self._document.get(name)
        if value is None or value in ("", []):
            return ()
        names = value if isinstance(value, list) else [value]
        for entry in names:
            if not is_literal(entry) or "." in str(entry):
                self._fault(Reason.PATTERN, name, f"{shown(entry)} is not a plain name")
        return tuple(str(entry) for entry in names)

    def _rank(self, name: str, value: Json) -> int:
        if type(value) is int and 0 < value <= RANK_LIMIT:
            return value
        self._fault(Reason.RANK, name, f"{shown(value)}; expected a whole number from 1 to {RANK_LIMIT}")
        return 1

    def _alpha(self, name: str, value: Json) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                alpha = float(value)
            except OverflowError:
                alpha = math.inf
            if math.isfinite(alpha):
                return alpha
        self._bad(name, value, "a finite number")
        return 1.0

    def _pattern(self, name: str, read: Callable[[str, Json], _Number]) -> dict[str, _Number]:
        value = self._document.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
            self._bad(name, value, f"an object with at most {_MOST_ENTRIES} module names")
            return {}
        pattern: dict[str, _Number] = {}
        for key, entry in value.items():
            if is_literal(key):
                pattern[key] = read(f"{name}.{key}", entry)
            else:
                message = f"{shown(key)} is not a plain module name; patterns are not run. List the modules"
                self._fault(Reason.PATTERN, name, message)
        return pattern

    def _bad(self, name: str, value: Json, expected: str) -> None:
        self._fault(Reason.CONFIG_VALUE, name, f"{shown(value)}; expected {expected}")

    def _fault(self, reason: Reason, name: str, message: str) -> None:
        self._findings.fault(reason, f"{ADAPTER_CONFIG}#{name}", message)
