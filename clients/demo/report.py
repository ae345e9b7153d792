"""What the demo found, as tables for people and as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.clients.answers import short_digest
from switchyard.clients.demo.scenes import BatchLine, ComposedScene, MixedBatch, PromoteScene
from switchyard.clients.demo.scoring import Score
from switchyard.clients.records import Version
from switchyard.clients.render import facts_table, plain_values, safe, size, tokens_per_s

_NUMBERS_CELLS: Final = 40
"""What the columns of numbers take, their gaps included."""
_LEAST_TEXT_CELLS: Final = 40


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
        composed: a composition that must equal one of its parts.
        metrics: highlights of one scrape.
        seconds: wall seconds of each step, in order.
    """

    tasks: list[TaskResult] = field(default_factory=list)
    batch: MixedBatch | None = None
    promote: PromoteScene | None = None
    composed: ComposedScene | None = None
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
        if self.composed is not None:
            found.append(
                Check("0.5 x a version + 1 x its half gives its tokens", self.composed.equal,
                      f"{len(self.composed.whole.token_ids)} tokens")
            )  # fmt: skip
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
        print_batch(report.batch, output)
    if report.promote is not None:
        _section(output, "A promote while a stream runs")
        for line in promote_lines(report.promote):
            output.print(Text(line), soft_wrap=True)
    if report.composed is not None:
        _section(output, "Two versions composed in one request")
        for line in composed_lines(report.composed):
            output.print(Text(line), soft_wrap=True)
    _section(output, "From one scrape of /metrics")
    output.print(facts_table(report.metrics))
    _section(output, "Published into the running server")
    output.print(published_table(report.tasks))
    _section(output, "Held-out accuracy, exact match, with 95 % intervals")
    output.print(accuracy_table(report.tasks))
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


def print_batch(batch: MixedBatch, output: Console) -> None:
    """Prints the mixed batch: one heading per target with what served it, one line per answer."""
    free = max(output.width - _NUMBERS_CELLS, _LEAST_TEXT_CELLS)
    prompt_cells = free * 2 // 5
    for target in dict.fromkeys(line.target.label for line in batch.lines):
        lines = [line for line in batch.lines if line.target.label == target]
        served = sorted({line.answer.served_by.label for line in lines})
        output.print(Text.assemble((target, "bold"), f"  served by {safe(' and '.join(served))}"), soft_wrap=True)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("  prompt", width=prompt_cells, no_wrap=True)
        table.add_column("answer", width=free - prompt_cells, no_wrap=True)
        for heading in ("right", "tokens", "TTFT ms", "tok/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*_batch_cells(line, prompt_cells, free - prompt_cells))
        output.print(table)


def accuracy_table(tasks: list[TaskResult]) -> Table:
    """One line per task: base before, adapter after, with counts and intervals."""
    table = _table("task", "base before", "adapter after")
    for task in tasks:
        table.add_row(task.name, score_text(task.before), score_text(task.after))
    return table


def published_table(tasks: list[TaskResult]) -> Table:
    """One line per published adapter and the run that made it."""
    table = _table("adapter", "digest", ">weights", ">training", ">final loss")
    for task in tasks:
        table.add_row(
            f"{task.version.ref}  {' '.join('@' + alias for alias in task.version.aliases)}",
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
        safe(f"next     answered by {after.served_by.label}, asked through the same alias"),
    )


def composed_lines(scene: ComposedScene) -> tuple[str, str]:
    """The composition in two lines."""
    served = scene.composed.served_by
    same = "the same tokens as" if scene.equal else "OTHER tokens than"
    return (
        safe(f"{served.label}  recipe {short_digest(served.recipe_digest)}"),
        safe(f"{same} {scene.whole.served_by.label}: {_cut(scene.composed.text, 40)}"),
    )


def _promoted(scene: PromoteScene) -> str:
    served = [answer.served_by.adapters for answer in (scene.stream, scene.after)]
    stream, after = (adapters[0].ref if adapters else "base" for adapters in served)
    return f"stream {stream}, next {after}"


def _better(task: TaskResult) -> Check:
    passed = task.after.interval[0] > task.before.interval[1]
    detail = f"{task.after.share:.1%} against {task.before.share:.1%}"
    return Check(f"{task.name}: adapter beats base, intervals apart", passed, detail)


def _table(*columns: str) -> Table:
    """Columns by their headings; a leading `>` aligns to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True
        )
    return table


def _batch_cells(line: BatchLine, prompt_cells: int, answer_cells: int) -> list[Text]:
    speed = tokens_per_s(line.answer)
    return [
        Text(f"  {_cut(line.row.prompt, prompt_cells - 2)}"),
        Text(_cut(line.answer.text, answer_cells)),
        Text("yes", style="green") if line.right else Text("no", style="dim"),
        Text(str(line.answer.usage.completion_tokens)),
        Text(f"{line.answer.timing.time_to_first_token_s * 1000:.0f}"),
        Text(f"{speed:.0f}" if speed is not None else ""),
    ]


def _cut(text: str, cells: int) -> str:
    """One line of at most `cells` terminal cells; a Chinese character takes two."""
    flat = safe(" ".join(text.split()))
    if cell_len(flat) <= cells:
        return flat
    return f"{set_cell_size(flat, cells - 1).rstrip()}…"


def _score(score: Score) -> dict[str, object]:
    return {**_mapping(plain_values(score)), "share": score.share, "interval": list(score.interval)}


def _mapping(found: object) -> dict[str, object]:
    return found if isinstance(found, dict) else {}


def _section(output: Console, title: str) -> None:
    output.print()
    output.print(Text(title, style="bold"))
