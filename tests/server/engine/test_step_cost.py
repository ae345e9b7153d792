"""Prompts beside answers under way: they take a share of a step's time, and they always go on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_engine import Bench, finished, tokens

from switchyard.server.engine.step_cost import StepCost
from switchyard.server.engine.types import StepPlan
from switchyard.server.engine.wait_reason import WaitReason


def seconds(plan: StepPlan) -> float:
    """A step of these tests: 16 ms for decodes, however many, and 1 ms for each token of a prompt."""
    return 0.016 * (plan.decodes > 0) + 0.001 * (plan.tokens - plan.decodes)


def test_nothing_is_bounded_before_it_is_measured_and_nobody_waits_for_a_step_without_decodes() -> None:
    cost = StepCost()
    assert cost.prefill_tokens_beside(4, 1, 0.5) is None
    cost.ran(4, 0, 0.02)
    assert cost.prefill_tokens_beside(4, 1, 0.5) is None, "what a prompt takes is not known yet"
    cost.ran(0, 100, 0.1)
    assert cost.prefill_tokens_beside(4, 1, 0.5) == 20
    assert cost.prefill_tokens_beside(4, 1, 0.75) == 60
    assert cost.prefill_tokens_beside(4, 1, 1.0) is None
    assert cost.prefill_tokens_beside(0, 1, 0.5) is None


def test_a_batch_of_unknown_size_costs_what_the_nearest_known_does() -> None:
    cost = StepCost()
    cost.ran(0, 10, 0.01)
    cost.ran(2, 0, 0.002)
    cost.ran(8, 0, 0.008)
    assert cost.prefill_tokens_beside(3, 1, 0.5) == 2
    assert cost.prefill_tokens_beside(7, 1, 0.5) == 8
    assert cost.prefill_tokens_beside(5, 1, 0.5) == 2, "of two as near the smaller, which stretches the step less"


def test_a_mixed_step_tells_what_its_prompts_took_beside_its_decodes() -> None:
    cost = StepCost()
    cost.ran(4, 0, 0.02)
    cost.ran(4, 10, 0.04)
    assert cost.prefill_tokens_beside(4, 1, 0.5) == 10
    cost.ran(4, 10, 0.015)
    assert cost.prefill_tokens_beside(4, 1, 0.5) == 12, (
        "a step faster than its decodes alone costs nothing, and no less"
    )


def test_a_few_streams_do_not_hold_up_a_crowd() -> None:
    cost = StepCost()
    cost.ran(0, 10, 0.01)
    cost.ran(2, 0, 0.02)
    assert [cost.prefill_tokens_beside(2, crowd, 0.5) for crowd in (1, 2, 3, 20)] == [20, 20, 30, 200]


def test_one_slow_step_moves_the_average_by_a_fifth() -> None:
    cost = StepCost()
    cost.ran(0, 10, 0.01)
    cost.ran(1, 0, 0.01)
    cost.ran(1, 0, 0.06)
    assert cost.prefill_tokens_beside(1, 1, 0.5) == 20


def first(plans: list[StepPlan], *, prompts: bool) -> int:
    """The first step with prompts, or without, once steps without are known."""
    seen = False
    for number, plan in enumerate(plans):
        if plan.tokens == plan.decodes:
            seen = True
            if not prompts:
                return number
        elif prompts and (seen or not plan.decodes):
            return number
    return len(plans)


def times_decodes(plan: StepPlan, share: float) -> float:
    """What prompts may take, in times of what the decodes take."""
    decoding = sum(piece.start >= len(piece.prompt) for piece in plan.slices)
    left_out = sum(reason is WaitReason.STEP_BUDGET for reason in plan.waiting.values())
    heads = len(plan.slices) - decoding + left_out
    return max(share / (1 - share), heads / decoding) if decoding else math.inf


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 8), st.integers(0, 3)), min_size=1, max_size=8))
def test_steps_beside_decodes_keep_to_the_share_and_every_prompt_ends(
    share: float, asked: list[tuple[int, int, int]]
) -> None:
    bench = Bench(sequences=6, chunk=16, context=64, queue=20, share=share)
    bench.runner.cost_s = seconds
    sinks = []
    for number, (prompt, most, pause) in enumerate(asked):
        sinks.append(bench.submit(f"r{number}", prompt=prompt, max_tokens=most))
        bench.run(steps=pause)
    bench.run(steps=2000)
    bench.assert_at_rest()
    plans = bench.runner.plans
    learned = max(first(plans, prompts=True), first(plans, prompts=False))
    for plan in plans[learned + 1 :]:
        times = times_decodes(plan, share)
        prefills = [len(piece.tokens) for piece in plan.slices if len(piece.tokens) > 1]
        if plan.decodes and len(prefills) > 1:
            assert sum(prefills) <= times * 16
        elif plan.decodes and prefills:
            assert prefills[0] <= max(4, times * 16)
    for sink, (_, most, _) in zip(sinks, asked, strict=True):
        assert len(tokens(sink)) == most
        finished(sink)


def test_the_share_changes_when_answers_come_and_never_what_they_say() -> None:
    said = []
    for share in (1.0, 0.5):
        bench = Bench(sequences=4, chunk=16, context=64, share=share)
        bench.runner.cost_s = seconds
        sinks = [bench.submit(name, prompt=3, max_tokens=20) for name in ("first", "second")]
        bench.run(steps=4)
        sinks += [bench.submit(name, prompt=30, max_tokens=5) for name in ("a", "b")]
        bench.run()
        said.append([tokens(sink) for sink in sinks])
        longest = max(plan.tokens - plan.decodes for plan in bench.runner.plans[4:])
        assert longest == (18 if share == 1.0 else 16)
    assert said[0] == said[1]
