"""Token choice: greedy rows, seeds that ignore the batch, memory that follows the sequence and never the row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_rows import EOS, logits, named, piece

from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import SequenceSlice
from switchyard.server.errors import NoTokenAllowed
from switchyard.server.model.sampling.draws import uniform
from switchyard.server.model.sampling.sampler import Sampler

VOCAB = 50


def choose(rows: torch.Tensor, pieces: list[SequenceSlice]) -> list[int | None]:
    pieces = named(pieces)
    chosen = Sampler(EOS).choose(rows, pieces)
    return [chosen.tokens[p.request_id].token if p.request_id in chosen.tokens else None for p in pieces]


many_params = st.builds(
    SamplingParams,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 5)),
    top_p=st.floats(0.05, 1),
    top_k=st.integers(0, VOCAB + 5),
    seed=st.integers(0, 2**64 - 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0.05, 1),
    repetition_penalty=st.floats(0.5, 3),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), max_size=3).map(
        lambda d: tuple(d.items())
    ),
    banned_token_ids=st.lists(st.integers(0, VOCAB - 1), max_size=4).map(tuple),
    allowed_token_ids=st.one_of(st.just(()), st.just(tuple(range(0, VOCAB, 2)))),
    logprobs=st.one_of(st.none(), st.integers(0, 5)),
)
many_pieces = st.builds(
    piece,
    many_params,
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6).map(tuple),
    output=st.lists(st.integers(0, VOCAB - 1), max_size=6).map(tuple),
    stopping=st.builds(StoppingParams, st.just(20), min_tokens=st.integers(0, 8)),
    choice=st.integers(0, 3),
)


def test_zero_temperature_takes_the_largest() -> None:
    rows = logits(4)
    assert choose(rows, [piece()] * 4) == rows.argmax(1).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(many_pieces, min_size=2, max_size=6), st.integers(0, 50))
def test_a_row_is_the_same_alone_and_in_any_batch(pieces: list[SequenceSlice], seed: int) -> None:
    rows = logits(len(pieces), VOCAB, seed)
    kept = rows.clone()
    pieces = named(pieces)
    together = Sampler(EOS).choose(rows, pieces)
    assert torch.equal(rows, kept), "the model's logits are left as they are"
    for index, one in enumerate(pieces):
        alone = Sampler(EOS).choose(rows[index : index + 1], [one])
        assert alone.tokens.get(one.request_id) == together.tokens.get(one.request_id)
        assert (one.request_id in alone.refused) == (one.request_id in together.refused)


@pytest.mark.parametrize("vocab", [50, 3000])
def test_large_vocabularies_and_small_ones_are_drawn_alike_whatever_the_batch(vocab: int) -> None:
    params = [
        SamplingParams(1.0, 0.9, 0, 1),
        SamplingParams(2.0, 1.0, 40, 2),
        SamplingParams(5.0, 0.999, 0, 3),
        SamplingParams(1.0, 0.9, 0, 4, typical_p=0.5),
        SamplingParams(1.0, 1.0, 0, 5, min_p=0.02),
        SamplingParams(1.0, 1.0, 2000, 6),
    ]
    rows = logits(6, vocab)
    together = choose(rows, [piece(p) for p in params])
    assert together == [choose(rows[i : i + 1], [piece(p)])[0] for i, p in enumerate(params)]


def test_draws_follow_the_distribution() -> None:
    row = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    params = SamplingParams(1.0, seed=7)
    picks = [choose(row, [piece(params, output=(0,) * draw)])[0] for draw in range(2000)]
    shares = [picks.count(token) / 2000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_each_answer_of_a_request_has_a_stream_of_its_own() -> None:
    streams = {tuple(uniform(9, choice, draw) for draw in range(4)) for choice in range(5)}
    assert len(streams) == 5
    assert uniform(9, 0, 3) != uniform(10, 0, 3)


def test_tiny_temperature_is_greedy_and_stays_finite() -> None:
    rows = logits(3)
    assert choose(rows, [piece(SamplingParams(1e-30, 1.0, 0, 1))] * 3) == rows.argmax(1).tolist()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(1.0, seed=5), SamplingParams(top_k=3, logprobs=2)]
)
def test_row_that_is_not_finite_gets_no_token_and_hurts_nobody(poison: float, params: SamplingParams) -> None:
    rows = logits(3)
    clean = choose(rows, [piece(params)] * 3)
    rows[1, 4] = poison
    chosen = Sampler(EOS).choose(rows, named([piece(params)] * 3))
    assert chosen.faults == {"r1"}
    assert [chosen.tokens[name].token for name in ("r0", "r2")] == [clean[0], clean[2]]


@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(1.0, seed=5), SamplingParams(1.0, 0.9, seed=5, typical_p=0.8)]
)
def test_masked_padding_of_the_vocabulary_is_no_fault_and_never_chosen(params: SamplingParams) -> None:
    rows = logits(3)
    padded = torch.cat([rows, torch.full((3, 6), float("-inf"))], dim=1)
    assert choose(padded, [piece(params)] * 3) == choose(rows, [piece(params)] * 3)


def test_a_row_without_any_finite_logit_is_a_fault() -> None:
    rows = logits(2)
    rows[0] = float("-inf")
    chosen = Sampler(EOS).choose(rows, named([piece()] * 2))
    assert chosen.faults == {"r0"}
    assert set(chosen.tokens) == {"r1"}


def test_a_step_that_chooses_nothing_is_fine() -> None:
    assert Sampler(EOS).choose(torch.zeros(0, VOCAB), []).tokens == {}


def test_a_row_that_may_choose_nothing_is_refused_by_name() -> None:
    only_eos = SamplingParams(1.0, allowed_token_ids=(2,))
    pieces = named([piece(only_eos, stopping=StoppingParams(9, min_tokens=1)), piece()])
    chosen = Sampler(EOS).choose(logits(2), pieces)
    assert isinstance(chosen.refused["r0"], NoTokenAllowed)
    assert set(chosen.tokens) == {"r1"}


def test_a_recycled_row_knows_nothing_of_its_last_sequence() -> None:
    params = SamplingParams(repetition_penalty=3.0, presence_penalty=5.0)
    row = logits(1)
    sampler = Sampler(EOS)
    largest = int(row.argmax())
    first = sampler.choose(row, [piece(params, name="first", prompt=(largest,), output=(largest,))])
    assert first.tokens["first"].token != largest
    sampler.forget("first")
    second = sampler.choose(row, [piece(params, name="second", prompt=(1,) if largest != 1 else (3,))])
    assert second.tokens["second"].token == largest
    assert sampler.remembered == {"second"}
    sampler.forget("second")
    sampler.forget("second")
    assert sampler.remembered == frozenset()


def test_memory_built_step_by_step_equals_memory_built_at_once() -> None:
    """As after a preemption, when a sequence has been forgotten in between."""
    params = SamplingParams(1.0, seed=3, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3)
    steady, output = Sampler(EOS), []
    for step in range(20):
        row = logits(1, VOCAB, step % 3)
        one = piece(params, output=tuple(output))
        token = steady.choose(row, [one]).tokens["r"].token
        assert Sampler(EOS).choose(row, [one]).tokens["r"].token == token
        output.append(token)


def test_plain_greedy_rows_leave_no_memory() -> None:
    sampler = Sampler(EOS)
    sampler.choose(logits(1), [piece(SamplingParams(1.0, 0.5, 3, 1, logprobs=3))])
    assert sampler.remembered == frozenset()
