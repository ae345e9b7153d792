"""Several answers to one prompt: one prefill, one stream, one terminal event."""

from __future__ import annotations

import pytest
from fake_runner import request
from stepped_engine import Bench, failed, finished, terminal, text, tokens

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import ErrorEvent, TokenEvent
from switchyard.server.errors import QueueFull, RequestIdInUse

PROMPT = tuple(range(1, 10))


def letter(request_id: str, index: int) -> int:
    """Each answer has letters of its own."""
    choice = int(request_id.partition("/")[2] or 0)
    return 1 + 5 * choice + index


def test_answers_come_by_index_and_end_together() -> None:
    bench = Bench(cached=8)
    bench.runner.choose = letter
    sink = bench.submit("a", PROMPT, max_tokens=3, n=3, best_of=3)
    bench.run()
    assert [text(sink, index) for index in range(3)] == ["abc", "fgh", "klm"]
    end = finished(sink)
    assert [(choice.index, choice.completion_tokens) for choice in end.choices] == [(0, 3), (1, 3), (2, 3)]
    assert (end.prompt_tokens, end.completion_tokens) == (9, 9)
    assert bench.observer.counts["length"] == 1
    bench.assert_at_rest()


def test_the_prompt_is_computed_once() -> None:
    bench = Bench(cached=8)
    bench.submit("a", PROMPT, max_tokens=1, n=3, best_of=3)
    bench.run()
    computed = sum(len(piece.tokens) for plan in bench.runner.plans for piece in plan.slices)
    assert computed == len(PROMPT) + 2, "the others compute the last token only"


def test_each_answer_has_a_random_stream_of_its_own() -> None:
    bench = Bench(cached=8)
    bench.submit("a", PROMPT, max_tokens=2, n=3, best_of=3)
    bench.run()
    streams = {(p.request_id, p.choice, p.sampling.seed) for plan in bench.runner.plans for p in plan.slices}
    assert streams == {("a", 0, 0), ("a/1", 1, 0), ("a/2", 2, 0)}


def test_the_most_probable_answers_are_given_best_first() -> None:
    bench = Bench(cached=8)
    bench.runner.choose = letter
    bench.runner.logprob = lambda request_id, index: {"a": -2.0, "a/1": -0.5, "a/2": -1.0}[request_id]
    sink = bench.submit("a", PROMPT, max_tokens=3, n=2, best_of=3)
    bench.run(steps=4)
    assert not sink.events, "which answers are given is known at the end"
    bench.run()
    assert (text(sink, 0), text(sink, 1)) == ("fgh", "klm")
    end = finished(sink)
    assert [choice.cumulative_logprob for choice in end.choices] == [-1.5, -3.0]
    assert end.completion_tokens == 9
    assert all(not event.logprobs for event in sink.events if isinstance(event, TokenEvent))
    asked = {piece.sampling.logprobs for plan in bench.runner.plans for piece in plan.slices}
    assert asked == {0}, "ranking needs the log-probability of what was chosen"


def test_equally_probable_answers_keep_their_order() -> None:
    bench = Bench(cached=8)
    bench.runner.choose = letter
    sink = bench.submit("a", PROMPT, max_tokens=1, n=1, best_of=3)
    bench.run()
    assert text(sink) == "a"
    assert finished(sink).choices == ()


def test_answers_may_end_at_different_times() -> None:
    bench = Bench(cached=8)
    bench.runner.choose = lambda name, index: 0 if name == "a/1" and index == 1 else 5
    sink = bench.submit("a", PROMPT, max_tokens=4, n=2, best_of=2)
    bench.run()
    assert [(c.reason.value, c.completion_tokens) for c in finished(sink).choices] == [("length", 4), ("stop", 2)]
    assert bench.runner.forgotten == ["a/1", "a"]


def test_an_answer_that_has_ended_makes_room_and_keeps_its_id() -> None:
    bench = Bench(sequences=2, queue=0)
    bench.runner.choose = lambda name, index: 0 if name == "a/1" else 5
    bench.submit("a", max_tokens=10, n=2, best_of=2)
    with pytest.raises(QueueFull):
        bench.submit("b")
    bench.run(steps=3)
    assert (bench.engine.load().running_sequences, bench.engine.load().waiting_requests) == (1, 0)
    with pytest.raises(RequestIdInUse):
        bench.submit("a/1")
    other = bench.submit("b")
    bench.run()
    assert finished(other).completion_tokens == 4


def test_cancel_deadline_and_fault_end_all_answers_at_once() -> None:
    for end, reason in (("abort", "CANCELLED"), ("deadline", "DEADLINE_EXCEEDED"), ("fault", "NUMERIC_FAULT")):
        bench = Bench(cached=8, sequences=2)
        sink = bench.submit("a", PROMPT, max_tokens=30, n=3, best_of=3, deadline_s=5.0)
        bench.run(steps=6)
        if end == "abort":
            bench.engine.abort("a")
        elif end == "deadline":
            bench.clock.time_s = 6.0
        else:
            bench.runner.faults = {"a/1"}
        bench.run(steps=2)
        assert failed(sink) == reason
        assert sorted(bench.runner.forgotten) == ["a", "a/1", "a/2"]
        bench.assert_at_rest()


def test_nobody_takes_the_id_of_an_answer() -> None:
    bench = Bench()
    bench.submit("a", n=2, best_of=2)
    with pytest.raises(RequestIdInUse, match="'a/1' is in use"):
        bench.submit("a/1")
    with pytest.raises(QueueFull, match="the request needs 11"):
        bench.submit("b", n=11, best_of=11)
    bench.run()
    bench.submit("a/1")


def test_a_broken_adapter_refuses_the_group_once() -> None:
    bench = Bench(cached=8)
    bench.pool.broken = {"x"}
    sink = bench.submit("a", PROMPT, adapter="x", n=3, best_of=3)
    bench.run()
    assert isinstance(terminal(sink), ErrorEvent)
    bench.assert_at_rest()


def test_the_prompt_is_scored_once() -> None:
    bench = Bench(cached=8)
    asked = request("a", PROMPT, max_tokens=2, n=2, best_of=2, sampling=SamplingParams(prompt_logprobs=0))
    sink = bench.ask(asked)
    bench.run()
    scores = [s.token for event in sink.events if isinstance(event, TokenEvent) for s in event.prompt_logprobs]
    assert scores == list(PROMPT[1:])
    assert len(tokens(sink, 0)) == len(tokens(sink, 1)) == 2
