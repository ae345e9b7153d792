"""Biases, penalties and masks against transformers' processors and a plain loop in Python."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_rows import EOS, logits, piece
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import SequenceSlice
from switchyard.server.model.sampling import penalties
from switchyard.server.model.sampling.masks import forbidden_tokens
from switchyard.server.model.sampling.memory import SequenceMemory

VOCAB = 40
tokens = st.integers(0, VOCAB - 1)
pieces = st.builds(
    piece,
    st.builds(
        SamplingParams,
        repetition_penalty=st.one_of(st.just(1.0), st.floats(0.25, 5, width=32)),
        presence_penalty=st.one_of(st.just(0.0), st.floats(-3, 3, width=32)),
        frequency_penalty=st.one_of(st.just(0.0), st.floats(-3, 3, width=32)),
        logit_bias=st.dictionaries(tokens, st.floats(-9, 9, width=32), max_size=4).map(lambda d: tuple(d.items())),
        banned_token_ids=st.lists(tokens, max_size=4, unique=True).map(tuple),
        allowed_token_ids=st.lists(tokens, max_size=4, unique=True).map(tuple),
    ),
    prompt=st.lists(tokens, min_size=1, max_size=9).map(tuple),
    output=st.lists(tokens, max_size=9).map(tuple),
    stopping=st.builds(
        StoppingParams,
        st.just(20),
        min_tokens=st.integers(0, 9),
        ignore_eos=st.booleans(),
        stop_token_ids=st.lists(tokens, max_size=3).map(tuple),
    ),
)


def served(rows: torch.Tensor, slices: list[SequenceSlice]) -> torch.Tensor:
    work, params = rows.clone(), [one.sampling for one in slices]
    counts = []
    for one in slices:
        memory = SequenceMemory.of(one)
        memory.follow(one.output)
        counts.append(memory.counts)
    penalties.add_biases(work, params)
    penalties.penalise_repetition(work, params, counts)
    penalties.penalise_presence_and_frequency(work, params, counts)
    forbidden = forbidden_tokens(slices, [None] * len(slices), EOS, VOCAB)
    return work.masked_fill(forbidden, float("-inf"))


def expected(row: torch.Tensor, one: SequenceSlice) -> torch.Tensor:
    """Transformers' processors in the order of `generate`; what it has no processor for, token by token."""
    params, stopping = one.sampling, one.stopping
    assert stopping is not None
    context = torch.tensor([[*one.prompt, *one.output]])
    scores = row[None].clone()
    first = LogitsProcessorList()
    if params.logit_bias:
        first.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in params.logit_bias]))
    if params.repetition_penalty != 1.0:
        first.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    scores = first(context, scores)
    for token, count in Counter(one.output).items():
        scores[0, token] -= params.frequency_penalty * count + params.presence_penalty
    then = LogitsProcessorList()
    if params.banned_token_ids:
        then.append(SuppressTokensLogitsProcessor(list(params.banned_token_ids)))
    if params.allowed_token_ids:
        then.append(SuppressTokensLogitsProcessor([t for t in range(VOCAB) if t not in params.allowed_token_ids]))
    ending = set(stopping.stop_token_ids) | (set() if stopping.ignore_eos else EOS)
    if ending:
        then.append(MinNewTokensLengthLogitsProcessor(len(one.prompt), stopping.min_tokens, sorted(ending)))
    result: torch.Tensor = then(context, scores)[0]
    return result


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=4), st.integers(0, 100))
def test_rows_equal_transformers(slices: list[SequenceSlice], seed: int) -> None:
    rows = logits(len(slices), VOCAB, seed)
    found = served(rows, slices)
    wanted = torch.stack([expected(row, one) for row, one in zip(rows, slices, strict=True)])
    assert torch.equal(found.isinf(), wanted.isinf())
    finite = ~wanted.isinf()
    assert torch.allclose(found[finite], wanted[finite], rtol=1e-5, atol=1e-5)


def test_the_prompt_counts_for_repetition_only() -> None:
    row = torch.ones(1, VOCAB)
    one = piece(SamplingParams(repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.125), prompt=(7, 8))
    grown = piece(one.sampling, prompt=(7, 8), output=(8, 9, 9))
    assert served(row, [one])[0, 7:10].tolist() == [0.5, 0.5, 1.0]
    assert served(row, [grown])[0, 7:10].tolist() == [0.5, 0.5 - 0.375, 0.5 - 0.5]


def test_negative_logits_grow_under_repetition() -> None:
    row = torch.full((1, VOCAB), -1.0)
    assert served(row, [piece(SamplingParams(repetition_penalty=2.0), prompt=(7,))])[0, 7] == -2.0
