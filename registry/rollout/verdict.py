"""What the tallies of a split say about its candidate. Pure: numbers in, findings and an outcome out.

A window is looked at many times, so before its end a condition is breached
only where chance can hardly explain it: bounds of three standard deviations,
for shares by Wilson's score interval and Newcombe's difference of two (Newcombe,
Statistics in Medicine 17, 1998, method 10), for quantiles by the binomial ranks
around them. At the end of the window the numbers count as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.rollout.spread import Spread, lower_s
from switchyard.registry.rollout.tally import Tallies

DEVIATIONS = 3.0
LATE_S = 5.0
"""Seconds after its end in which servers still tell what they saw of a window."""

LATENCY_SHARE = 0.9
"""The part of all answers that a latency condition looks at: its 90th percentile."""


class Standing(StrEnum):
    """How a condition stands.

    SKIPPED has too few durations although there are answers enough, e.g. gaps between the tokens of answers
    of one token; it decides nothing.
    """

    HOLDS = "HOLDS"
    BREACHED = "BREACHED"
    UNKNOWN = "UNKNOWN"
    SKIPPED = "SKIPPED"


class Outcome(StrEnum):
    """What follows for the rollout: wait, take the candidate back, go on with it, or say that nobody knows."""

    WATCHING = "WATCHING"
    REGRESSED = "REGRESSED"
    HEALTHY = "HEALTHY"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition, compared.

    Attributes:
        condition: its name, e.g. `ttft`.
        standing: how it stands.
        first: what was measured of the first version; None for nothing.
        second: the same of the candidate.
        limit: what `second` may be at most, given `first`.
        certain: whether chance can hardly explain a breach.
    """

    condition: str
    standing: Standing
    first: float | None
    second: float | None
    limit: float | None
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that a look at the tallies gave.

    Attributes:
        outcome: what follows.
        findings: every condition.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]

    @property
    def breached(self) -> tuple[Finding, ...]:
        """The conditions that do not hold."""
        return tuple(finding for finding in self.findings if finding.standing is Standing.BREACHED)


def judge(plan: RolloutPlan, tallies: Tallies, elapsed_s: float) -> Verdict:
    """Compares the two versions of a split.

    Args:
        plan: what must hold.
        tallies: what was seen since the step began.
        elapsed_s: seconds since then.
    """
    findings = tuple(finding for condition in CONDITIONS for finding in condition(plan, tallies))
    return Verdict(_outcome(findings, over=elapsed_s >= plan.window_s + LATE_S), findings)


def _outcome(findings: tuple[Finding, ...], *, over: bool) -> Outcome:
    breached = [finding for finding in findings if finding.standing is Standing.BREACHED]
    if any(finding.certain or over for finding in breached):
        return Outcome.REGRESSED
    if not over:
        return Outcome.WATCHING
    if any(finding.standing is Standing.UNKNOWN for finding in findings):
        return Outcome.UNDECIDED
    return Outcome.HEALTHY


def _not_finite(plan: RolloutPlan, tallies: Tallies) -> list[Finding]:
    """NaN is no matter of chance: one answer too many decides."""
    first, second = tallies.first.not_finite, tallies.second.not_finite
    breached = second > plan.max_not_finite
    standing = Standing.BREACHED if breached else _if_enough(plan, tallies)
    return [Finding("not_finite", standing, first, second, plan.max_not_finite, certain=breached)]


def _failures(plan: RolloutPlan, tallies: Tallies) -> list[Finding]:
    first, second = tallies.first, tallies.second
    shares = (_share(first.failures, first.answers), _share(second.failures, second.answers))
    limit = None if shares[0] is None else shares[0] + plan.max_failure_increase
    sure = _least_increase((first.failures, first.answers), (second.failures, second.answers))
    certain = sure > plan.max_failure_increase
    standing = _if_enough(plan, tallies)
    if certain or (standing is Standing.HOLDS and _exceeds(shares[1], limit)):
        standing = Standing.BREACHED
    return [Finding("failures", standing, *shares, limit, certain)]


def _ttft(plan: RolloutPlan, tallies: Tallies) -> list[Finding]:
    return _latency("ttft", plan, tallies, (tallies.first.ttft, tallies.second.ttft), plan.max_ttft_ratio)


def _itl(plan: RolloutPlan, tallies: Tallies) -> list[Finding]:
    return _latency("itl", plan, tallies, (tallies.first.itl, tallies.second.itl), plan.max_itl_ratio)


CONDITIONS: tuple[Callable[[RolloutPlan, Tallies], list[Finding]], ...] = (_not_finite, _failures, _ttft, _itl)
"""Every condition; one that the plan does not ask for finds nothing."""


def _latency(
    name: str, plan: RolloutPlan, tallies: Tallies, spreads: tuple[Spread, Spread], ratio: float | None
) -> list[Finding]:
    if ratio is None:
        return []
    first, second = (spread.quantile_s(LATENCY_SHARE) for spread in spreads)
    limit = None if first is None else first * ratio + plan.latency_slack_s
    certain = _surely_longer(spreads, ratio, plan.latency_slack_s)
    standing = _if_enough(plan, tallies)
    if certain:
        standing = Standing.BREACHED
    elif standing is Standing.HOLDS and min(spread.count for spread in spreads) < plan.min_answers:
        standing = Standing.SKIPPED
    elif standing is Standing.HOLDS and _exceeds(second, limit):
        standing = Standing.BREACHED
    return [Finding(name, standing, first, second, limit, certain)]


def _surely_longer(spreads: tuple[Spread, Spread], ratio: float, slack_s: float) -> bool:
    """Whether the shortest likely quantile of the second is too long beside the longest likely one of the first."""
    longest = spreads[0].bucket_at(_rank(spreads[0].count, +DEVIATIONS))
    shortest = spreads[1].bucket_at(_rank(spreads[1].count, -DEVIATIONS))
    if longest is None or shortest is None:
        return False
    return lower_s(shortest) > lower_s(longest + 1) * ratio + slack_s


def _rank(count: int, deviations: float) -> int:
    spread = math.sqrt(count * LATENCY_SHARE * (1 - LATENCY_SHARE))
    return math.ceil(count * LATENCY_SHARE + deviations * spread)


def _least_increase(first: tuple[int, int], second: tuple[int, int]) -> float:
    """The least by which the second share is likely to be greater than the first; -1 when nothing is known of it."""
    if not second[1]:
        return -1.0
    other, lower = second[0] / second[1], _wilson(*second)[0]
    if not first[1]:
        # Nobody asks the first version any more: what fails is then held against none that did not.
        return lower
    share, upper = first[0] / first[1], _wilson(*first)[1]
    return other - share - math.hypot(other - lower, upper - share)


def _wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    share, squared = hits / of, DEVIATIONS**2
    middle = share + squared / (2 * of)
    half = DEVIATIONS * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    scale = 1 + squared / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _if_enough(plan: RolloutPlan, tallies: Tallies) -> Standing:
    fewest = min(tallies.first.answers, tallies.second.answers)
    return Standing.HOLDS if fewest >= plan.min_answers else Standing.UNKNOWN


def _share(hits: int, of: int) -> float | None:
    return hits / of if of else None


def _exceeds(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
