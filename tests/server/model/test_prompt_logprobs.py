"""Logprobs of prompt and answer through the engine, against one pass of transformers over the whole text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_runner import ListSink
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine, output
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, SampledToken, TokenEvent
from switchyard.server.errors import NumericFault
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.model.runner import ModelRunner

PROMPT = tuple(torch.randint(5, 200, (150,), generator=torch.Generator().manual_seed(3)).tolist())
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(directory: Path) -> LoadedBase:
    return load_base(str(directory))


def oracle(directory: Path, tokens: tuple[int, ...]) -> torch.Tensor:
    """[T, vocab]: logprobs of what comes after each token."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(directory, quantization_config=nf4, dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits.log_softmax(dim=1)


def scores(sink: ListSink) -> list[SampledToken]:
    return [one for event in sink.events if isinstance(event, TokenEvent) for one in event.prompt_logprobs]


def logprobs(sink: ListSink, index: int = 0) -> list[SampledToken]:
    events = [event for event in sink.events if isinstance(event, TokenEvent) and event.index == index]
    return [one for event in events for one in event.logprobs]


def check(found: list[SampledToken], expected: torch.Tensor, tokens: tuple[int, ...], alternatives: int) -> None:
    assert [one.token for one in found] == list(tokens)
    for one, row in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(float(row[one.token]), abs=TOLERANCE)
        assert [value for _, value in one.top] == pytest.approx(row.topk(alternatives)[0].tolist(), abs=TOLERANCE)


def test_every_token_of_prompt_and_answer_is_scored_once(directory: Path, base: LoadedBase) -> None:
    engine = TinyEngine(base)
    sampling = SamplingParams(1.0, seed=4, logprobs=3, prompt_logprobs=2)
    sink = engine.submit(PROMPT, sampling=sampling, max_tokens=6)
    beside = engine.submit(PROMPT[:70])
    engine.run()
    engine.host.close()
    answer = output(sink)
    expected = oracle(directory, PROMPT + answer)
    check(scores(sink), expected[: len(PROMPT) - 1], PROMPT[1:], 2)
    check(logprobs(sink), expected[len(PROMPT) - 1 : -1], answer, 3)
    chunks = [event for event in sink.events if isinstance(event, TokenEvent) and event.prompt_logprobs]
    assert len(chunks) == 3, "scores come as the prompt is computed, 64 tokens at a time"
    assert scores(beside) == []


def test_a_cached_prompt_is_scored_like_a_new_one(base: LoadedBase) -> None:
    engine = TinyEngine(base, cached_blocks=8)
    engine.tokens(PROMPT)
    plain = engine.submit(PROMPT)
    scored = engine.submit(PROMPT, sampling=SamplingParams(prompt_logprobs=0))
    engine.run()
    engine.host.close()
    ends = [sink.events[-1] for sink in (plain, scored)]
    assert [isinstance(end, FinishedEvent) and end.cached_prompt_tokens for end in ends] == [128, 0]
    assert len(scores(scored)) == len(PROMPT) - 1
    assert output(scored) == output(plain)


def test_the_best_answers_are_given_and_the_prompt_is_scored_with_them(base: LoadedBase) -> None:
    engine = TinyEngine(base)
    sampling = SamplingParams(1.0, seed=6, logprobs=0, prompt_logprobs=0)
    stopping = StoppingParams(5, ignore_eos=True)
    every = engine.submit(PROMPT[:20], sampling=sampling, stopping=stopping, n=4)
    best = engine.submit(PROMPT[:20], sampling=sampling, stopping=stopping, n=2, best_of=4)
    engine.run()
    engine.host.close()
    made = [(sum(one.logprob for one in logprobs(every, index)), index) for index in range(4)]
    ranked = [index for _, index in sorted(made, reverse=True)]
    for place in range(2):
        assert logprobs(best, place) == logprobs(every, ranked[place])
    assert logprobs(best, 2) == []
    assert scores(best) == scores(every)
    assert len(scores(best)) == 19
    end = best.events[-1]
    assert isinstance(end, FinishedEvent)
    assert end.completion_tokens == 20
    assert [choice.index for choice in end.choices] == [0, 1]


class Spoiled(ModelRunner):
    """Puts NaN into the first scored row of a prompt's first chunk, where nobody samples."""

    def compute(self, batch: StepBatch) -> StepTensors:
        tensors = self.model.compute(batch)
        rows = tensors.logits.clone()
        if any(piece.start == 0 for piece in batch.scored):
            rows[len(batch.sampled), 7] = float("nan")
        return StepTensors(rows, tensors.hidden)


def test_a_prompt_whose_scores_are_not_finite_is_a_fault_of_its_request(base: LoadedBase) -> None:
    engine = TinyEngine(base)
    engine.runner.__class__ = Spoiled
    spoiled = engine.submit(PROMPT, sampling=SamplingParams(prompt_logprobs=0))
    beside = engine.submit(PROMPT[:20])
    engine.run()
    engine.host.close()
    end = spoiled.events[-1]
    assert isinstance(end, ErrorEvent)
    assert isinstance(end.error, NumericFault)
    assert scores(spoiled) == []
    assert isinstance(beside.events[-1], FinishedEvent)
