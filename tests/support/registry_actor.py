"""What the crash tests run in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from switchyard.registry.publishing.sessions import LEASE_S
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step, ignore_step
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

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
