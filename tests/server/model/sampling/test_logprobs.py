"""Logprobs are the model's own, whatever a request asks for."""

from __future__ import annotations

import pytest
import torch
from sampling_rows import EOS, logits, piece

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.model.sampling.logprobs import scored_tokens
from switchyard.server.model.sampling.sampler import Sampler


def test_logprobs_are_the_log_softmax_of_the_untouched_row() -> None:
    row = logits(1)
    largest = int(row.argmax())
    changes = SamplingParams(
        0.3, 0.5, 3, 1, repetition_penalty=2.0, banned_token_ids=(largest,), logit_bias=((7, 5.0),), logprobs=4
    )
    [found] = Sampler(EOS).choose(row, [piece(changes)]).tokens.values()
    oracle = torch.log_softmax(row[0].double(), dim=0)
    assert found.token != largest
    assert found.logprob == pytest.approx(float(oracle[found.token]), abs=1e-5)
    assert [token for token, _ in found.top] == oracle.argsort(descending=True)[:4].tolist()
    assert [value for _, value in found.top] == pytest.approx(oracle.sort(descending=True)[0][:4].tolist(), abs=1e-5)


def test_as_many_alternatives_as_each_row_asks_for() -> None:
    rows = logits(150, seed=4)
    counts = [index % 21 for index in range(150)]
    scored = scored_tokens(rows, list(range(50)) * 3, counts)
    assert [len(one.top) for one in scored] == counts
    oracle = torch.log_softmax(rows.double(), dim=1)
    assert [one.logprob for one in scored] == pytest.approx(
        [float(oracle[index, one.token]) for index, one in enumerate(scored)], abs=1e-5
    )


def test_nobody_asked_nothing_computed() -> None:
    [found] = Sampler(EOS).choose(logits(1), [piece()]).tokens.values()
    assert (found.logprob, found.top) == (0.0, ())
