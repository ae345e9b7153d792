"""The check finds every kind of damage and nothing in a registry that is sound; it changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from decay import blob_files, spoil

from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.findings import FindingKind, Severity


def kinds(registry: Registry, *, deep: bool = False) -> set[FindingKind]:
    return {finding.kind for finding in registry.inspector.fsck(deep=deep).findings}


def change_index(root: Path, statement: str) -> None:
    with closing(sqlite3.connect(root / "registry.db", isolation_level=None)) as plain:
        assert plain.execute(statement).rowcount > 0


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_registry(deep: bool, lived_in: Registry, root: Path) -> None:
    before = (root / "registry.db").read_bytes(), (root / "registry.db-wal").read_bytes(), blob_files(root)
    report = lived_in.inspector.fsck(deep=deep)
    assert (report.findings, report.exit_code) == ((), 0)
    assert (report.versions, report.deep) == (5, deep)
    assert before == ((root / "registry.db").read_bytes(), (root / "registry.db-wal").read_bytes(), blob_files(root))


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM version_blob WHERE path = 'README.md'", FindingKind.MANIFEST),
        ("DELETE FROM version_blob WHERE path = ''", FindingKind.MANIFEST),
        ("UPDATE version SET lineage = '{}' WHERE version = 3", FindingKind.MANIFEST),
        ("UPDATE version SET lineage = json_set(lineage, '$.code_commit', 'x')", FindingKind.MANIFEST),
        ("UPDATE blob SET size_bytes = size_bytes + 1", FindingKind.BLOB_SIZE),
        ("UPDATE blob SET state = 'CORRUPT'", FindingKind.BLOB_STATE),
        ("UPDATE blob SET state = 'DELETING'", FindingKind.BLOB_STATE),
        ("UPDATE version SET version = 9 WHERE version = 4", FindingKind.VERSION_NUMBERS),
        ("UPDATE adapter SET next_version = 7", FindingKind.VERSION_NUMBERS),
        ("UPDATE version SET state = 'PURGED' WHERE version = 2", FindingKind.VERSION_STATE),
        ("DELETE FROM alias_event WHERE generation = 2", FindingKind.ALIAS_HISTORY),
        ("UPDATE alias_event SET from_version = 7 WHERE generation = 2", FindingKind.ALIAS_HISTORY),
        ("UPDATE alias SET generation = generation + 1", FindingKind.ALIAS_HISTORY),
        ("DELETE FROM alias", FindingKind.ALIAS_HISTORY),
        ("UPDATE version SET state = 'YANKED' WHERE version = 3", FindingKind.ALIAS_TARGET),
        ("DELETE FROM event WHERE rev = 3", FindingKind.REVISIONS),
        ("UPDATE clock SET rev = rev + 1", FindingKind.REVISIONS),
        ("DELETE FROM clock", FindingKind.REVISIONS),
        ("DELETE FROM audit WHERE seq = 3", FindingKind.AUDIT_CHAIN),
        ("UPDATE audit SET actor = 'eve' WHERE seq = 3", FindingKind.AUDIT_CHAIN),
        ("UPDATE namespace SET used_bytes = used_bytes - 1", FindingKind.USED_BYTES),
        ("DELETE FROM session_blob", FindingKind.SESSION),
        ("UPDATE upload_session SET version_id = NULL", FindingKind.SESSION),
        ("DELETE FROM adapter", FindingKind.INDEX_DAMAGED),
    ],
)
def test_damage_in_the_tables(statement: str, kind: FindingKind, lived_in: Registry, root: Path) -> None:
    change_index(root, statement)
    assert kind in kinds(lived_in)


def test_damage_in_the_store(lived_in: Registry, root: Path, name: AdapterName) -> None:
    version = lived_in.list_versions(name)[0][0]
    weights, card = version.file("adapter_model.safetensors").digest, version.file("README.md").digest
    spoil(root, weights)
    (root / "blobs" / "sha256" / card.removeprefix("sha256:")).unlink()
    assert kinds(lived_in) == {FindingKind.BLOB_MISSING}
    report = lived_in.inspector.fsck(deep=True)
    assert {(finding.kind, finding.subject) for finding in report.findings} == {
        (FindingKind.BLOB_MISSING, card),
        (FindingKind.BLOB_CHANGED, weights),
    }
    assert report.exit_code == Severity.ERROR
    assert all(str(finding).startswith("ERROR ") for finding in report.findings)


def test_what_the_collector_will_take_is_only_noted(lived_in: Registry, root: Path) -> None:
    (root / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"stray")
    (root / "uploads" / "nobody").mkdir()
    report = lived_in.inspector.fsck()
    assert [finding.kind for finding in report.findings] == [FindingKind.ORPHAN_FILE, FindingKind.STALE_UPLOAD]
    assert report.exit_code == 0


def test_a_blob_that_is_collected_during_the_check_is_no_finding(
    lived_in: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector, looked = lived_in.inspector, lived_in.inspector._stored_blob

    def collect_first(*arguments: object) -> object:
        lived_in.collector.collect(dry_run=False, grace_s=0, actor="ops")
        return looked(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(inspector, "_stored_blob", collect_first)
    assert inspector.fsck().findings == ()
