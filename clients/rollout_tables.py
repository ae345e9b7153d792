"""Tables of rollouts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from switchyard.clients.render import facts_table, lined_table, moment, row, safe
from switchyard.clients.rollouts import Rollout, RolloutPlan, RolloutState, Side

_UNITS = {"ttft": "s", "itl": "s"}


def rollout_tables(found: Rollout) -> list[Table]:
    """What a rollout is, both versions side by side, and its conditions."""
    tables = [_facts(found)]
    if found.first is not None and found.second is not None:
        tables.append(_sides(found.first, found.second))
    if found.conditions:
        tables.append(_conditions(found))
    return tables


def rollouts_table(found: Sequence[Rollout]) -> Table:
    """One line per rollout."""
    table = lined_table("alias", ">to", ">share", ">step", ">elapsed", ">window", ">answers", ">servers", "breached")
    for one in found:
        plan, share = one.plan, one.plan.shares[one.step]
        row(
            table,
            f"{one.adapter}@{one.alias}",
            str(plan.candidate),
            f"{share} %",
            f"{one.step + 1} of {len(plan.shares)}",
            f"{one.elapsed_s:.0f} s",
            f"{plan.window_s:g} s",
            " : ".join(str(side.answers) for side in (one.first, one.second) if side),
            str(one.servers),
            ", ".join(condition.name for condition in one.conditions if condition.standing.value == "breached"),
        )
    return table


def _facts(found: Rollout) -> Table:
    plan = found.plan
    shares = ", ".join(
        f"[{share} %]" if step == found.step and found.state is RolloutState.WATCHING else f"{share} %"
        for step, share in enumerate(plan.shares)
    )
    return facts_table(
        {
            "rollout": f"{found.adapter}@{found.alias}  to version {plan.candidate}",
            "state": found.state.value.replace("_", " "),
            "shares": f"{shares}  for {plan.window_s:g} s each",
            "asked for": _asked(plan),
            "elapsed": f"{found.elapsed_s:.1f} s, {found.servers} server(s)" if found.first else "",
            "moved": f"#{found.generation} at {moment(found.moved_at_s)} UTC by {safe(found.actor)}",
            "reason": safe(found.reason),
        }
    )


def _asked(plan: RolloutPlan) -> str:
    asked = [f"{plan.min_answers} answers each", f"{plan.max_not_finite} NaN"]
    asked.append(f"failures +{100 * (plan.max_failure_increase or 0.0):g} %")
    asked += [
        f"{name} x{ratio:g}" for name, ratio in (("TTFT", plan.max_ttft_ratio), ("ITL", plan.max_itl_ratio)) if ratio
    ]
    left = plan.if_undecided.value if plan.if_undecided else "keep"
    return f"{', '.join(asked)}; otherwise {left} the split"


def _sides(first: Side, second: Side) -> Table:
    table = lined_table("", ">version", ">answers", ">failures", ">NaN", ">TTFT p90", ">ITL p90")
    for name, side in (("first", first), ("second", second)):
        counts = (side.version, side.answers, side.failures, side.not_finite)
        row(table, name, *map(str, counts), _milliseconds(side.ttft_p90_s), _milliseconds(side.itl_p90_s))
    return table


def _conditions(found: Rollout) -> Table:
    table = lined_table("condition", "standing", ">first", ">second", ">at most")
    for one in found.conditions:
        measures = (_measure(one.name, value) for value in (one.first, one.second, one.limit))
        row(table, one.name, one.standing.value, *measures)
    return table


def _measure(condition: str, value: float | None) -> str:
    if condition in _UNITS:
        return _milliseconds(value)
    if value is None:
        return "-"
    return f"{100 * value:.3g} %" if condition == "failures" else f"{value:g}"


def _milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{1000 * value_s:.3g} ms"
