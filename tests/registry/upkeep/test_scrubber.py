"""The scrubber finds bytes that have changed before a reader does, and a publish of the same bytes heals them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from decay import blob_rows, spoil
from handmade import ManualClock
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BlobCorrupt, StorageFailed
from switchyard.registry.index import schema
from switchyard.registry.index.schema import BlobState
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.scrubber import Scrubber

Make = Callable[[int], Path]


@pytest.fixture
def scrubber(registry: Registry) -> Scrubber:
    return registry.scrubber


def test_sound_blobs(
    registry: Registry, scrubber: Scrubber, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    publish(registry, base, name, adapter(0))
    report = scrubber.scrub()
    stored = sum(blob.size_bytes for blob in registry._blobs.listing())
    assert (report.checked_blobs, report.checked_bytes, report.left_blobs) == (6, stored, 0)
    assert (report.bad, report.unreadable) == ((), ())
    assert scrubber.scrub(older_than_s=3_600).checked_blobs == 0


def test_the_longest_unread_comes_first(
    registry: Registry, scrubber: Scrubber, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    """With a budget, several scrubs together read everything once before anything is read twice."""
    publish(registry, base, name, adapter(0))
    clock.now_s += 1_000
    rounds = 0
    while (report := scrubber.scrub(limit_bytes=1_000, older_than_s=500)).checked_blobs:
        rounds += 1
        assert report.checked_blobs == 1 or report.checked_bytes <= 1_000
    assert 1 < rounds <= 6
    with registry._index.read() as connection:
        times = connection.execute(sa.select(schema.blob.c.verified_at_s)).scalars().all()
    assert all(time > 0 for time in times)


@pytest.mark.parametrize("damage", ["changed", "shortened", "missing"])
def test_bad_bytes_are_set_aside_and_healed(
    damage: str,
    registry: Registry,
    scrubber: Scrubber,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
) -> None:
    version = publish(registry, base, name, adapter(0))
    publish(registry, base, AdapterName("team", "other"), adapter(0))
    digest = version.file("adapter_model.safetensors").digest
    path = root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    match damage:
        case "changed":
            spoil(root, digest)
        case "shortened":
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[:-1])
        case _:
            path.unlink()
    (bad,) = scrubber.scrub().bad
    assert (bad.digest, bad.versions) == (digest, ("team/addresses:1", "team/other:1"))
    assert bool(bad.moved_to) == (damage != "missing")
    assert not path.exists()
    assert blob_rows(registry)[digest] == BlobState.CORRUPT
    with pytest.raises(BlobCorrupt):
        registry.read_blob(digest)
    assert scrubber.scrub().bad == ()
    assert publish(registry, base, name, adapter(0)).version == 1
    assert registry.read_blob(digest) == (adapter(0) / "adapter_model.safetensors").read_bytes()
    assert scrubber.scrub().bad == ()
    assert blob_rows(registry)[digest] == BlobState.PRESENT


def test_a_blob_that_was_healed_meanwhile_stays(
    registry: Registry,
    scrubber: Scrubber,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = publish(registry, base, name, adapter(0)).file("README.md").digest
    read, seen = scrubber._read, []

    def bad_once(blob: object) -> None:
        if getattr(blob, "digest", "") == digest and not seen:
            seen.append(blob)
            raise BlobCorrupt("as it was a moment ago")
        read(blob)  # type: ignore[arg-type]

    monkeypatch.setattr(scrubber, "_read", bad_once)
    assert scrubber.scrub().bad == ()
    assert seen
    assert registry.read_blob(digest)
    assert not (root / "quarantine").exists()


def test_a_disk_that_does_not_answer_changes_nothing(
    registry: Registry,
    scrubber: Scrubber,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(registry, base, name, adapter(0))

    def refuse(_blob: object) -> None:
        raise StorageFailed("input/output error")

    monkeypatch.setattr(scrubber, "_read", refuse)
    report = scrubber.scrub()
    assert len(report.unreadable) == 6
    assert {bad.versions for bad in report.unreadable} == {("team/addresses:1",)}
    assert set(blob_rows(registry).values()) == {BlobState.PRESENT}
