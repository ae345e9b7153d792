"""`canary`: guarded rollouts, started, looked at and stopped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from switchyard.clients.commands.options import (
    AliasArgument,
    ExpectGenerationOption,
    JsonOption,
    ReasonOption,
    alias_parts,
)
from switchyard.clients.render import console, print_json
from switchyard.clients.rollout_tables import rollout_tables, rollouts_table
from switchyard.clients.rollouts import RolloutPlan, Undecided
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Let a version earn an alias: a share of the traffic, watched, promoted or taken back by itself.",
)
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|d)?")
_SECONDS: Final = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"found {text!r}, expected a duration, like 90s, 10m or 1h.")
    return float(match[1]) * _SECONDS[match[2]]


CandidateOption = Annotated[int, typer.Option("--to", metavar="N", min=1, help="Number of the version to try.")]
SharesOption = Annotated[
    list[int] | None,
    typer.Option(
        "--share",
        metavar="P",
        min=1,
        max=99,
        help="Percentage of session keys; repeat it for further steps. 10 unless given.",
        show_default=False,
    ),
]
WindowOption = Annotated[
    float, typer.Option("--window", metavar="T", parser=_seconds, help="Time that each step lasts, like 10m.")
]
MinAnswersOption = Annotated[int, typer.Option(metavar="N", min=1, help="Answers that both versions need.")]
NotFiniteOption = Annotated[int, typer.Option(metavar="N", min=0, help="Answers that may end in NaN.")]
FailuresOption = Annotated[
    float, typer.Option(metavar="P", min=0, max=100, help="Percentage points more that may fail.")
]
TtftOption = Annotated[
    float, typer.Option(metavar="X", min=0, help="Times as long to the first token; 0 compares nothing.")
]
ItlOption = Annotated[
    float, typer.Option(metavar="X", min=0, help="Times as long between tokens; 0 compares nothing.")
]
SlackOption = Annotated[float, typer.Option(metavar="MS", min=0, help="Milliseconds that count as nothing.")]
UndecidedOption = Annotated[Undecided, typer.Option(help="What becomes of the split when too little was asked.")]


@app.command("start")
def start(
    context: typer.Context,
    alias_ref: AliasArgument,
    candidate: CandidateOption,
    shares: SharesOption = None,
    window_s: WindowOption = "10m",  # type: ignore[assignment]  # typer parses the default, too
    min_answers: MinAnswersOption = 50,
    max_not_finite: NotFiniteOption = 0,
    max_failures: FailuresOption = 2.0,
    max_ttft: TtftOption = 1.5,
    max_itl: ItlOption = 1.5,
    slack_ms: SlackOption = 5.0,
    if_undecided: UndecidedOption = Undecided.KEEP,
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a version on a part of an alias's traffic.

    Every server of the registry counts answers, failures, NaN and latency of both versions. A version that
    does worse is taken back at once; one that does well until the end is promoted.
    """
    adapter, alias = alias_parts(alias_ref, context)
    plan = RolloutPlan(
        candidate,
        tuple(shares or ()),
        window_s=window_s,
        min_answers=min_answers,
        max_not_finite=max_not_finite,
        max_failure_increase=max_failures / 100,
        max_ttft_ratio=max_ttft,
        max_itl_ratio=max_itl,
        latency_slack_s=slack_ms / 1000,
        if_undecided=if_undecided,
    )
    with open_registry(choose(context, server, registry)) as client:
        found = client.rollouts.start(adapter, alias, plan, expected_generation=expect_generation, reason=reason)
    print_json(found) if as_json else _print(rollout_tables(found))


@app.command("status")
def status(
    context: typer.Context,
    alias_ref: AliasArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last rollout of an alias: where it is, what was seen, how every condition stands."""
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        found = client.rollouts.status(adapter, alias)
    print_json(found) if as_json else _print(rollout_tables(found))


@app.command("ls")
def list_running(
    context: typer.Context,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the rollouts that go on."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.rollouts.running()
    print_json(found) if as_json else _print([rollouts_table(found)])


@app.command("stop")
def stop(
    context: typer.Context,
    alias_ref: AliasArgument,
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a rollout: the first version gets all traffic again."""
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        found = client.rollouts.stop(adapter, alias, expected_generation=expect_generation, reason=reason)
    print_json(found) if as_json else _print(rollout_tables(found))


def _print(tables: Sequence[object]) -> None:
    for number, table in enumerate(tables):
        console().print(*([""] if number else []), table, sep="\n")
