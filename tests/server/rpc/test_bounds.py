"""Bounds against an oracle that says yes or no without saying why."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.refs import AdapterRef
from switchyard.server.rpc.bounds import FieldLimits, FieldReason, field_faults
from switchyard.server.rpc.draft import (
    AdapterTarget,
    BaseTarget,
    CompositionTarget,
    RequestDraft,
    WeightedRef,
)

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
drafts = st.builds(
    RequestDraft,
    target=targets,
    prompt=st.one_of(st.none(), st.text(max_size=40)),
    prompt_tokens=st.one_of(st.none(), st.lists(st.integers(-1, 60), max_size=5).map(tuple)),
    temperature=st.one_of(st.none(), numbers),
    top_p=st.one_of(st.none(), numbers),
    top_k=st.one_of(st.none(), st.integers(-3, 3)),
    seed=st.one_of(st.none(), st.integers(-1, 1 << 64)),
    max_tokens=st.one_of(st.none(), st.integers(-1, 70)),
    stop=st.lists(st.text(max_size=3), max_size=18).map(tuple),
    request_id=st.one_of(st.just(""), st.text(max_size=3)),
)


def parses(ref: str) -> bool:
    try:
        AdapterRef.parse(ref)
    except Exception:
        return False
    return True


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
    sampling_fine = (
        (draft.temperature is None or draft.temperature == 0 or 0.001 <= draft.temperature <= 100)
        and (draft.top_p is None or 0 < draft.top_p <= 1)
        and (draft.top_k is None or draft.top_k >= 0)
        and (draft.seed is None or 0 <= draft.seed < 1 << 64)
    )
    stopping_fine = (draft.max_tokens is None or 1 <= draft.max_tokens <= 64) and (
        len(draft.stop) <= 16 and all(1 <= len(stop.encode()) <= 256 for stop in draft.stop)
    )
    id_fine = draft.request_id == "" or (
        draft.request_id.isascii()
        and draft.request_id[0].isalnum()
        and all(letter.isalnum() or letter in "._:/-" for letter in draft.request_id)
    )
    return target_fine and prompt_fine and sampling_fine and stopping_fine and id_fine


@given(drafts)
def test_a_draft_has_faults_exactly_when_something_is_wrong(draft: RequestDraft) -> None:
    faults = field_faults(draft, LIMITS)
    assert bool(faults) == (not is_fine(draft)), faults
    assert all(fault.reason in FieldReason and fault.message and fault.field for fault in faults)


@given(drafts)
def test_one_field_put_right_removes_its_own_faults_only(draft: RequestDraft) -> None:
    from dataclasses import replace

    before = field_faults(draft, LIMITS)
    after = field_faults(replace(draft, temperature=None, stop=()), LIMITS)
    gone = ("sampling.temperature", "stopping.stop")
    assert after == tuple(fault for fault in before if not fault.field.startswith(gone))
