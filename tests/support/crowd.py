"""What the processes of the concurrency tests do; each writes what it was told into a report."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from registry_actor import NAME, REF, open_registry, publish

from switchyard.registry.errors import GenerationMismatch, StorageFailed, StoreBusy
from switchyard.registry.index.changes import Event
from switchyard.registry.lineage import Lineage
from switchyard.registry.store import Registry

END = "end"
"""An alias; when it moves, nothing more will happen."""


def publish_share(root: Path, sources: list[Path], share: int, count: int, report: Path) -> None:
    """Publishes distinct versions; the report has their numbers."""
    with open_registry(root) as registry:
        numbers = [
            publish(
                registry,
                sources[turn % len(sources)],
                f"{share}-{turn}",
                lineage=Lineage(code_commit=f"{share}-{turn}"),
            )
            for turn in range(count)
        ]
    report.write_text(json.dumps(numbers))


def publish_keys(root: Path, sources: list[Path], keys: list[str], report: Path) -> None:
    """Publishes one source under each key; others do the same with the same keys."""
    with open_registry(root) as registry:
        numbers = [publish(registry, source, key) for source, key in zip(sources, keys, strict=True)]
    report.write_text(json.dumps(numbers))


def move_alias(root: Path, actor: str, attempts: int, report: Path) -> None:
    """Tries to move `prod` on from the generation it reads; the report has the generations it won."""
    won = []
    with open_registry(root) as registry:
        for attempt in range(attempts):
            seen = registry.resolve(REF).alias_generation
            try:
                moved = registry.set_alias(NAME, "prod", attempt % 2 + 1, expected_generation=seen, actor=actor)
            except GenerationMismatch:
                continue
            won.append(moved.alias.generation)
    report.write_text(json.dumps(won))


def follow(root: Path, patience: int, report: Path) -> None:
    """Watches from the beginning to the end; begins again after every `patience` events, as after a lost line.

    The report has every event: revision, kind, and the version or the generation.
    """
    seen, events = 0, []
    with opened(root) as registry:
        while not events or events[-1][1] != END:
            for event in _some(registry.feed.watch(seen, stop=threading.Event()), patience):
                seen = event.revision
                events.append([seen, *_told(event)])
    report.write_text(json.dumps(events))


def opened(root: Path) -> Registry:
    """Opens the registry, when its database is there again."""
    while True:
        try:
            return open_registry(root)
        except (StorageFailed, StoreBusy):
            time.sleep(0.05)


def _some(watch: object, count: int) -> list[Event]:
    events: list[Event] = []
    for item in watch:  # type: ignore[attr-defined]
        if isinstance(item, Event):
            events.append(item)
            if len(events) == count or _told(item)[0] == END:
                break
    watch.close()  # type: ignore[attr-defined]
    return events


def _told(event: Event) -> tuple[str, object]:
    payload = event.payload
    if payload.get("alias") == END:
        return END, 0
    return event.kind, payload.get("generation", payload.get("version"))


def publish_whatever_happens(root: Path, sources: list[Path], share: int, count: int, report: Path) -> None:
    """Publishes under one key each until it is acknowledged; the report has a line for each as it comes."""
    registry: Registry | None = None
    with report.open("a") as told:
        for turn in range(count):
            key, number = f"{share}-{turn}", 0
            while not number:
                try:
                    registry = registry or opened(root)
                    lineage = Lineage(code_commit=key)
                    number = publish(registry, sources[turn % len(sources)], key, lineage=lineage)
                except (StorageFailed, StoreBusy):
                    time.sleep(0.05)
            told.write(json.dumps([key, number]) + "\n")
            told.flush()
    if registry is not None:
        registry.close()
