"""What the fields of `sampling` may be, one by one and together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from switchyard.server.calls.draft import SAMPLING_NUMBERS, SamplingDraft
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.calls.parameters import MAX_BIAS, MAX_BIASES, MAX_LISTED_TOKENS, RANGES, Range
from switchyard.server.errors import FieldFault

_COUNTS = frozenset({"n", "best_of", "logprobs", "prompt_logprobs"})
"""Numbers that are amounts of work, not of chance."""


def sampling_faults(draft: SamplingDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    """Every fault of how tokens are to be chosen."""
    for name in SAMPLING_NUMBERS:
        value, range_ = getattr(draft, name), RANGES[f"sampling.{name}"]
        if value is not None and not range_.holds(value):
            reason = FieldReason.LIMIT if name in _COUNTS else FieldReason.SAMPLING_RANGE
            yield FieldFault(f"sampling.{name}", reason, f"{_shown(value)} is not {range_}")
    yield from _answer_faults(draft)
    yield from _bias_faults(draft, limits)
    yield from _listed_faults(draft, limits)


def outside_vocabulary(field: str, ids: Sequence[int], limits: FieldLimits) -> Iterator[FieldFault]:
    """The fault of ids that no token has."""
    outside = [(index, token) for index, token in enumerate(ids) if not 0 <= token < limits.vocab_size]
    if outside:
        index, token = outside[0]
        message = (
            f"{len(outside)} of {len(ids)} ids are outside 0..{limits.vocab_size - 1}; "
            f"the first is {token} at position {index}"
        )
        yield FieldFault(field, FieldReason.TOKEN_ID, message)


def _answer_faults(draft: SamplingDraft) -> Iterator[FieldFault]:
    n = draft.n if draft.n is not None else 1
    best_of = draft.best_of if draft.best_of is not None else n
    if best_of < n:
        message = f"{best_of} answers cannot contain the {n} best; make it at least n or leave it out"
        yield FieldFault("sampling.best_of", FieldReason.LIMIT, message)
    if max(n, best_of) > 1 and not draft.temperature:
        field = "sampling.n" if n > 1 else "sampling.best_of"
        message = "at temperature 0 every answer is the same; set a temperature or ask for one answer"
        yield FieldFault(field, FieldReason.LIMIT, message)


def _bias_faults(draft: SamplingDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    field, range_ = "sampling.logit_bias", Range(-MAX_BIAS, MAX_BIAS)
    if len(draft.logit_bias) > MAX_BIASES:
        yield FieldFault(field, FieldReason.LIMIT, f"{len(draft.logit_bias)} tokens; at most {MAX_BIASES}")
        return
    yield from outside_vocabulary(field, sorted(draft.logit_bias), limits)
    for token, bias in sorted(draft.logit_bias.items()):
        if not range_.holds(bias):
            yield FieldFault(f"{field}[{token}]", FieldReason.SAMPLING_RANGE, f"{bias:g} is not {range_}")
            return


def _listed_faults(draft: SamplingDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    for name, ids in (("allowed_token_ids", draft.allowed_token_ids), ("banned_token_ids", draft.banned_token_ids)):
        if len(ids) > MAX_LISTED_TOKENS:
            message = f"{len(ids)} tokens; at most {MAX_LISTED_TOKENS}"
            yield FieldFault(f"sampling.{name}", FieldReason.LIMIT, message)
        else:
            yield from outside_vocabulary(f"sampling.{name}", ids, limits)
    if max(len(draft.allowed_token_ids), len(draft.banned_token_ids)) > MAX_LISTED_TOKENS:
        return
    if draft.allowed_token_ids and set(draft.allowed_token_ids) <= set(draft.banned_token_ids):
        message = "every allowed token is also banned, so none can be chosen; take one out of a list"
        yield FieldFault("sampling.banned_token_ids", FieldReason.TOKEN_ID, message)


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
