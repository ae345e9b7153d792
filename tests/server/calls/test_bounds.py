"""Bounds against an oracle that says yes or no without saying why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.refs import AdapterRef
from switchyard.server.calls.bounds import field_faults
from switchyard.server.calls.draft import (
    AdapterTarget,
    BaseTarget,
    CompositionTarget,
    RequestDraft,
    SamplingDraft,
    StoppingDraft,
    WeightedRef,
)
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.engine.structure import Structure, StructureKind

LIMITS = FieldLimits(max_context_tokens=64, max_prompt_bytes=100, vocab_size=50)

numbers = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 0.001, 1.0, 100.0, math.nan]))
refs = st.sampled_from(["a:1", "a@prod", "b/c:2", "a", "../x@y", "", "a:0", "sha256:00"])
targets = st.one_of(
    st.none(),
    st.just(BaseTarget()),
    st.builds(AdapterTarget, refs),
    st.builds(
        CompositionTarget,
        st.lists(st.builds(WeightedRef, refs, numbers), max_size=10).map(tuple),
        st.sampled_from(["sum", "ties"]),
    ),
)
ids = st.lists(st.integers(-1, 52), max_size=3).map(tuple)
counts = st.one_of(st.none(), st.integers(-1, 22))
samplings = st.builds(
    SamplingDraft,
    temperature=st.one_of(st.none(), numbers),
    top_p=st.one_of(st.none(), numbers),
    top_k=st.one_of(st.none(), st.integers(-3, 3)),
    seed=st.one_of(st.none(), st.integers(-1, 1 << 64)),
    min_p=st.one_of(st.none(), numbers),
    typical_p=st.one_of(st.none(), numbers),
    repetition_penalty=st.one_of(st.none(), numbers),
    presence_penalty=st.one_of(st.none(), numbers),
    frequency_penalty=st.one_of(st.none(), numbers),
    n=counts,
    best_of=counts,
    logprobs=counts,
    prompt_logprobs=counts,
    logit_bias=st.dictionaries(st.integers(-1, 52), numbers, max_size=3),
    allowed_token_ids=ids,
    banned_token_ids=ids,
)
stoppings = st.builds(
    StoppingDraft,
    max_tokens=st.one_of(st.none(), st.integers(-1, 70)),
    min_tokens=st.one_of(st.none(), st.integers(-1, 70)),
    stop=st.lists(st.text(max_size=3), max_size=18).map(tuple),
    stop_token_ids=ids,
    ignore_eos=st.booleans(),
)
structures = st.one_of(
    st.none(),
    st.builds(
        Structure,
        st.sampled_from(StructureKind),
        st.one_of(st.just(()), st.tuples(st.sampled_from(["", "a", "a" * 1025, "a" * 65537]))),
    ),
    st.builds(Structure, st.just(StructureKind.CHOICES), st.lists(st.sampled_from(["", "a", "b"])).map(tuple)),
)
drafts = st.builds(
    RequestDraft,
    target=targets,
    prompt=st.one_of(st.none(), st.text(max_size=40)),
    prompt_tokens=st.one_of(st.none(), st.lists(st.integers(-1, 60), max_size=5).map(tuple)),
    sampling=samplings,
    stopping=stoppings,
    structure=structures,
    priority=st.one_of(st.none(), st.sampled_from([-101, -100, 0, 100, 101])),
    request_id=st.one_of(st.just(""), st.text(max_size=3)),
)


def parses(ref: str) -> bool:
    try:
        AdapterRef.parse(ref)
    except Exception:
        return False
    return True


def between(value: float | None, low: float, high: float) -> bool:
    return value is None or low <= value <= high


def tokens(ids: Iterable[int]) -> bool:
    return all(0 <= token < 50 for token in ids)


def sampling_is_fine(draft: SamplingDraft) -> bool:
    numbers_fine = (
        (draft.temperature is None or draft.temperature == 0 or 0.001 <= draft.temperature <= 100)
        and (draft.top_p is None or 0 < draft.top_p <= 1)
        and (draft.typical_p is None or 0 < draft.typical_p <= 1)
        and between(draft.min_p, 0, 1)
        and (draft.repetition_penalty is None or 0 < draft.repetition_penalty <= 10)
        and between(draft.presence_penalty, -10, 10)
        and between(draft.frequency_penalty, -10, 10)
        and (draft.top_k is None or draft.top_k >= 0)
        and (draft.seed is None or 0 <= draft.seed < 1 << 64)
    )
    counts_fine = between(draft.n, 1, 16) and between(draft.best_of, 1, 16)
    logprobs_fine = between(draft.logprobs, 0, 20) and between(draft.prompt_logprobs, 0, 20)
    n = 1 if draft.n is None else draft.n
    made = n if draft.best_of is None else draft.best_of
    answers_fine = made >= n and (max(made, n) <= 1 or bool(draft.temperature))
    biases_fine = tokens(draft.logit_bias) and all(-100 <= bias <= 100 for bias in draft.logit_bias.values())
    lists_fine = tokens(draft.allowed_token_ids) and tokens(draft.banned_token_ids)
    some_left = not draft.allowed_token_ids or bool(set(draft.allowed_token_ids) - set(draft.banned_token_ids))
    return all([numbers_fine, counts_fine, logprobs_fine, answers_fine, biases_fine, lists_fine, some_left])


def stopping_is_fine(draft: StoppingDraft) -> bool:
    longest = 64 if draft.max_tokens is None else draft.max_tokens
    return (
        between(draft.max_tokens, 1, 64)
        and (draft.min_tokens is None or 0 <= draft.min_tokens <= longest)
        and len(draft.stop) <= 16
        and all(1 <= len(stop.encode()) <= 256 for stop in draft.stop)
        and tokens(draft.stop_token_ids)
    )


def structure_is_fine(structure: Structure | None) -> bool:
    if structure is None:
        return True
    most = 1024 if structure.kind is StructureKind.CHOICES else 65536
    return (
        bool(structure.texts)
        and len(set(structure.texts)) == len(structure.texts) <= 256
        and all(1 <= len(text) <= most for text in structure.texts)
    )


def is_fine(draft: RequestDraft) -> bool:
    target = draft.target
    if isinstance(target, CompositionTarget):
        names = [part.ref for part in target.adapters]
        target_fine = (
            target.method == "sum"
            and 1 <= len(names) <= 8
            and len(set(names)) == len(names)
            and all(parses(name) for name in names)
            and all(-1000 <= part.weight <= 1000 for part in target.adapters)
        )
    else:
        target_fine = isinstance(target, BaseTarget) or (isinstance(target, AdapterTarget) and parses(target.ref))
    if draft.prompt_tokens is not None:
        prompt_fine = bool(draft.prompt_tokens) and all(0 <= token < 50 for token in draft.prompt_tokens)
    else:
        prompt_fine = bool(draft.prompt) and len((draft.prompt or "").encode()) <= 100
    id_fine = draft.request_id == "" or (
        draft.request_id.isascii()
        and draft.request_id[0].isalnum()
        and all(letter.isalnum() or letter in "._:/-" for letter in draft.request_id)
    )
    priority_fine = draft.priority is None or -100 <= draft.priority <= 100
    structure_fine = structure_is_fine(draft.structure) and not (draft.structure and draft.stopping.ignore_eos)
    return (
        target_fine
        and prompt_fine
        and sampling_is_fine(draft.sampling)
        and stopping_is_fine(draft.stopping)
        and structure_fine
        and priority_fine
        and id_fine
    )


@given(drafts)
def test_a_draft_has_faults_exactly_when_something_is_wrong(draft: RequestDraft) -> None:
    faults = field_faults(draft, LIMITS)
    assert bool(faults) == (not is_fine(draft)), faults
    assert all(fault.reason in FieldReason and fault.message and fault.field for fault in faults)


@given(drafts)
def test_one_field_put_right_removes_its_own_faults_only(draft: RequestDraft) -> None:
    from dataclasses import replace

    before = field_faults(draft, LIMITS)
    healed = replace(draft, sampling=replace(draft.sampling, min_p=None), stopping=replace(draft.stopping, stop=()))
    after = field_faults(healed, LIMITS)
    gone = ("sampling.min_p", "stopping.stop[")
    assert after == tuple(
        fault for fault in before if not fault.field.startswith(gone) and fault.field != "stopping.stop"
    )


class Unread(tuple[int, ...]):
    """Ids that may be counted and nothing else."""

    __slots__ = ()

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("the ids were walked through before they were counted")


@pytest.mark.parametrize(
    ("field", "most", "draft"),
    [
        ("prompt_tokens", 64, lambda ids: RequestDraft(BaseTarget(), None, ids)),
        (
            "sampling.allowed_token_ids",
            4096,
            lambda ids: RequestDraft(BaseTarget(), "a", sampling=SamplingDraft(allowed_token_ids=ids)),
        ),
        (
            "sampling.banned_token_ids",
            4096,
            lambda ids: RequestDraft(
                BaseTarget(), "a", sampling=SamplingDraft(allowed_token_ids=(1,), banned_token_ids=ids)
            ),
        ),
        (
            "stopping.stop_token_ids",
            64,
            lambda ids: RequestDraft(BaseTarget(), "a", stopping=StoppingDraft(stop_token_ids=ids)),
        ),
    ],
)
def test_a_list_that_is_too_long_is_not_read(
    field: str, most: int, draft: Callable[[tuple[int, ...]], RequestDraft]
) -> None:
    [fault] = field_faults(draft(Unread([99] * (most + 1))), LIMITS)
    assert fault.field == field
    assert str(most) in fault.message


def test_too_many_biases_are_not_sorted() -> None:
    biases = dict.fromkeys(range(1025), math.nan)
    faults = field_faults(RequestDraft(BaseTarget(), "a", sampling=SamplingDraft(logit_bias=biases)), LIMITS)
    assert [(fault.field, fault.reason) for fault in faults] == [("sampling.logit_bias", FieldReason.LIMIT)]
