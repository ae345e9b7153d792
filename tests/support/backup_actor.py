"""Writers that work while a backup is taken, and write down what was acknowledged to them."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from handmade import write_adapter
from registry_actor import NAME, open_registry, publish

from switchyard.registry.catalog.states import States
from switchyard.registry.errors import CollectionHeld
from switchyard.registry.index.schema import VersionState


def write_until_told(root: Path, first_seed: int, stop: Path, acknowledged: Path) -> None:
    """Publishes one version after the other and moves an alias to each."""
    with TemporaryDirectory() as directory, acknowledged.open("a") as notes, open_registry(root) as registry:
        seed = first_seed
        while not stop.exists():
            source = write_adapter(Path(directory) / str(seed), seed=seed)
            number = publish(registry, source, f"key-{seed}", set_alias=f"writer-{first_seed}")
            notes.write(f"{number}\n")
            notes.flush()
            seed += 1


def churn_until_told(root: Path, stop: Path, report: Path) -> None:
    """Publishes, deletes for good and collects without grace: what a backup has not copied would be gone."""
    held = collected = 0
    with TemporaryDirectory() as directory, open_registry(root) as registry:
        states = States(registry._index, registry._versions, registry.aliases, undelete_s=0.0)
        source = write_adapter(Path(directory) / "a", seed=1_000_000)
        while not stop.exists():
            number = publish(registry, source, os.urandom(8).hex())
            states.move(NAME, number, VersionState.DELETED, actor="churn", reason="")
            try:
                collected += registry.collector.collect(dry_run=False, grace_s=0, actor="churn").removed_blobs
            except CollectionHeld:
                held += 1
    report.write_text(f"{held} {collected}")
