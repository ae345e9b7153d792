"""What the crash tests run in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from switchyard.registry.errors import GenerationMismatch
from switchyard.registry.publishing.sessions import LEASE_S
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step, ignore_step
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Run = Callable[..., int | None]
"""Runs a function in a new process and returns its exit code."""

NAME = AdapterName("team", "addresses")
REF = AdapterRef.parse("team/addresses@prod")


def killer(step: Step, occurrence: int) -> Callable[[Step], None]:
    """Kills this process, without warning, when it passes a step for the n-th time."""
    passed = 0

    def listen(reached: Step) -> None:
        nonlocal passed
        passed += reached is step
        if passed == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def open_registry(
    root: Path, on_step: Callable[[Step], None] = ignore_step, *, later_s: float = 0.0, lease_s: float = LEASE_S
) -> Registry:
    """In-process validation: the worker's start-up is not what these tests are about."""

    def clock() -> float:
        return time.time() + later_s

    return Registry.open(root, validate=validate_files, on_step=on_step, clock=clock, lease_s=lease_s)


def publish(registry: Registry, source: Path, key: str, **options: Any) -> int:
    """Publishes for the only base there is; returns the version number."""
    (base,) = registry.base_models()
    done = registry.publish(NAME, source, base_digest=base.digest, idempotency_key=key, publisher="actor", **options)
    if done.version is None:
        raise RuntimeError("a publish gave no version")
    return done.version.version


def publish_many(root: Path, sources: list[Path], keys: list[str], report: Path) -> None:
    with open_registry(root) as registry:
        numbers = [publish(registry, source, key) for source, key in zip(sources, keys, strict=True)]
    report.write_text(json.dumps(numbers))


def move_many(root: Path, attempts: int, report: Path) -> None:
    won = 0
    with open_registry(root) as registry:
        for attempt in range(attempts):
            generation = registry.resolve(REF).alias_generation
            try:
                registry.set_alias(
                    NAME, "prod", attempt % 2 + 1, expected_generation=generation, actor=str(os.getpid())
                )
                won += 1
            except GenerationMismatch:
                pass
    report.write_text(json.dumps(won))
