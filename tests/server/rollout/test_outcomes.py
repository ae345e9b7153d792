"""What counts for which version of an alias, and what counts for none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_engine import finished
from tallies import tally

from switchyard.registry.rollout.spread import Spread, bucket_of
from switchyard.registry.rollout.tally import Tallies, Tally
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest, ErrorEvent, GenerateRequest
from switchyard.server.errors import (
    AdapterUnavailable,
    Cancelled,
    DeadlineExceeded,
    Draining,
    EngineFailed,
    NoTokenAllowed,
    NumericFault,
    QueueFull,
    RankTooLarge,
    ServerError,
)
from switchyard.server.rollout.outcomes import MOST_ALIASES, AliasGeneration, Outcomes

PROD = AliasGeneration("team", "a", "prod", 3)


def part(alias: str = "prod", generation: int = 3, *, canary: bool = False) -> AdapterPart:
    return AdapterPart("team", "a", 1, Digest("d"), alias, generation, 1.0, 8, "w", "c", 10, canary)


def request(*parts: AdapterPart) -> GenerateRequest:
    selection = AdapterSelection(Digest("d"), parts, 8) if parts else None
    return GenerateRequest("r", (1, 2), selection, SamplingParams(), StoppingParams(max_tokens=4))


def answered(outcomes: Outcomes, asked: GenerateRequest, tokens: int = 4) -> None:
    outcomes.answered(asked, finished(asked, tokens))


def test_each_side_has_its_own() -> None:
    outcomes = Outcomes()
    for canary in (False, False, True):
        answered(outcomes, request(part(canary=canary)))
    found = outcomes.tallies(PROD)
    assert (found.first.answers, found.second.answers) == (2, 1)
    assert found.second.ttft == Spread({bucket_of(0.02): 1})
    assert found.second.itl == Spread({bucket_of(0.03 / 3): 1})


def test_an_answer_of_one_token_has_no_gap_and_several_answers_share_their_tokens() -> None:
    outcomes = Outcomes()
    answered(outcomes, request(part()), tokens=1)
    assert outcomes.tallies(PROD).first.itl == Spread()
    answered(outcomes, replace(request(part()), n=2, best_of=2), tokens=8)
    assert outcomes.tallies(PROD).first.itl == Spread({bucket_of(0.03 / 3): 1})


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (NumericFault("NaN"), tally(1, not_finite=1, ttft_s=None, itl_s=None)),
        (AdapterUnavailable("gone", cause_reason="BLOB_CORRUPT", retry_after_s=1.0), None),
        (RankTooLarge("512"), None),
        (DeadlineExceeded("late"), None),
        (Cancelled("gone"), Tally()),
        (Draining("stop"), Tally()),
        (EngineFailed("dead"), Tally()),
        (QueueFull("full"), Tally()),
        (NoTokenAllowed("none"), Tally()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_failures_are_the_versions(error: ServerError, counted: Tally | None) -> None:
    outcomes = Outcomes()
    outcomes.answered(request(part()), ErrorEvent(error, 2, 0))
    expected = tally(1, failures=1, ttft_s=None, itl_s=None) if counted is None else counted
    assert outcomes.tallies(PROD) == Tallies(expected, Tally())


def test_what_no_alias_named_is_nobodys() -> None:
    outcomes = Outcomes()
    for parts in ((), (part(alias=""),), (part(), part("other"))):
        answered(outcomes, request(*parts))
    outcomes.unanswerable(part(alias=""), RankTooLarge("512"))
    assert outcomes.tallies(PROD) == Tallies()


def test_a_move_of_the_alias_begins_anew() -> None:
    outcomes = Outcomes()
    answered(outcomes, request(part()))
    answered(outcomes, request(part(generation=4)))
    assert outcomes.tallies(PROD).first.answers == 1
    assert outcomes.tallies(replace(PROD, generation=4)).first.answers == 1


def test_memory_is_bounded() -> None:
    outcomes = Outcomes()
    for generation in range(1, MOST_ALIASES + 3):
        answered(outcomes, request(part(generation=3)))
        answered(outcomes, request(part(alias="other", generation=generation)))
    assert outcomes.tallies(PROD).first.answers == MOST_ALIASES + 2
    assert outcomes.tallies(AliasGeneration("team", "a", "other", 1)) == Tallies()
    assert outcomes.tallies(AliasGeneration("team", "a", "other", MOST_ALIASES + 2)).first.answers == 1
