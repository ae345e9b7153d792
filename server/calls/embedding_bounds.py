"""What the fields of a request for vectors may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from switchyard.server.calls.bounds import field_faults, text_faults, token_faults
from switchyard.server.calls.draft import EmbeddingDraft, RequestDraft
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.engine.pooling import Pooling
from switchyard.server.errors import FieldFault

MAX_INPUTS: Final = 2048
MAX_VALUES: Final = 1_000_000
"""Numbers in all vectors of one request: they have to fit one message of 4 MiB."""

POOLINGS: Final = {pooling.value: pooling for pooling in Pooling}


def embedding_faults(draft: EmbeddingDraft, limits: FieldLimits, width: int) -> tuple[FieldFault, ...]:
    """Every fault of the draft, in field order.

    Args:
        draft: what was asked.
        limits: those of this server.
        width: numbers in a vector.
    """
    common = RequestDraft(
        draft.target,
        prompt_tokens=(0,),
        priority=draft.priority,
        request_id=draft.request_id,
        session_key=draft.session_key,
    )
    return (*field_faults(common, limits), *_input_faults(draft, limits, width), *_vector_faults(draft, width))


def _input_faults(draft: EmbeddingDraft, limits: FieldLimits, width: int) -> Iterator[FieldFault]:
    count, most = len(draft.inputs), min(MAX_INPUTS, MAX_VALUES // width)
    if not count:
        yield FieldFault("inputs", FieldReason.PROMPT_EMPTY, "no text; send at least one")
    if count > most:
        message = f"{count} inputs; at most {most} in one request, as vectors have {width} numbers"
        yield FieldFault("inputs", FieldReason.LIMIT, message)
        return
    for index, one in enumerate(draft.inputs):
        field = f"inputs[{index}]"
        if isinstance(one, tuple):
            yield from token_faults(field, one, limits)
        elif not one:
            yield FieldFault(field, FieldReason.PROMPT_EMPTY, "the text is empty; send text or token ids")
        else:
            yield from text_faults(field, one, limits)


def _vector_faults(draft: EmbeddingDraft, width: int) -> Iterator[FieldFault]:
    if draft.pooling is not None and draft.pooling not in POOLINGS:
        message = f"{draft.pooling} is none of {', '.join(POOLINGS)}"
        yield FieldFault("pooling", FieldReason.UNSUPPORTED, message)
    if draft.dimensions is not None and draft.dimensions != width:
        message = (
            f"{draft.dimensions} is not {width}, the width of this model's vectors, and nothing says that "
            "parts of them mean anything; leave it out"
        )
        yield FieldFault("dimensions", FieldReason.UNSUPPORTED, message)
