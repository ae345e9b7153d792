"""Selection: which evaluated state becomes the adapter, and when more steps are not worth it.

Owns the rule, as a function of the evaluations alone. A run that continues from a checkpoint has them all, so it
decides as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from switchyard.trainer.events import Evaluated
from switchyard.trainer.recipe import DevMetric, SelectionSection


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands.

    Attributes:
        best: The best evaluation of the dev split so far, or None before the first.
        is_over: Whether patience has run out.
    """

    best: Evaluated | None
    is_over: bool


def standing(evaluations: Iterable[Evaluated], selection: SelectionSection) -> Standing:
    """Judges the evaluations of a run.

    An evaluation is the best when it beats the best before it by more than `min_improvement`, so of equals the
    earlier one stays.

    Args:
        evaluations: In order; those of other splits than dev do not count.
        selection: The rule.
    """
    best: Evaluated | None = None
    since_best = 0
    for event in evaluations:
        if event.split != "dev":
            continue
        if best is None or _goodness(event, selection) - _goodness(best, selection) > selection.min_improvement:
            best, since_best = event, 0
        else:
            since_best += 1
    return Standing(best, selection.patience is not None and since_best >= selection.patience)


def _goodness(event: Evaluated, selection: SelectionSection) -> float:
    return event.token_accuracy if selection.metric is DevMetric.TOKEN_ACCURACY else -event.loss
