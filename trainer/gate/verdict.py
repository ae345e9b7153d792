"""The verdict: the thresholds of a recipe against what was measured.

Owns the checks. Every threshold is one check with what was wanted and found, and the comparison with the parent is
one more; an adapter passes when all of them do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from switchyard.trainer.gate.intervals import Paired, paired
from switchyard.trainer.gate.scoring import Scores
from switchyard.trainer.recipe_gate import GateSection, RuleSection


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold.

    Attributes:
        name: What was compared, e.g. `json_match over base`.
        wanted: The threshold in words.
        found: What was measured, in words.
        passed: Whether it holds.
    """

    name: str
    wanted: str
    found: str
    passed: bool


def checks(gate: GateSection, subjects: Mapping[str, Scores]) -> tuple[Check, ...]:
    """Compares what was measured with every threshold.

    Args:
        gate: The thresholds.
        subjects: `base`, `adapter` and, if there is one, `parent`. Where a recipe names a parent that does not exist
            yet, there is nothing to be worse than.
    """
    return (*_answer_checks(gate, subjects), *_perplexity_checks(gate, subjects), *_paired_checks(gate, subjects))


def against_parent(subjects: Mapping[str, Scores]) -> Paired | None:
    """Returns the paired comparison by the metric that tells right from wrong; None without parent or such metric."""
    parent, adapter = subjects.get("parent"), subjects["adapter"]
    if parent is None or not adapter.rows:
        return None
    metric = primary(adapter)
    return paired([value == 1 for value in parent.rows[metric]], [value == 1 for value in adapter.rows[metric]])


def primary(scores: Scores) -> str:
    """Returns the metric that tells right from wrong: the strictest one that was measured."""
    return next(iter(scores.rows))


def _answer_checks(gate: GateSection, subjects: Mapping[str, Scores]) -> Iterator[Check]:
    adapter = subjects["adapter"]
    for name in adapter.rows:
        rule: RuleSection = getattr(gate, name)
        mean = adapter.of(name).mean
        if rule.at_least is not None:
            yield Check(name, f"at least {rule.at_least:.2%}", f"{mean:.2%}", mean >= rule.at_least)
        if rule.over_base is not None:
            yield _gain(f"{name} over base", mean - subjects["base"].of(name).mean, rule.over_base)
        if rule.under_parent is not None and "parent" in subjects:
            yield _gain(f"{name} over parent", mean - subjects["parent"].of(name).mean, -rule.under_parent)


def _gain(name: str, gain: float, least: float) -> Check:
    # Means are multiples of one over the rows; a difference of two may miss an equal threshold by a rounding.
    return Check(name, f"at least {least * 100:+.2f} points", f"{gain * 100:+.2f} points", gain >= least - 1e-9)


def _perplexity_checks(gate: GateSection, subjects: Mapping[str, Scores]) -> Iterator[Check]:
    rule, found = gate.perplexity, subjects["adapter"].perplexity
    if rule is None:
        return
    if rule.at_most is not None:
        yield Check("perplexity", f"at most {rule.at_most:g}", f"{found:.4f}", found <= rule.at_most)
    if rule.over_parent is not None and "parent" in subjects:
        rise = found - subjects["parent"].perplexity
        yield Check(
            "perplexity over parent", f"at most {rule.over_parent:+g}", f"{rise:+.4f}", rise <= rule.over_parent
        )


def _paired_checks(gate: GateSection, subjects: Mapping[str, Scores]) -> Iterator[Check]:
    pair = against_parent(subjects)
    if pair is None:
        return
    is_worse = pair.lost > pair.gained and pair.p_value < gate.alpha
    found = f"{pair.gained} rows gained, {pair.lost} lost, p = {pair.p_value:.3g}"
    yield Check(
        f"paired with the parent ({primary(subjects['adapter'])})",
        f"not worse with p < {gate.alpha:g}",
        found,
        not is_worse,
    )
