"""What the demo found, as tables for people and as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.clients.answers import Answer, short_digest
from switchyard.clients.demo.scenes import BatchLine, MixedBatch, PromoteScene
from switchyard.clients.demo.scoring import Score
from switchyard.clients.records import Version
from switchyard.clients.render import facts_table, plain_values, safe, size, tokens_per_s

_PROMPT_CHARACTERS = 26
_ANSWER_CHARACTERS = 44


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo must show; `detail` says what was found."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task: what was trained and published, and what it is worth.

    Attributes:
        name: name of the task.
        version: what was published.
        train_s: wall seconds of its training run.
        loss: training loss at the end, in nats per token; None when the run logged none.
        before: the base model's score on held-out rows.
        after: the adapter's score on held-out rows.
    """

    name: str
    version: Version
    train_s: float
    loss: float | None
    before: Score
    after: Score


@dataclass(slots=True)
class Report:
    """Everything that the demo found, filled step by step.

    Attributes:
        tasks: the trained tasks.
        batch: the mixed batch.
        promote: the promote under a stream.
        composed: the answer of both adapters together.
        metrics: highlights of one scrape.
        seconds: wall seconds of each step, in order.
    """

    tasks: list[TaskResult] = field(default_factory=list)
    batch: MixedBatch | None = None
    promote: PromoteScene | None = None
    composed: Answer | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def checks(self) -> list[Check]:
        """What must hold for the demo to have shown what it claims."""
        found = [_better(task) for task in self.tasks]
        if self.batch is not None:
            lines = self.batch.lines
            as_asked = sum(line.served_as_asked for line in lines)
            same = sum(line.same_alone for line in lines)
            found += [
                Check("every answer came from the version that was asked", as_asked == len(lines),
                      f"{as_asked} of {len(lines)}"),
                Check("tokens in the batch equal tokens alone", same == len(lines), f"{same} of {len(lines)}"),
                Check("targets shared one batch", self.batch.most_running > 1,
                      f"{self.batch.most_running} sequences seen running at once"),
            ]  # fmt: skip
        if self.promote is not None:
            found.append(
                Check("a promote left the running stream on its version", self.promote.held, _promoted(self.promote))
            )
        return found

    def document(self) -> object:
        """The report as values that JSON has."""
        return {
            "tasks": [
                {**_mapping(plain_values(task)), "before": _score(task.before), "after": _score(task.after)}
                for task in self.tasks
            ],
            "batch": plain_values(self.batch),
            "promote": plain_values(self.promote),
            "composed": plain_values(self.composed),
            "metrics": dict(self.metrics),
            "seconds": self.seconds,
            "checks": plain_values(self.checks()),
        }


def show(report: Report, output: Console) -> None:
    """Prints every table of the report."""
    _section(output, "One prompt set, one engine batch: base and both adapters together")
    if report.batch is not None:
        output.print(batch_table(report.batch))
    if report.promote is not None:
        _section(output, "A promote while a stream runs")
        for line in promote_lines(report.promote):
            output.print(Text(line), soft_wrap=True)
    if report.composed is not None:
        _section(output, "Both adapters at once, per request")
        composed = report.composed
        output.print(
            Text(safe(f"{composed.served_by.label}  recipe {short_digest(composed.served_by.recipe_digest)}"))
        )
        output.print(Text(safe(f"answer: {_cut(composed.text, 72)}")))
    _section(output, "From one scrape of /metrics")
    output.print(facts_table(report.metrics))
    _section(output, "Held-out accuracy, exact match, 95 % intervals")
    output.print(tasks_table(report.tasks))
    _section(output, "Checks")
    for check in report.checks():
        mark = Text("ok    ", style="green") if check.passed else Text("FAILED", style="bold red")
        output.print(Text.assemble(mark, f" {check.name}: {safe(check.detail)}"), soft_wrap=True)


def summary_line(report: Report) -> str:
    """The demo in one line."""
    parts = [f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items()]
    total_s = sum(report.seconds.values())
    failed = sum(not check.passed for check in report.checks())
    verdict = "all checks passed" if not failed else f"{failed} checks FAILED"
    return f"demo took {total_s:.0f} s ({', '.join(parts)}); {verdict}"


def batch_table(batch: MixedBatch) -> Table:
    """One line per answer of the mixed batch."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("target", "prompt", "answer"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    table.add_column("right")
    table.add_column("served by", no_wrap=True)
    for heading in ("tokens", "TTFT ms", "tok/s"):
        table.add_column(heading, justify="right")
    previous = ""
    for line in batch.lines:
        table.add_row(*_batch_cells(line, first=line.target.label != previous))
        previous = line.target.label
    return table


def tasks_table(tasks: list[TaskResult]) -> Table:
    """One line per task: base before, adapter after."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("task")
    for heading in ("base before", "adapter after"):
        table.add_column(heading)
    for heading in ("adapter", "digest"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "training", "loss"):
        table.add_column(heading, justify="right")
    for task in tasks:
        table.add_row(
            task.name,
            score_text(task.before),
            score_text(task.after),
            task.version.ref,
            short_digest(task.version.digest),
            size(task.version.shape.weights_bytes),
            f"{task.train_s:.0f} s",
            f"{task.loss:.4f}" if task.loss is not None else "",
        )
    return table


def score_text(score: Score) -> str:
    """A share with its counts and interval, e.g. `99.2 % (496/500, 98.0-99.7)`."""
    low, high = score.interval
    return f"{score.share:.1%} ({score.right}/{score.asked}, {low * 100:.1f}-{high * 100:.1f})".replace("%", " %", 1)


def promote_lines(scene: PromoteScene) -> tuple[str, str]:
    """The promote in two lines."""
    stream, after = scene.stream, scene.after
    return (
        safe(
            f"stream   began and ended on {stream.served_by.label}; the alias moved after "
            f"{scene.tokens_before} of its {stream.usage.completion_tokens} tokens"
        ),
        safe(f"next     answered by {after.served_by.label}, alias generation "
             f"{after.served_by.adapters[0].alias_generation}"),
    )  # fmt: skip


def _promoted(scene: PromoteScene) -> str:
    return f"stream {scene.stream.served_by.label}, next {scene.after.served_by.label}"


def _better(task: TaskResult) -> Check:
    passed = task.after.interval[0] > task.before.interval[1]
    detail = f"base {score_text(task.before)}, adapter {score_text(task.after)}"
    return Check(f"{task.name}: the adapter beats the base beyond both intervals", passed, detail)


def _batch_cells(line: BatchLine, *, first: bool) -> list[Text]:
    speed = tokens_per_s(line.answer)
    served = line.answer.served_by.label
    return [
        Text(line.target.label if first else "", style="bold"),
        Text(_cut(line.row.prompt, _PROMPT_CHARACTERS)),
        Text(_cut(line.answer.text, _ANSWER_CHARACTERS)),
        Text("yes", style="green") if line.right else Text("no", style="dim"),
        Text(safe(served)),
        Text(str(line.answer.usage.completion_tokens)),
        Text(f"{line.answer.timing.time_to_first_token_s * 1000:.0f}"),
        Text(f"{speed:.0f}" if speed is not None else ""),
    ]


def _cut(text: str, characters: int) -> str:
    flat = safe(" ".join(text.split()))
    return flat if len(flat) <= characters else f"{flat[: characters - 1]}…"


def _score(score: Score) -> dict[str, object]:
    return {**_mapping(plain_values(score)), "share": score.share, "interval": list(score.interval)}


def _mapping(found: object) -> dict[str, object]:
    return found if isinstance(found, dict) else {}


def _section(output: Console, title: str) -> None:
    output.print()
    output.print(Text(title, style="bold"))
