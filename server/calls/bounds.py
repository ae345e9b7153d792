"""What each field of a generation request may be.

Pure: a draft goes in, every fault comes out. Nothing is clamped and nothing is
ignored; a value out of range is an error that says the range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from switchyard.registry.verdicts import shown
from switchyard.server.calls.composition_bounds import composition_faults, ref_faults
from switchyard.server.calls.conversation_bounds import conversation_faults
from switchyard.server.calls.draft import AdapterTarget, CompositionTarget, RequestDraft
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.calls.parameters import RANGES
from switchyard.server.calls.sampling_bounds import outside_vocabulary, sampling_faults
from switchyard.server.calls.stopping_bounds import stopping_faults, structure_faults
from switchyard.server.errors import FieldFault

MAX_SESSION_KEY_CHARACTERS = 256

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z")
"""Ids that can be logged, shown and sent as they are."""


def field_faults(draft: RequestDraft, limits: FieldLimits) -> tuple[FieldFault, ...]:
    """Every fault of the draft, in field order."""
    return (
        *_target_faults(draft),
        *_prompt_faults(draft, limits),
        *conversation_faults(draft, limits),
        *sampling_faults(draft.sampling, limits),
        *stopping_faults(draft.stopping, limits),
        *structure_faults(draft),
        *_priority_faults(draft.priority),
        *_request_id_faults(draft.request_id),
        *_session_key_faults(draft.session_key),
    )


def _target_faults(draft: RequestDraft) -> Iterator[FieldFault]:
    target = draft.target
    if target is None:
        message = "nobody was asked; set one of base, adapter or composition"
        yield FieldFault("target", FieldReason.TARGET_REQUIRED, message)
    elif isinstance(target, AdapterTarget):
        yield from ref_faults("adapter", target.ref)
    elif isinstance(target, CompositionTarget):
        yield from composition_faults(target)


def _prompt_faults(draft: RequestDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    if draft.conversation is not None:
        return
    if draft.prompt_tokens is not None:
        yield from token_faults("prompt_tokens", draft.prompt_tokens, limits)
    elif not draft.prompt:
        message = "the prompt is empty; send text in `prompt` or ids in `prompt_tokens`"
        yield FieldFault("prompt", FieldReason.PROMPT_EMPTY, message)
    else:
        yield from text_faults("prompt", draft.prompt, limits)


def text_faults(field: str, text: str, limits: FieldLimits) -> Iterator[FieldFault]:
    """The fault of a text that is too large to be tokenised."""
    if (size_bytes := len(text.encode("utf-8", "surrogatepass"))) > limits.max_prompt_bytes:
        message = f"{size_bytes} bytes; at most {limits.max_prompt_bytes} are tokenised"
        yield FieldFault(field, FieldReason.PROMPT_BYTES, message)


def token_faults(field: str, ids: tuple[int, ...], limits: FieldLimits) -> Iterator[FieldFault]:
    """Every fault of token ids that stand for a prompt."""
    if not ids:
        yield FieldFault(field, FieldReason.PROMPT_EMPTY, "no token ids; send at least one")
    if len(ids) > limits.max_context_tokens:
        message = f"{len(ids)} tokens; the context of this server holds {limits.max_context_tokens}; send fewer"
        yield FieldFault(field, FieldReason.CONTEXT_LENGTH, message)
        return
    yield from outside_vocabulary(field, ids, limits)


def _priority_faults(priority: int | None) -> Iterator[FieldFault]:
    if priority is not None and not RANGES["priority"].holds(priority):
        yield FieldFault("priority", FieldReason.LIMIT, f"{priority} is not {RANGES['priority']}")


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
