"""Trials: a scenario in a copy of its registry, a fault, and what the oracle says afterwards."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeAlias

from durability import Durability
from handmade import write_adapter, write_base
from registry_actor import killer, open_registry
from registry_oracle import faults_of, lost, picture
from reports import Report, lines_of
from scenarios import SCENARIOS, RegisterBase, Scenario
from syscalls import Call, calls_of, run_traced

from switchyard.registry.errors import RegistryError
from switchyard.registry.steps import Step, ignore_step

CLEAN_ERROR = 3
"""Exit code of a process that got an error from the registry's tree each time."""
SOURCES = 4
_RUN_S = 120.0


Mutation: TypeAlias = Callable[[], None]
"""Breaks the registry in the process that calls it, to see which test notices."""


def nothing() -> None:
    """The registry as it is."""


def act(
    root: Path,
    sources: Path,
    report_path: Path,
    scenario: str,
    *,
    attempts: int = 1,
    on_step: Callable[[Step], None] = ignore_step,
    on_promise: Callable[[], None] = nothing,
    mutate: Mutation = nothing,
) -> None:
    """Makes the calls of a scenario and acknowledges each; the process ends with 0, `CLEAN_ERROR` or 1.

    Args:
        root: the registry.
        sources: adapters to publish.
        report_path: where acknowledgements go.
        scenario: its name.
        attempts: how often a call that failed is made in all, in the same process.
        on_step: told of each step.
        on_promise: told of each acknowledgement.
        mutate: breaks the registry first, to see who notices.
    """
    with closing(Report(report_path)) as report:
        mutate()
        try:
            with open_registry(root, on_step, later_s=SCENARIOS[scenario].later_s) as registry:
                for operation in SCENARIOS[scenario].act:
                    for attempt in range(attempts):
                        try:
                            report.add(promise=operation.perform(registry, sources))
                            on_promise()
                            break
                        except RegistryError:
                            if attempt + 1 == attempts:
                                raise
        except RegistryError:
            raise SystemExit(CLEAN_ERROR) from None
        except BaseException:
            report.add(crash=traceback.format_exc())
            raise SystemExit(1) from None


def act_as(root: Path, sources: Path, report_path: Path, scenario: str, mutate: Mutation) -> None:
    """A process with a mistake in it."""
    act(root, sources, report_path, scenario, mutate=mutate)


def act_until_step(
    root: Path,
    sources: Path,
    report_path: Path,
    scenario: str,
    step: Step,
    occurrence: int,
    mutate: Mutation = nothing,
) -> None:
    """A process that is killed when it passes a step for the n-th time."""
    act(root, sources, report_path, scenario, on_step=killer(step, occurrence), mutate=mutate)


def act_twice(root: Path, sources: Path, report_path: Path, scenario: str, mutate: Mutation = nothing) -> None:
    """A process that tries again after an error, on the same files and connections."""
    act(root, sources, report_path, scenario, attempts=2, mutate=mutate)


def examine(
    root: Path,
    sources: Path,
    report_path: Path,
    scenario: str,
    race: Callable[[Path, Path], list[str]],
    mutate: Mutation = nothing,
) -> None:
    """Reports what a race makes go wrong."""
    with closing(Report(report_path)) as report:
        mutate()
        try:
            faults = race(root, sources)
        except Exception as error:
            faults = [f"{type(error).__name__}: {error}", *faults_of(root)]
        for fault in faults:
            report.add(fault=fault)


def note_steps(root: Path, sources: Path, report_path: Path, scenario: str) -> None:
    """Lists the steps that a scenario passes."""
    seen: list[Step] = []
    act(root, sources, report_path, scenario, on_step=seen.append)
    with closing(Report(report_path)) as report:
        report.add(steps=seen)


@dataclass(frozen=True, slots=True)
class Trial:
    """One copy of a scenario's registry.

    Attributes:
        scenario: what is done to it.
        root: the directory.
        sources: adapters to publish.
        report: written by the process.
        log: written by strace.
        before: the picture of the registry as it was.
        expected: its picture once everything is done; None to find out.
    """

    scenario: Scenario
    root: Path
    sources: Path
    report: Path
    log: Path
    before: dict[str, Any]
    expected: dict[str, Any] | None

    @property
    def arguments(self) -> tuple[Path, Path, Path, str]:
        """What `act` takes first."""
        return self.root, self.sources, self.report, self.scenario.name

    def told(self, kind: str) -> list[Any]:
        """The lines of the report of one kind."""
        return [line[kind] for line in lines_of(self.report) if kind in line]

    def calls(self) -> list[Call]:
        """The system calls of the process."""
        return calls_of(self.log)

    def order_faults(self) -> list[str]:
        """Everything that the process promised or relied on before it was durable."""
        return Durability(self.root, self.report).follow(self.calls())

    def faults(self) -> list[str]:
        """Everything that is wrong after a fault: at once, after the client's retries, and left over at the end."""
        found = [f"the process did not fail cleanly: {crash}" for crash in self.told("crash")]
        found += faults_of(self.root) + lost(self.root, self.told("promise")) + self._halves()
        with open_registry(self.root, later_s=self.scenario.later_s) as registry:
            again = [operation.perform(registry, self.sources) for operation in self.scenario.act]
        found += [f"after the retry: {fault}" for fault in faults_of(self.root, strict=True) + lost(self.root, again)]
        now = picture(self.root)
        if self.expected is not None:
            found += [
                f"after the retry: {name} are {now[name]}, expected {rows}"
                for name, rows in self.expected.items()
                if now[name] != rows
            ]
        return found

    def _halves(self) -> list[str]:
        """A change that others may see is there as a whole, or not at all."""
        now, tables = picture(self.root), ("versions", "aliases", "moves")
        known = (self.before, self.expected or now)
        is_whole = any(all(now[table] == then[table] for table in tables) for then in known)
        return [] if is_whole else ["only a part of the change is there"]


class Trials:
    """Makes trials.

    Args:
        directory: everything is put there.
        processes: makes processes.
    """

    def __init__(self, directory: Path, processes: ForkServerContext) -> None:
        self._directory = directory
        self._processes = processes
        self._made = 0
        self._templates: dict[str, Path] = {}
        self._expected: dict[str, dict[str, Any]] = {}
        self._sources = directory / "sources"
        for seed in range(SOURCES):
            write_adapter(self._sources / str(seed), seed=seed)
        write_base(self._sources / "base")

    def new(self, name: str) -> Trial:
        """A fresh copy of what is there before a scenario."""
        scenario = SCENARIOS[name]
        if name not in self._templates:
            self._templates[name] = self._prepared(scenario)
            # Without a fault, everything is as it should be in the end.
            clean = self._copy(scenario, None)
            self.run(clean)
            if faults := clean.faults():
                raise RuntimeError(f"scenario {name} has faults without a fault: {faults}")
            self._expected[name] = picture(clean.root)
        return self._copy(scenario, self._expected[name])

    def drop(self, trial: Trial) -> None:
        """Makes room."""
        shutil.rmtree(trial.root.parent)

    def run(self, trial: Trial, target: Callable[..., None] = act, *more: Any) -> int | None:
        """Runs a function on a trial in a process of its own; returns the exit code."""
        process = self._processes.Process(target=target, args=(*trial.arguments, *more))
        process.start()
        process.join(_RUN_S)
        return process.exitcode

    def run_traced(self, trial: Trial, inject: str = "", target: Callable[..., None] = act, *more: Any) -> int | None:
        """The same under strace; see `syscalls.run_traced`."""
        return run_traced(self._processes, trial.log, target, *trial.arguments, *more, inject=inject)

    def _prepared(self, scenario: Scenario) -> Path:
        root = self._directory / "templates" / scenario.name
        if scenario.prepare is not None:
            with open_registry(root) as registry:
                for operation in (RegisterBase(), *scenario.prepare):
                    operation.perform(registry, self._sources)
        return root

    def _copy(self, scenario: Scenario, expected: dict[str, Any] | None) -> Trial:
        self._made += 1
        place = self._directory / f"{scenario.name}-{self._made}"
        root = place / "registry"
        place.mkdir()
        if self._templates[scenario.name].exists():
            shutil.copytree(self._templates[scenario.name], root)
        return Trial(scenario, root, self._sources, place / "report", place / "strace.log", picture(root), expected)
