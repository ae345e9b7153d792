"""The consequence: what a verdict means for publishing."""

from __future__ import annotations

import dataclasses

from switchyard.trainer.errors import GateRefused
from switchyard.trainer.gate.report import Report
from switchyard.trainer.publish import PublishTarget
from switchyard.trainer.recipe_gate import Failed, GateSection
from switchyard.trainer.result import TrainResult


def target_after(result: TrainResult, gate: GateSection, target: PublishTarget | None) -> PublishTarget | None:
    """Returns where an adapter goes after it was judged.

    Args:
        result: The run with its report.
        gate: Says what happens to an adapter that does not pass.
        target: Where it was to go, or None.

    Raises:
        GateRefused: If it does not pass and is to be kept; names every threshold that was missed.
    """
    report = result.evaluation
    if report is None or report.passed:
        return target
    if gate.failed is Failed.PUBLISH and target is not None:
        return dataclasses.replace(target, alias=None)
    missed = missed_thresholds(report)
    lines = list(missed)
    lines.append(f"The adapter is kept in {result.output.adapter}, the report in {result.output.evaluation}.")
    if target is not None:
        lines.append(f"To publish it all the same:\n  {target.command(result.output.directory)}")
    headline = f"the adapter does not pass its gate; it misses {len(missed)} of {len(report.checks)} thresholds:"
    raise GateRefused("\n".join([headline, *lines]))


def missed_thresholds(report: Report) -> tuple[str, ...]:
    """Returns a line for every threshold that does not hold."""
    missed = (check for check in report.checks if not check.passed)
    return tuple(f"  {check.name}: {check.found}, wanted {check.wanted}" for check in missed)
