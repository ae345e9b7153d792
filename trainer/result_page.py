"""What a finished run says: one JSON object for programs, a few lines for people."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.trainer.gate.report import Report
from switchyard.trainer.publish import Published
from switchyard.trainer.result import TrainResult


def print_result(result: TrainResult, published: Published | None, *, as_json: bool) -> None:
    """Prints a run to standard output, with the version that it became, if any."""
    if as_json:
        version = dataclasses.asdict(published) if published is not None else None
        typer.echo(json.dumps(result.document() | {"published": version}, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in _summary(result, published).items():
        table.add_row(key, Text(value))
    console = Console()
    console.print(table, highlight=False)
    for warning in [*result.warnings, *(published.warnings if published is not None else ())]:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _summary(result: TrainResult, published: Published | None) -> dict[str, str]:
    figures = result.figures
    rows = {
        "adapter": str(result.output.adapter),
        "loss": f"{figures.first_loss:.4f} → {figures.final_loss:.4f} in {figures.steps:,} steps",
    }
    if figures.adapter_step != figures.steps:
        rows["kept"] = f"the state after step {figures.adapter_step:,}, the best on dev"
    for split in ("dev", "test"):
        score = figures.score(split)
        if score is not None:
            margin = "" if score.reward_margin is None else f", reward margin {score.reward_margin:+.4f}"
            rows[split] = (
                f"loss {score.loss:.4f}, {score.token_accuracy:.2%} of tokens right{margin}, {score.rows} rows"
            )
    if result.evaluation is not None:
        rows["gate"] = _verdict_line(result.evaluation)
        rows["report"] = str(result.output.evaluation / "report.md")
    rows["time"] = f"{figures.train_s:.1f} s of training, {figures.tokens_per_s:,.0f} tokens/s"
    rows["curves"] = str(result.output.curves)
    if result.output.merged.exists():
        rows["merged"] = f"{result.output.merged}; GGUF.md in it says how to go on to llama.cpp"
    if published is not None:
        alias = f", alias {published.alias}" if published.alias is not None else ""
        rows["published"] = f"{published.ref}{alias}"
        rows["digest"] = published.digest
    return rows


def _verdict_line(report: Report) -> str:
    adapter = report.subjects["adapter"]
    found = [f"{name} {adapter.of(name).mean:.2%}" for name in adapter.rows]
    found.append(f"perplexity {adapter.perplexity:.4g}")
    return f"{'passed' if report.passed else 'did not pass'}: {', '.join(found)} of {report.rows:,} rows"
