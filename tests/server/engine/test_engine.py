"""The step loop on a fake runner: batching, events, cancellation, failure."""

from __future__ import annotations

import pytest
from fake_runner import LetterDecoder, ListSink, request
from stepped_engine import Bench, terminal, text

from switchyard.server.engine.groups import make_group
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, FinishReason
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import ContextLength, Draining, EngineFailed, QueueFull, RequestIdInUse


def test_answer_ends_at_max_tokens() -> None:
    bench = Bench()
    sink = bench.submit("a", max_tokens=3)
    bench.run()
    assert text(sink) == "abc"
    end = terminal(sink)
    assert isinstance(end, FinishedEvent)
    assert (end.reason, end.prompt_tokens, end.completion_tokens) == (FinishReason.LENGTH, 3, 3)


def test_eos_ends_the_answer_and_has_no_text() -> None:
    bench = Bench()
    bench.runner.choose = lambda _, index: 0 if index == 2 else 5
    sink = bench.submit("a", max_tokens=10)
    bench.run()
    end = terminal(sink)
    assert text(sink) == "ee"
    assert isinstance(end, FinishedEvent)
    assert end.reason is FinishReason.STOP


def test_ignore_eos_goes_on() -> None:
    bench = Bench()
    bench.runner.choose = lambda _, index: 0 if index == 2 else 5
    sink = bench.submit("a", max_tokens=5, ignore_eos=True)
    bench.run()
    assert isinstance(end := terminal(sink), FinishedEvent)
    assert end.completion_tokens == 5


def test_a_stop_token_ends_the_answer_and_has_no_text_even_past_eos() -> None:
    bench = Bench()
    sink = bench.submit("a", max_tokens=9, stop_token_ids=(3,), ignore_eos=True)
    bench.run()
    assert text(sink) == "ab"
    end = terminal(sink)
    assert isinstance(end, FinishedEvent)
    assert (end.reason, end.completion_tokens) == (FinishReason.STOP, 3)
    assert bench.runner.forgotten == ["a"]


def test_a_slice_shows_the_prompt_and_the_answer_so_far() -> None:
    bench = Bench()
    bench.submit("a", (7, 8), max_tokens=3)
    lengths = []
    while bench.engine.step().slices:
        piece = bench.runner.plans[-1].slices[0]
        lengths.append((piece.prompt, piece.sample_index, len(piece.output)))
    assert lengths == [((7, 8), 0, 1), ((7, 8), 1, 2), ((7, 8), 2, 3)], "live views, read here after the step"


def test_stop_string_across_tokens_is_cut_and_never_shown() -> None:
    bench = Bench()
    sink = bench.submit("a", max_tokens=10, stop=("cd",))
    bench.run()
    end = terminal(sink)
    assert text(sink) == "ab"
    assert isinstance(end, FinishedEvent)
    assert (end.reason, end.matched_stop) == (FinishReason.STOP, "cd")


def test_what_a_row_cannot_hold_is_refused_however_many_blocks_there_are() -> None:
    bench = Bench(context=64, blocks=64)
    for prompt, answer in ((60, 5), (65, 0)):
        with pytest.raises(ContextLength, match=rf"prompt has {prompt} tokens .* they may be 64 tokens"):
            bench.submit("a", prompt=prompt, max_tokens=answer)
    sink = bench.submit("a", prompt=60, max_tokens=4)
    bench.run()
    assert isinstance(end := terminal(sink), FinishedEvent)
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 4)


def test_base_and_adapters_share_a_step() -> None:
    bench = Bench(step_tokens=16)
    bench.pool.ready = {"x", "y"}
    sinks = [bench.submit(name, adapter=adapter) for name, adapter in (("a", None), ("b", "x"), ("c", "y"))]
    bench.run()
    assert any({piece.adapter_slot for piece in plan.slices} == {None, 0, 1} for plan in bench.runner.plans), (
        "one step must hold the base and both adapters"
    )
    assert all(isinstance(terminal(sink), FinishedEvent) for sink in sinks)
    assert bench.pool.pins == {"x": 0, "y": 0}


def test_cold_adapter_waits_aside() -> None:
    bench = Bench()
    cold = bench.submit("cold", adapter="x")
    warm = bench.submit("warm")
    bench.run()
    assert isinstance(terminal(warm), FinishedEvent)
    assert not cold.events
    assert bench.engine.step().waiting == {"cold": WaitReason.ADAPTER}
    assert bench.engine.why("cold") is WaitReason.ADAPTER
    assert bench.engine.load().waiting_for == {WaitReason.ADAPTER: 1}
    bench.clock.time_s = 5.0
    bench.pool.ready = {"x"}
    bench.run()
    end = terminal(cold)
    assert isinstance(end, FinishedEvent)
    assert end.timing.adapter_wait_s == pytest.approx(5.0)


def test_only_waiting_for_the_adapter_counts_as_that() -> None:
    (sequence,) = make_group(
        request("a", adapter="x"), ListSink(), LetterDecoder(), (), arrival=1, accepted_s=0.0
    ).sequences
    for now, reason in (
        (1.0, WaitReason.ADAPTER),
        (3.0, WaitReason.ADAPTER_SLOT),
        (6.0, WaitReason.ROW),
        (16.0, WaitReason.ADAPTER_SLOT),
    ):
        sequence.waits_for(reason, now)
    sequence.started(20.0)
    assert sequence.adapter_wait_s == pytest.approx(5.0 + 4.0)


def test_the_pool_is_told_which_adapters_waiting_requests_need() -> None:
    bench = Bench()
    bench.submit("cold", adapter="slow")
    bench.submit("gone", adapter="other")
    bench.submit("base")
    bench.engine.step()
    assert bench.pool.awaited == {"slow", "other"}
    bench.engine.abort("gone")
    bench.pool.ready.add("slow")
    bench.engine.step()
    assert bench.pool.awaited == {"slow"}, "it starts only now"
    bench.engine.step()
    assert bench.pool.awaited == frozenset()


def test_broken_adapter_fails_its_own_requests_only() -> None:
    bench = Bench()
    bench.pool.broken = {"x"}
    broken, fine = bench.submit("broken", adapter="x"), bench.submit("fine")
    bench.run()
    end = terminal(broken)
    assert isinstance(end, ErrorEvent)
    assert end.error.reason == "ADAPTER_UNAVAILABLE"
    assert isinstance(terminal(fine), FinishedEvent)


def test_prefill_chunks_end_at_fixed_positions() -> None:
    bench = Bench(chunk=4, step_tokens=8)
    bench.submit("long", prompt=10, max_tokens=2)
    bench.submit("other", prompt=6, max_tokens=2)
    bench.run()
    pieces = [s for plan in bench.runner.plans for s in plan.slices if s.request_id == "long"]
    assert [(s.start, len(s.tokens), s.sample) for s in pieces] == [
        (0, 4, False),
        (4, 4, False),
        (8, 2, True),
        (10, 1, True),
    ]


def test_token_budget_makes_prefills_take_turns_and_never_delays_decodes() -> None:
    bench = Bench(chunk=4, step_tokens=8)
    sinks = [bench.submit(name, prompt=12, max_tokens=6) for name in "abcd"]
    bench.run()
    for plan in bench.runner.plans:
        assert sum(len(piece.tokens) for piece in plan.slices) <= 8
    assert all(isinstance(terminal(sink), FinishedEvent) for sink in sinks)
    decodes = [
        (step, piece.request_id)
        for step, plan in enumerate(bench.runner.plans)
        for piece in plan.slices
        if piece.sample and len(piece.tokens) == 1
    ]
    for name in "abcd":
        steps = [step for step, request_id in decodes if request_id == name]
        assert steps == list(range(steps[0], steps[0] + len(steps))), "a decode runs in every step"


def test_abort_frees_everything_before_the_next_step() -> None:
    bench = Bench()
    bench.pool.ready = {"x"}
    sink = bench.submit("a", adapter="x", max_tokens=50)
    bench.run(steps=3)
    bench.engine.abort("a")
    bench.engine.abort("a")
    plan = bench.engine.step()
    end = terminal(sink)
    assert not plan.slices
    assert isinstance(end, ErrorEvent)
    assert end.error.reason == "CANCELLED"
    assert bench.pool.pins == {"x": 0}
    assert bench.runner.released == [0]
    assert bench.engine.load().kv_rows_used == 0


def test_deadline_ends_a_running_and_a_waiting_request() -> None:
    bench = Bench()
    running = bench.submit("a", max_tokens=50, deadline_s=1.0)
    waiting = bench.submit("b", adapter="x", deadline_s=1.0)
    bench.run(steps=2)
    bench.clock.time_s = 1.5
    bench.run()
    for sink in (running, waiting):
        end = terminal(sink)
        assert isinstance(end, ErrorEvent)
        assert end.error.reason == "DEADLINE_EXCEEDED"


def test_numeric_fault_ends_one_row() -> None:
    bench = Bench()
    bench.runner.faults = {"bad"}
    bad, good = bench.submit("bad"), bench.submit("good")
    bench.run()
    end = terminal(bad)
    assert isinstance(end, ErrorEvent)
    assert end.error.reason == "NUMERIC_FAULT"
    assert isinstance(terminal(good), FinishedEvent)


def test_queue_limit_refuses_at_once_and_recovers() -> None:
    bench = Bench(sequences=1, queue=1)
    first = [bench.submit("a"), bench.submit("b")]
    with pytest.raises(QueueFull):
        bench.submit("c")
    bench.run()
    assert all(isinstance(terminal(sink), FinishedEvent) for sink in first)
    bench.submit("c")


def test_live_request_id_is_not_shared() -> None:
    bench = Bench()
    bench.submit("a")
    with pytest.raises(RequestIdInUse):
        bench.submit("a")
    bench.run()
    bench.submit("a")


def test_drain_refuses_new_and_finishes_accepted() -> None:
    bench = Bench()
    sink = bench.submit("a")
    bench.engine.begin_drain()
    with pytest.raises(Draining):
        bench.submit("b")
    bench.run()
    assert isinstance(terminal(sink), FinishedEvent)


def test_dead_loop_ends_every_stream_once_and_refuses_new() -> None:
    bench = Bench()
    failures: list[BaseException] = []
    bench.engine._on_failure = failures.append
    sinks = [bench.submit("a"), bench.submit("b", adapter="x")]
    bench.runner.failure = ValueError("boom")
    bench.engine.start()
    assert bench.engine._thread is not None
    bench.engine._thread.join(10)
    for sink in sinks:
        end = terminal(sink)
        assert isinstance(end, ErrorEvent)
        assert end.error.reason == "ENGINE_FAILED"
    assert [type(failure) for failure in failures] == [ValueError]
    with pytest.raises(EngineFailed):
        bench.submit("c")


def test_stop_cancels_what_runs() -> None:
    bench = Bench()
    sink = bench.submit("a", adapter="x")
    bench.engine.start()
    bench.engine.stop()
    end = terminal(sink)
    assert isinstance(end, ErrorEvent)
    assert end.error.reason == "CANCELLED"


def test_call_runs_between_steps() -> None:
    bench = Bench()
    future = bench.engine.call(lambda: 42)
    assert not future.done()
    bench.engine.step()
    assert future.result(timeout=1) == 42


def test_a_call_that_nobody_waits_for_any_more_is_left_out() -> None:
    bench = Bench()
    ran: list[str] = []
    future = bench.engine.call(lambda: ran.append("late"))
    assert future.cancel()
    sink = bench.submit("a")
    bench.run()
    assert not ran
    assert isinstance(terminal(sink), FinishedEvent)


def test_a_request_behind_the_command_that_kills_the_loop_gets_its_terminal_event() -> None:
    bench = Bench()

    def die() -> None:
        raise ValueError("boom")

    bench.engine._mailbox.post(die)
    sink = bench.submit("a")
    bench.engine.start()
    assert bench.engine._thread is not None
    bench.engine._thread.join(10)
    assert isinstance(end := terminal(sink), ErrorEvent)
    assert end.error.reason == "ENGINE_FAILED"
    assert bench.engine.load().waiting_requests == 0


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold 4 decodes"):
        StepLimits(max_sequences=4, max_step_tokens=6, prefill_chunk_tokens=4)


def test_every_reason_to_wait_has_words() -> None:
    words = [reason.words for reason in WaitReason]
    assert len(set(words)) == len(WaitReason)


def test_a_plan_is_a_function_of_the_queues() -> None:
    bench = Bench(sequences=2, chunk=8)
    for name in "abc":
        bench.submit(name, 12)
    bench.run(steps=1)
    scheduler = bench.engine._scheduler
    before = [(s.sequence_id, s.state, s.computed, s.waiting_for) for s in scheduler]
    assert scheduler.plan() == scheduler.plan()
    assert [(s.sequence_id, s.state, s.computed, s.waiting_for) for s in scheduler] == before
    bench.engine.check_integrity()
