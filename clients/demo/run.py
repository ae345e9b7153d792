"""The demo: train two adapters at once, publish them into a running server, ask, measure, judge.

Everything goes through the public commands and clients; the server is never
restarted, and adapters appear in it because they are published.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from switchyard.clients.asking import Asking
from switchyard.clients.demo import report as reporting
from switchyard.clients.demo import scenes, scoring
from switchyard.clients.demo.children import Child, Children, wait_for_facts, wait_until_all_end
from switchyard.clients.demo.material import (
    Scale,
    TaskMaterial,
    base_directory,
    claim_directory,
    weakened_copy,
    write_tasks,
)
from switchyard.clients.demo.report import Report, TaskResult
from switchyard.clients.demo.scrape import highlights, scrape
from switchyard.clients.demo.training import METRICS_NAME, RunWatch
from switchyard.clients.embedded import PROGRAM
from switchyard.clients.inference import InferenceClient
from switchyard.clients.records import Version
from switchyard.clients.registry import RegistryClient
from switchyard.clients.render import console, print_json

ALIAS: Final = "prod"
_BASE_ROWS: Final = 100
_CONCURRENCY: Final = 32
"""Requests under way at once, and sequences in the server's batch."""
_CONTEXT_TOKENS: Final = 512
"""Enough for any row; keeps the KV cache small when the base could take much more."""
_PROMPTS_PER_TASK: Final = 2
_PASSIVE: Final = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Waiting threads must sleep: with fewer free cores than threads, spinning ones were 15 to 25 times slower."""
_READY_S: Final = 600.0
_WATCH_S: Final = 0.5


def run_demo(
    *,
    scale: Scale,
    directory: Path | None,
    serve: bool,
    as_json: bool,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Runs the whole demo and prints what it found.

    Args:
        scale: which base, how many steps and how many rows.
        directory: where everything goes; None makes a new one here.
        serve: whether to leave the server running until Ctrl-C.
        as_json: whether to print one JSON document instead of tables.
        program: command line of `switchyard` for the child processes.

    Returns:
        0 when every check passed, else 1.

    Raises:
        DemoFailed: a step failed.
        ClientError: the server refused or failed.
    """
    output = console(stderr=as_json)
    place = claim_directory(directory)
    output.print(Text(f"switchyard demo in {place}"), soft_wrap=True)
    (place / "logs").mkdir()
    with _sigterm_like_ctrl_c(), Children(place / "logs", program) as children:
        demo = _Demo(place, children, output)
        report = demo.run(scale)
        if as_json:
            print_json(report.document())
        else:
            reporting.show(report, output)
        output.print()
        output.print(Text(reporting.summary_line(report), style="bold"), soft_wrap=True)
        if serve:
            demo.wait_for_interrupt()
    return int(not all(check.passed for check in report.checks()))


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Ends the block as Ctrl-C would, so that no child outlives a demo that is told to stop."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Demo:
    """The steps, and what one leaves for the next."""

    def __init__(self, place: Path, children: Children, output: Console) -> None:
        self._place = place
        self._children = children
        self._output = output
        self._report = Report()
        self._tasks: list[TaskMaterial] = []
        self._versions: dict[str, Version] = {}
        self._losses: dict[str, float | None] = {}
        self._server: Child | None = None
        self._address = ""

    def run(self, scale: Scale) -> Report:
        """Every step in order."""
        with self._step("data"):
            self._tasks = write_tasks(self._children, self._place / "tasks", scale)
            base_place = base_directory(scale.base, self._tasks[0].recipe, self._children)
        ready = self._place / "server.json"
        self._server = server = self._start_server(base_place, ready)
        with self._step("training"):
            runs = self._train(base_place if scale.base is not None else None)
        with self._step("publishing"):
            facts = wait_for_facts(server, ready, _READY_S)
            self._address = str(facts["grpc"])
            self._publish()
        with self._step("measuring"):
            self._measure(runs)
        with self._step("scenes"):
            self._play()
            self._report.metrics = highlights(scrape(str(facts["http"])))
        return self._report

    def wait_for_interrupt(self) -> None:
        """Keeps the server up and names three things to do with it."""
        first = self._tasks[0]
        prompt = first.rows[0].prompt
        quoted = "$" + shlex.quote(prompt.replace("\\", "\\\\").replace("\n", "\\n"))
        self._output.print(Text(f"\nthe server runs at {self._address} until Ctrl-C; try:"))
        for command in (
            f"switchyard generate {first.adapter}@{ALIAS} {quoted} --server {self._address}",
            f"switchyard ls {first.adapter} --server {self._address}",
            f"switchyard status --server {self._address}",
        ):
            self._output.print(Text(f"  {command}"), soft_wrap=True)
        try:
            while self._server is not None and self._server.running():
                time.sleep(_WATCH_S)
        except KeyboardInterrupt:
            self._output.print("stopping the server")

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        start_s = time.monotonic()
        yield
        seconds = time.monotonic() - start_s
        self._report.seconds[name] = seconds
        self._output.print(Text(f"{name} took {seconds:.1f} s", style="dim"))

    def _start_server(self, base: Path, ready: Path) -> Child:
        registry = self._place / "registry"
        arguments = ["--base", str(base), "--registry", str(registry), "--ready-file", str(ready)]
        limits = ["--max-sequences", str(_CONCURRENCY), "--max-context-tokens", str(_CONTEXT_TOKENS)]
        ports = ["--port", "0", "--health-port", "0", "--http-port", "0"]
        limits += ["--threads", self._threads()]
        return self._children.start("server", ["serve", *arguments, *limits, *ports], environment=_PASSIVE)

    def _threads(self) -> str:
        """Threads of each training run, and of the server, whose caller needs cores too."""
        return str(max(1, len(os.sched_getaffinity(0)) // len(self._tasks)))

    def _train(self, base: Path | None) -> dict[str, float]:
        """Trains every task at once, a share of the cores each; returns wall seconds by task."""
        threads = self._threads()
        chosen = ["--base", str(base)] if base is not None else []
        with self._bars() as bars:
            watches, runs = [], {}
            for task in self._tasks:
                out = self._place / "runs" / task.name
                arguments = ["train", str(task.recipe), *chosen, "--out", str(out), "--threads", threads]
                runs[task.name] = self._children.start(f"train-{task.name}", arguments, environment=_PASSIVE)
                bar = bars.add_task(f"training {task.name}", total=None, note="loading")
                watches.append(RunWatch(out / METRICS_NAME, bar))
            ended: dict[str, float] = {}

            def watch() -> None:
                if self._server is not None:
                    self._server.running()
                for task, seen in zip(self._tasks, watches, strict=True):
                    seen.update(bars)
                    if task.name not in ended and runs[task.name].process.poll() == 0:
                        ended[task.name] = time.monotonic() - runs[task.name].started_s
                        bars.update(seen.task, note=f"{bars.tasks[seen.task].fields['note']}  done")

            wait_until_all_end(list(runs.values()), watch)
        self._losses = {task.name: seen.last_loss for task, seen in zip(self._tasks, watches, strict=True)}
        return ended

    def _publish(self) -> None:
        """Pushes every adapter into the running server, and the first one weakened as its second version."""
        for task in self._tasks:
            self._push(task, self._place / "runs" / task.name, ["--alias", ALIAS, "--expect-generation", "0"])
        first = self._tasks[0]
        weak = weakened_copy(
            self._place / "runs" / first.name / "adapter", self._place / "runs" / f"{first.name}-weak"
        )
        self._push(first, weak, ["--note", "the same weights at half strength", *self._base_digest(first)])
        with RegistryClient(self._address) as client:
            self._versions = {task.name: client.show(f"{task.adapter}@{ALIAS}") for task in self._tasks}

    def _base_digest(self, task: TaskMaterial) -> list[str]:
        with RegistryClient(self._address) as client:
            return ["--base-digest", client.show(f"{task.adapter}@{ALIAS}").base_model.digest]

    def _push(self, task: TaskMaterial, directory: Path, options: list[str]) -> None:
        name = f"push-{directory.name}"
        self._children.run(name, ["push", str(directory), task.adapter, *options, "--server", self._address])

    def _measure(self, runs: dict[str, float]) -> None:
        """Held-out accuracy of base and adapter on every task: all four at once, through the one server."""
        with self._bars() as bars:
            measured = [
                measurement
                for task in self._tasks
                for measurement in (
                    self._measurement(bars, task, "base", Asking(base=True), _BASE_ROWS),
                    self._measurement(
                        bars, task, "adapter", Asking(adapter=f"{task.adapter}@{ALIAS}"), len(task.rows)
                    ),
                )
            ]
            scores = asyncio.run(scoring.measure_all(self._address, measured, _CONCURRENCY))
        for index, task in enumerate(self._tasks):
            self._report.tasks.append(
                TaskResult(
                    name=task.name,
                    version=self._versions[task.name],
                    train_s=runs[task.name],
                    loss=self._losses[task.name],
                    before=scores[2 * index],
                    after=scores[2 * index + 1],
                )
            )

    def _measurement(
        self, bars: Progress, task: TaskMaterial, who: str, chosen: Asking, count: int
    ) -> scoring.Measurement:
        rows = task.rows[:count]
        bar = bars.add_task(f"{task.name}: {who}", total=len(rows), note="")
        limit = scoring.longest_answer_tokens(rows)

        def done(score: scoring.Score) -> None:
            bars.update(bar, completed=score.asked, note=f"{score.right} right")

        return scoring.Measurement(rows, Asking(temperature=0.0, max_tokens=limit) | chosen, done)

    def _play(self) -> None:
        """The scenes: one mixed batch, a promote under a stream, a composition."""
        rows = [row for task in self._tasks for row in task.rows[:_PROMPTS_PER_TASK]]
        targets = [scenes.Target("base", Asking(base=True), "")]
        for task in self._tasks:
            ref = f"{task.adapter}@{ALIAS}"
            targets.append(scenes.Target(ref, Asking(adapter=ref), self._versions[task.name].digest))
        limit = scoring.longest_answer_tokens(rows)
        self._report.batch = asyncio.run(scenes.ask_mixed(self._address, targets, rows, limit))
        first = self._tasks[0]
        with InferenceClient(self._address) as client, RegistryClient(self._address) as registry:
            second = registry.show(f"{first.adapter}:{self._versions[first.name].version + 1}")
            pair = (self._versions[first.name], second)
            prompt = first.rows[0].prompt
            self._report.promote = scenes.promote_under_stream(client, registry, prompt, ALIAS, pair)
            self._report.composed = scenes.compose(client, prompt, pair, limit)

    def _bars(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self._output)
