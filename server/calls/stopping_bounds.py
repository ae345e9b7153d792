"""What may end an answer, and what it may be made to look like."""

from __future__ import annotations

from collections.abc import Iterator

from switchyard.server.calls.draft import RequestDraft, StoppingDraft
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.calls.parameters import (
    MAX_CHOICE_BYTES,
    MAX_CHOICES,
    MAX_STOP_BYTES,
    MAX_STOP_TOKENS,
    MAX_STOPS,
    MAX_STRUCTURE_BYTES,
)
from switchyard.server.calls.sampling_bounds import outside_vocabulary
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.errors import FieldFault


def stopping_faults(draft: StoppingDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    """Every fault of when the answer is to end."""
    context = limits.max_context_tokens
    if draft.max_tokens is not None and not 1 <= draft.max_tokens <= context:
        message = f"{draft.max_tokens} is not from 1 to {context}, the context of this server"
        yield FieldFault("stopping.max_tokens", FieldReason.LIMIT, message)
    if len(draft.stop) > MAX_STOPS:
        yield FieldFault("stopping.stop", FieldReason.LIMIT, f"{len(draft.stop)} strings; at most {MAX_STOPS}")
    for index, stop in enumerate(draft.stop[:MAX_STOPS]):
        size_bytes = _size(stop)
        if not 1 <= size_bytes <= MAX_STOP_BYTES:
            message = f"{size_bytes} bytes; a stop string has 1 to {MAX_STOP_BYTES}"
            yield FieldFault(f"stopping.stop[{index}]", FieldReason.STOP, message)
    longest = draft.max_tokens if draft.max_tokens is not None else context
    if draft.min_tokens is not None and not 0 <= draft.min_tokens <= longest:
        name = "max_tokens" if draft.max_tokens is not None else "the context of this server"
        message = f"{draft.min_tokens} is not from 0 to {longest}, {name}"
        yield FieldFault("stopping.min_tokens", FieldReason.LIMIT, message)
    if len(draft.stop_token_ids) > MAX_STOP_TOKENS:
        message = f"{len(draft.stop_token_ids)} tokens; at most {MAX_STOP_TOKENS}"
        yield FieldFault("stopping.stop_token_ids", FieldReason.LIMIT, message)
        return
    yield from outside_vocabulary("stopping.stop_token_ids", draft.stop_token_ids, limits)


def structure_faults(draft: RequestDraft) -> Iterator[FieldFault]:
    """Every fault of the structure that shows before it is compiled."""
    structure = draft.structure
    if structure is None:
        return
    if draft.stopping.ignore_eos:
        message = "an answer with a structure ends with the end-of-sequence token; leave ignore_eos out"
        yield FieldFault("stopping.ignore_eos", FieldReason.STRUCTURE, message)
    if not structure.texts:
        message = "nothing was said; set one of json_schema, regex, grammar and choices, or leave it out"
        yield FieldFault("structure", FieldReason.STRUCTURE, message)
        return
    if structure.kind is StructureKind.CHOICES:
        yield from _choice_faults(structure)
        return
    size_bytes = sum(_size(text) for text in structure.texts)
    if not 1 <= size_bytes <= MAX_STRUCTURE_BYTES:
        message = f"{size_bytes} bytes; 1 to {MAX_STRUCTURE_BYTES} are compiled"
        yield FieldFault(f"structure.{structure.kind}", FieldReason.STRUCTURE, message)


def _choice_faults(structure: Structure) -> Iterator[FieldFault]:
    texts = structure.texts
    if len(texts) > MAX_CHOICES:
        message = f"{len(texts)} choices; at most {MAX_CHOICES}"
        yield FieldFault("structure.choices", FieldReason.STRUCTURE, message)
    first_at: dict[str, int] = {}
    for index, text in enumerate(texts[:MAX_CHOICES]):
        field, size_bytes = f"structure.choices.texts[{index}]", _size(text)
        if not 1 <= size_bytes <= MAX_CHOICE_BYTES:
            message = f"{size_bytes} bytes; a choice has 1 to {MAX_CHOICE_BYTES}"
            yield FieldFault(field, FieldReason.STRUCTURE, message)
        if text in first_at:
            message = f"the same as texts[{first_at[text]}]; give each choice once"
            yield FieldFault(field, FieldReason.STRUCTURE, message)
        first_at.setdefault(text, index)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
