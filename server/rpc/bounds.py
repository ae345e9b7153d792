"""What each field of a generation request may be.

Pure: a draft goes in, every fault comes out. Nothing is clamped and nothing is
ignored; a value out of range is an error that says the range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from switchyard.registry.errors import RefSyntax
from switchyard.registry.refs import AdapterRef
from switchyard.registry.verdicts import shown
from switchyard.server.adapters.composition import METHOD_SUM
from switchyard.server.errors import FieldFault
from switchyard.server.rpc.draft import AdapterTarget, CompositionTarget, RequestDraft

MIN_TEMPERATURE = 0.001
"""Smallest temperature above zero; below it logits divided by it overflow float32 for no visible effect."""

MAX_TEMPERATURE = 100.0
MAX_STOPS = 16
MAX_STOP_BYTES = 256
MAX_PARTS = 8
MAX_WEIGHT = 1000.0
"""Largest factor of an adapter in a composition; far beyond use, far from float32's overflow."""

MAX_SESSION_KEY_CHARACTERS = 256

MAX_SEED = (1 << 64) - 1


class FieldReason(StrEnum):
    """Why a field is refused; the value goes over the wire."""

    TARGET_REQUIRED = "TARGET_REQUIRED"
    REF_SYNTAX = "REF_SYNTAX"
    COMPOSITION = "COMPOSITION"
    PROMPT_EMPTY = "PROMPT_EMPTY"
    PROMPT_BYTES = "PROMPT_BYTES"
    TOKEN_ID = "TOKEN_ID"  # noqa: S105 - a token of text, not a password
    SAMPLING_RANGE = "SAMPLING_RANGE"
    STOP = "STOP"
    LIMIT = "LIMIT"
    REQUEST_ID = "REQUEST_ID"
    SESSION_KEY = "SESSION_KEY"
    ENCODING = "ENCODING"


FIELD_MEANINGS = {
    FieldReason.TARGET_REQUIRED: "nobody was asked: neither base, adapter nor composition",
    FieldReason.REF_SYNTAX: "a ref that is none of `ns/name@alias`, `ns/name:7`, `ns/name@sha256:...`",
    FieldReason.COMPOSITION: "number of adapters, a weight, a repeated adapter, or the method",
    FieldReason.PROMPT_EMPTY: "no text and no token ids",
    FieldReason.PROMPT_BYTES: "text larger than is tokenised at all",
    FieldReason.TOKEN_ID: "token ids outside the vocabulary",
    FieldReason.SAMPLING_RANGE: "temperature, top_p, top_k or seed out of range or not a number",
    FieldReason.STOP: "a stop string that is empty or too long",
    FieldReason.LIMIT: "a count out of range: max_tokens, stop strings, page size, grace",
    FieldReason.REQUEST_ID: "an id with other characters or too long",
    FieldReason.SESSION_KEY: "a session key that is too long or not printable",
    FieldReason.ENCODING: "bytes that are not the message, or text that is not UTF-8",
}
"""One line per reason, for the documentation."""

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z")
"""Ids that can be logged, shown and sent as they are."""


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Limits that depend on the server.

    Attributes:
        max_context_tokens: tokens that prompt and answer may have together.
        max_prompt_bytes: largest prompt text that is tokenised at all, in UTF-8 bytes.
        vocab_size: token ids are below it.
    """

    max_context_tokens: int
    max_prompt_bytes: int
    vocab_size: int


def field_faults(draft: RequestDraft, limits: FieldLimits) -> tuple[FieldFault, ...]:
    """Every fault of the draft, in field order."""
    return (
        *_target_faults(draft),
        *_prompt_faults(draft, limits),
        *_sampling_faults(draft),
        *_stopping_faults(draft, limits),
        *_request_id_faults(draft.request_id),
        *_session_key_faults(draft.session_key),
    )


def _target_faults(draft: RequestDraft) -> Iterator[FieldFault]:
    target = draft.target
    if target is None:
        message = "nobody was asked; set one of base, adapter or composition"
        yield FieldFault("target", FieldReason.TARGET_REQUIRED, message)
    elif isinstance(target, AdapterTarget):
        yield from _ref_faults("adapter", target.ref)
    elif isinstance(target, CompositionTarget):
        yield from _composition_faults(target)


def _composition_faults(target: CompositionTarget) -> Iterator[FieldFault]:
    if target.method != METHOD_SUM:
        message = f"method {target.method} is not known; the one method is `{METHOD_SUM}`"
        yield FieldFault("composition.method", FieldReason.COMPOSITION, message)
    count = len(target.adapters)
    if not 1 <= count <= MAX_PARTS:
        message = f"{count} adapters were named; a composition has 1 to {MAX_PARTS}"
        yield FieldFault("composition.adapters", FieldReason.COMPOSITION, message)
    seen: dict[str, int] = {}
    for index, part in enumerate(target.adapters[: MAX_PARTS + 1]):
        path = f"composition.adapters[{index}]"
        yield from _ref_faults(f"{path}.ref", part.ref)
        if not (math.isfinite(part.weight) and abs(part.weight) <= MAX_WEIGHT):
            message = f"{part.weight:g} is not a finite number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            yield FieldFault(f"{path}.weight", FieldReason.COMPOSITION, message)
        if part.ref in seen:
            message = f"{shown(part.ref)} is already composition.adapters[{seen[part.ref]}]; name it once"
            yield FieldFault(f"{path}.ref", FieldReason.COMPOSITION, message)
        seen.setdefault(part.ref, index)


def _ref_faults(field: str, ref: str) -> Iterator[FieldFault]:
    try:
        AdapterRef.parse(ref)
    except RefSyntax as error:
        yield FieldFault(field, FieldReason.REF_SYNTAX, str(error))


def _prompt_faults(draft: RequestDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    if draft.prompt_tokens is not None:
        yield from _token_faults(draft.prompt_tokens, limits)
    elif not draft.prompt:
        message = "the prompt is empty; send text in `prompt` or ids in `prompt_tokens`"
        yield FieldFault("prompt", FieldReason.PROMPT_EMPTY, message)
    elif (size_bytes := len(draft.prompt.encode("utf-8", "surrogatepass"))) > limits.max_prompt_bytes:
        message = f"{size_bytes} bytes; at most {limits.max_prompt_bytes} are tokenised"
        yield FieldFault("prompt", FieldReason.PROMPT_BYTES, message)


def _token_faults(ids: tuple[int, ...], limits: FieldLimits) -> Iterator[FieldFault]:
    if not ids:
        yield FieldFault("prompt_tokens", FieldReason.PROMPT_EMPTY, "no token ids; send at least one")
    outside = [(index, token) for index, token in enumerate(ids) if not 0 <= token < limits.vocab_size]
    if outside:
        index, token = outside[0]
        message = (
            f"{len(outside)} of {len(ids)} ids are outside 0..{limits.vocab_size - 1}; "
            f"the first is {token} at position {index}"
        )
        yield FieldFault("prompt_tokens", FieldReason.TOKEN_ID, message)


def _sampling_faults(draft: RequestDraft) -> Iterator[FieldFault]:
    temperature, top_p, top_k, seed = draft.temperature, draft.top_p, draft.top_k, draft.seed
    if temperature is not None and not (temperature == 0.0 or MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE):
        message = f"{temperature:g} is neither 0 (greedy) nor from {MIN_TEMPERATURE} to {MAX_TEMPERATURE:g}"
        yield FieldFault("sampling.temperature", FieldReason.SAMPLING_RANGE, message)
    if top_p is not None and not 0.0 < top_p <= 1.0:
        message = f"{top_p:g} is not above 0 and at most 1"
        yield FieldFault("sampling.top_p", FieldReason.SAMPLING_RANGE, message)
    if top_k is not None and top_k < 0:
        yield FieldFault("sampling.top_k", FieldReason.SAMPLING_RANGE, f"{top_k} is negative; 0 keeps all tokens")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        yield FieldFault("sampling.seed", FieldReason.SAMPLING_RANGE, f"{seed} is not from 0 to {MAX_SEED}")


def _stopping_faults(draft: RequestDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    if draft.max_tokens is not None and not 1 <= draft.max_tokens <= limits.max_context_tokens:
        message = f"{draft.max_tokens} is not from 1 to {limits.max_context_tokens}, the context of this server"
        yield FieldFault("stopping.max_tokens", FieldReason.LIMIT, message)
    if len(draft.stop) > MAX_STOPS:
        yield FieldFault("stopping.stop", FieldReason.LIMIT, f"{len(draft.stop)} strings; at most {MAX_STOPS}")
    for index, stop in enumerate(draft.stop[:MAX_STOPS]):
        size_bytes = len(stop.encode("utf-8", "surrogatepass"))
        if not 1 <= size_bytes <= MAX_STOP_BYTES:
            message = f"{size_bytes} bytes; a stop string has 1 to {MAX_STOP_BYTES}"
            yield FieldFault(f"stopping.stop[{index}]", FieldReason.STOP, message)


def _request_id_faults(request_id: str) -> Iterator[FieldFault]:
    if request_id and REQUEST_ID.match(request_id) is None:
        message = (
            f"{shown(request_id)} is not an id: 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':', '/', '-', "
            "beginning with a letter or digit; leave it empty to get one"
        )
        yield FieldFault("request_id", FieldReason.REQUEST_ID, message)


def _session_key_faults(session_key: str) -> Iterator[FieldFault]:
    if len(session_key) > MAX_SESSION_KEY_CHARACTERS or not session_key.isprintable():
        message = f"{len(session_key)} characters; expected at most {MAX_SESSION_KEY_CHARACTERS}, all printable"
        yield FieldFault("session_key", FieldReason.SESSION_KEY, message)
