"""Several processes on one directory: no number twice, no number missing, one winner per generation."""

from __future__ import annotations

import json
from multiprocessing.context import ForkServerContext
from pathlib import Path

from registry_actor import NAME, REF, move_many, open_registry, publish, publish_many
from registry_oracle import faults_of

PROCESSES = 4


def run_all(processes: ForkServerContext, jobs: list[tuple[object, ...]], tmp_path: Path) -> list[object]:
    """Runs every job at once; each writes its result into a file."""
    started = []
    for number, (target, *arguments) in enumerate(jobs):
        report = tmp_path / f"report-{number}.json"
        process = processes.Process(target=target, args=(*arguments, report))  # type: ignore[arg-type]
        process.start()
        started.append((process, report))
    for process, _ in started:
        process.join(120)
    assert [process.exitcode for process, _ in started] == [0] * len(jobs)
    return [json.loads(report.read_text()) for _, report in started]


def test_publishers_get_contiguous_versions(
    processes: ForkServerContext, root: Path, sources: list[Path], tmp_path: Path
) -> None:
    shares = [sources[number::PROCESSES] for number in range(PROCESSES)]
    jobs = [(publish_many, root, share, [source.name for source in share]) for share in shares]
    numbers = [number for share in run_all(processes, jobs, tmp_path) for number in share]  # type: ignore[attr-defined]
    assert sorted(numbers) == list(range(1, len(sources) + 1))
    assert faults_of(root) == []


def test_one_key_from_many_processes_is_one_version(
    processes: ForkServerContext, root: Path, sources: list[Path], tmp_path: Path
) -> None:
    keys = ["a", "b", "c"]
    jobs = [(publish_many, root, sources[:3], keys) for _ in range(PROCESSES)]
    results = run_all(processes, jobs, tmp_path)
    assert all(result == results[0] for result in results)
    assert sorted(results[0]) == [1, 2, 3]  # type: ignore[call-overload]
    assert faults_of(root) == []


def test_an_alias_has_one_winner_per_generation(
    processes: ForkServerContext, root: Path, sources: list[Path], tmp_path: Path
) -> None:
    with open_registry(root) as registry:
        publish(registry, sources[0], "first", set_alias="prod")
        publish(registry, sources[1], "second")
    wins = run_all(processes, [(move_many, root, 25) for _ in range(PROCESSES)], tmp_path)
    with open_registry(root) as registry:
        assert registry.resolve(REF).alias_generation == 1 + sum(wins)  # type: ignore[arg-type]
        assert len(registry.alias_history(NAME, "prod")) == 1 + sum(wins)  # type: ignore[arg-type]
    assert faults_of(root) == []
