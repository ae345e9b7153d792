"""What a composition may be: which adapters, which factors, which method with which parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from switchyard.registry.errors import RefSyntax
from switchyard.registry.refs import AdapterRef
from switchyard.registry.verdicts import shown
from switchyard.server.adapters.composition import METHODS, PARAMETERS_OF
from switchyard.server.calls.draft import CompositionTarget
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.parameters import MAX_SEED, Range
from switchyard.server.errors import FieldFault

MAX_PARTS: Final = 8
MAX_WEIGHT: Final = 1000.0
"""Largest factor of an adapter in a composition; far beyond use, far from float32's overflow."""

MAJORITY_SIGNS: Final = ("total", "frequency")

_PARAMETERS: Final = ("density", "seed", "majority_sign", "svd_rank")
_NEEDED: Final = frozenset({"density"})
_RANGES: Final = {"density": Range(0, 1, above_low=True), "seed": Range(0, MAX_SEED), "svd_rank": Range(1, 1024)}


def composition_faults(target: CompositionTarget) -> Iterator[FieldFault]:
    """Every fault of a recipe."""
    if target.method not in METHODS:
        served = ", ".join(f"`{name}`" for name in METHODS)
        message = f"method {target.method} is not served; what is: {served}"
        yield FieldFault("composition.method", FieldReason.COMPOSITION, message)
    count = len(target.adapters)
    if not 1 <= count <= MAX_PARTS:
        message = f"{count} adapters were named; a composition has 1 to {MAX_PARTS}"
        yield FieldFault("composition.adapters", FieldReason.COMPOSITION, message)
    seen: dict[str, int] = {}
    for index, part in enumerate(target.adapters[: MAX_PARTS + 1]):
        path = f"composition.adapters[{index}]"
        yield from ref_faults(f"{path}.ref", part.ref)
        if not (math.isfinite(part.weight) and abs(part.weight) <= MAX_WEIGHT):
            message = f"{part.weight:g} is not a finite number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            yield FieldFault(f"{path}.weight", FieldReason.COMPOSITION, message)
        if part.ref in seen:
            message = f"{shown(part.ref)} is already composition.adapters[{seen[part.ref]}]; name it once"
            yield FieldFault(f"{path}.ref", FieldReason.COMPOSITION, message)
        seen.setdefault(part.ref, index)
    yield from _parameter_faults(target)


def _parameter_faults(target: CompositionTarget) -> Iterator[FieldFault]:
    """Parameters that the method does not have, does not get, or cannot use."""
    takes = PARAMETERS_OF.get(target.method, frozenset(_PARAMETERS))
    for name in _PARAMETERS:
        value, field = getattr(target, name), f"composition.{name}"
        if value is not None and name not in takes:
            message = f"method {target.method} has no {name}; leave it out"
            yield FieldFault(field, FieldReason.COMPOSITION, message)
        elif value is None and name in takes & _NEEDED and target.method in PARAMETERS_OF:
            message = f"method {target.method} needs a {name}, {_RANGES[name]}"
            yield FieldFault(field, FieldReason.COMPOSITION, message)
        elif value is not None and name in _RANGES and not _RANGES[name].holds(value):
            yield FieldFault(field, FieldReason.COMPOSITION, f"{value:g} is not {_RANGES[name]}")
    if target.majority_sign is not None and target.majority_sign not in MAJORITY_SIGNS:
        message = f"{target.majority_sign} is not known; expected {' or '.join(MAJORITY_SIGNS)}"
        yield FieldFault("composition.majority_sign", FieldReason.COMPOSITION, message)


def ref_faults(field: str, ref: str) -> Iterator[FieldFault]:
    """The fault of a ref that cannot be read, under the name of its field."""
    try:
        AdapterRef.parse(ref)
    except RefSyntax as error:
        yield FieldFault(field, FieldReason.REF_SYNTAX, str(error))
