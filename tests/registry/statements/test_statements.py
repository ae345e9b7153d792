"""Statements are kept once, read back byte for byte, and survive the collector; bad ones are refused whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import on_both
from handmade import ManualClock
from signers import Signer

from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    BlobCorrupt,
    StatementNotFound,
    StatementRefused,
    VersionNotFound,
)
from switchyard.registry.index import schema
from switchyard.registry.location import Location
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.statements.signing import Signed, sign_version
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry

NAME = AdapterName("team", "addresses")
DIGEST = "sha256:" + "d" * 64
EVALUATION: dict[str, Any] = {
    "dataset_digest": DIGEST,
    "metrics": [{"name": "exact_match", "value": 0.98}, {"name": "loss", "value": 1}],
    "serving_quantization": {"method": "nf4", "double_quantization": True, "compute_dtype": "float32"},
    "tool": "switchyard eval 0.1",
}
APPROVAL: dict[str, Any] = {"approver": "bob", "note": "looked at\n20 samples"}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def provenance(version: VersionRecord) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "adapter", "digest": {"sha256": version.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}},
    }


@on_both
def test_an_approval_without_a_name_is_of_who_attaches_it(registry: Registry, first: VersionRecord) -> None:
    by_two = [
        registry.statements.attach(NAME, first.digest, StatementKind.APPROVAL, b"{}", actor=actor)
        for actor in ("eve", "bob")
    ]
    assert [one.summary["approver"] for one in by_two] == ["eve", "bob"]
    assert registry.statements.of(NAME, first.digest)[0] == by_two
    assert json.loads(registry.statements.read(by_two[0].id)) == {"approver": "eve"}


def test_kept_listed_and_read(registry: Registry, first: VersionRecord, second: VersionRecord) -> None:
    payload = encoded(EVALUATION)
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann")
    assert (made.kind, made.actor, made.signer, made.size_bytes) == ("evaluation", "ann", "", len(payload))
    assert made.summary == EVALUATION
    approved = registry.statements.attach(NAME, first.digest, StatementKind.APPROVAL, encoded(APPROVAL), actor="bob")
    built = registry.statements.attach(
        NAME, first.digest, StatementKind.PROVENANCE, encoded(provenance(first)), actor="ci"
    )
    assert built.summary == {"predicate_type": "https://slsa.dev/provenance/v1"}
    assert registry.statements.of(NAME, first.digest)[0] == [made, approved, built]
    assert registry.statements.of(NAME, second.digest)[0] == []
    assert registry.statements.get(made.id) == made
    assert registry.statements.read(made.id) == payload
    with pytest.raises(StatementNotFound):
        registry.statements.read("nothing")


@on_both
def test_once_however_often(registry: Registry, first: VersionRecord, second: VersionRecord) -> None:
    payload = encoded(EVALUATION)
    one = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann")
    before = registry.feed.revision()
    assert registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="bob") == one
    assert registry.feed.revision() == before
    other = registry.statements.attach(NAME, second.digest, StatementKind.EVALUATION, payload, actor="bob")
    assert (other.id != one.id, other.digest) == (True, one.digest)
    assert registry.statements.of(NAME, first.digest)[0] == [one]


@on_both
def test_a_replica_hears_everything(registry: Registry, first: VersionRecord) -> None:
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, encoded(EVALUATION), actor="ann")
    event = registry.feed.events(registry.feed.revision() - 1)[0]
    assert (event.kind, event.namespace, event.adapter) == ("statement.attached", "team", "addresses")
    for field in made.__dataclass_fields__:
        assert event.payload[field] == getattr(made, field), field


def test_about_a_version_that_is_elsewhere(registry: Registry, people: Callable[[str], Signer]) -> None:
    made = registry.statements.attach(NAME, DIGEST, StatementKind.EVALUATION, encoded(EVALUATION), actor="ann")
    assert registry.statements.of(NAME, DIGEST)[0] == [made]
    bundle = sign_version(Signed(DIGEST, ()), people("ann").private)
    with pytest.raises(VersionNotFound, match="publish it before"):
        registry.statements.attach(NAME, DIGEST, StatementKind.SIGNATURE, bundle, actor="ann")


# -- bytes ---------------------------------------------------------------


@on_both
def test_the_collector_leaves_them(registry: Registry, first: VersionRecord) -> None:
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, encoded(EVALUATION), actor="ann")
    report = registry.collector.collect(dry_run=False, grace_s=0, actor="ann")
    assert (report.removed_blobs, report.orphan_files, report.stale_uploads) == (0, 0, 0)
    assert registry.statements.read(made.id) == encoded(EVALUATION)


@on_both
def test_bytes_that_are_about_to_go_are_kept(registry: Registry, first: VersionRecord) -> None:
    """The collector has marked the blob; the statement comes before it removes the bytes."""
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, encoded(EVALUATION), actor="ann")
    with registry._index.write() as connection:
        connection.execute(sa.delete(schema.statement))
        marked = sa.update(schema.blob).where(schema.blob.c.digest == made.digest)
        connection.execute(marked.values(state="DELETING"))
    again = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, encoded(EVALUATION), actor="ann")
    registry.collector.collect(dry_run=False, grace_s=0, actor="ann")
    assert registry.statements.read(again.id) == encoded(EVALUATION)


@pytest.mark.parametrize("damage", ["changed", "missing"])
@on_both
def test_the_same_bytes_again_heal_them(damage: str, registry: Registry, root: Path, first: VersionRecord) -> None:
    payload = encoded(EVALUATION)
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann")
    file = root / "blobs" / "sha256" / made.digest.removeprefix("sha256:")
    file.unlink()
    if damage == "changed":
        file.write_bytes(b"x" * len(payload))
    with pytest.raises(BlobCorrupt):
        registry.statements.read(made.id)
    assert registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann") == made
    assert registry.statements.read(made.id) == payload


def test_nothing_is_left_of_a_refused_one(registry: Registry, root: Path, first: VersionRecord) -> None:
    before = sorted((root / "blobs" / "sha256").iterdir())
    with pytest.raises(StatementRefused):
        registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, b"{}", actor="ann")
    assert sorted((root / "blobs" / "sha256").iterdir()) == before
    assert list((root / "uploads").iterdir()) == []


@pytest.mark.parametrize("at", [Step.PART_CREATED, Step.PART_SYNCED, Step.BLOB_LINKED, Step.PART_REMOVED])
def test_a_break_in_between_leaves_nothing(
    at: Step, location: Location, registry: Registry, clock: ManualClock, first: VersionRecord
) -> None:
    """Whatever has arrived goes with the next collection, and the same call succeeds afterwards."""

    def stop(step: Step) -> None:
        if step is at:
            raise ZeroDivisionError

    payload = encoded(EVALUATION)
    with Registry.open(location, on_step=stop) as breaking, pytest.raises(ZeroDivisionError):
        breaking.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann")
    assert registry.statements.of(NAME, first.digest)[0] == []
    # Files have the time of the real clock.
    clock.now_s = 1e11
    registry.collector.collect(dry_run=False, grace_s=0, actor="ann")
    assert not (location.root / "blobs" / "sha256" / sha256_digest(payload)[7:]).exists()
    made = registry.statements.attach(NAME, first.digest, StatementKind.EVALUATION, payload, actor="ann")
    assert registry.statements.read(made.id) == payload


# -- what is refused -----------------------------------------------------


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


@pytest.mark.parametrize(
    ("kind", "document", "subjects"),
    [
        ("evaluation", [], ["evaluation"]),
        ("evaluation", {}, ["metrics", "serving_quantization", "dataset_digest", "tool"]),
        ("evaluation", EVALUATION | {"dataset_digest": "d", "tool": ""}, ["dataset_digest", "tool"]),
        ("evaluation", EVALUATION | {"metrics": []}, ["metrics"]),
        ("evaluation", EVALUATION | {"metrics": [3]}, ["metrics[0]"]),
        ("evaluation", EVALUATION | {"metrics": [{"name": "a", "value": "1"}]}, ["metrics[0].value"]),
        ("evaluation", EVALUATION | {"metrics": [{"name": "a", "value": True}]}, ["metrics[0].value"]),
        ("evaluation", EVALUATION | {"metrics": [{"name": "a", "value": 1}] * 2}, ["metrics[1].name"]),
        ("evaluation", EVALUATION | {"metrics": [{"name": "a\x07", "value": 1}]}, ["metrics[0].name"]),
        ("evaluation", EVALUATION | {"typo": 1}, ["'typo'"]),
        (
            "evaluation",
            EVALUATION | {"serving_quantization": {"method": "magic"}},
            [
                "serving_quantization.method",
                "serving_quantization.double_quantization",
                "serving_quantization.compute_dtype",
            ],
        ),
        (
            "evaluation",
            EVALUATION | {"serving_quantization": {}},
            [
                "serving_quantization.method",
                "serving_quantization.double_quantization",
                "serving_quantization.compute_dtype",
            ],
        ),
        (
            "provenance",
            {"_type": "https://in-toto.io/Statement/v1", "predicateType": "p", "subject": [{}]},
            ["subject[0].digest", "subject"],
        ),
        ("approval", APPROVAL | {"approver": "carol"}, ["approver"]),
        ("approval", APPROVAL | {"expires_at_s": "soon", "note": ""}, ["note", "expires_at_s"]),
        ("approval", APPROVAL | {"approves": True}, ["'approves'"]),
        (
            "provenance",
            {"_type": "x", "subject": [], "predicateType": ""},
            ["_type", "predicateType", "subject", "subject"],
        ),
        (
            "provenance",
            {
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": "p",
                "subject": [{"name": "a", "digest": {"sha256": "d" * 64}}],
            },
            ["subject"],
        ),
    ],
)
def test_every_fault_is_told(
    kind: str, document: object, subjects: list[str], registry: Registry, first: VersionRecord
) -> None:
    with pytest.raises(StatementRefused) as caught:
        registry.statements.attach(NAME, first.digest, StatementKind(kind), encoded(document), actor="bob")
    found = [verdict.subject.removeprefix(f"{kind}.") for verdict in caught.value.verdicts]
    assert sorted(found) == sorted(subjects)
    assert {verdict.reason for verdict in caught.value.verdicts} == {"STATEMENT"}


@pytest.mark.parametrize(
    "payload", [b"", b"x" * ((1 << 20) + 1), b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff", b"[" * 100_000]
)
@pytest.mark.parametrize("kind", list(StatementKind))
def test_bytes_that_are_no_document(
    kind: StatementKind, payload: bytes, registry: Registry, first: VersionRecord
) -> None:
    with pytest.raises(StatementRefused):
        registry.statements.attach(NAME, first.digest, kind, payload, actor="bob")
    assert registry.statements.of(NAME, first.digest)[0] == []


def test_arguments(registry: Registry, first: VersionRecord) -> None:
    with pytest.raises(ArgumentInvalid, match="digest"):
        registry.statements.attach(NAME, "team/addresses:1", StatementKind.APPROVAL, encoded(APPROVAL), actor="bob")
    with pytest.raises(ArgumentInvalid, match="one of signature, evaluation"):
        registry.statements.attach(NAME, first.digest, "sbom", encoded(APPROVAL), actor="bob")
    with pytest.raises(ArgumentInvalid, match="actor"):
        registry.statements.attach(NAME, first.digest, StatementKind.APPROVAL, encoded(APPROVAL), actor="")


# -- signatures ----------------------------------------------------------


def test_a_signature_needs_a_trusted_key(
    registry: Registry, first: VersionRecord, name: AdapterName, people: Callable[[str], Signer]
) -> None:
    ann = people("ann")
    bundle = sign_version(Signed(first.digest, first.files), ann.private)
    with pytest.raises(StatementRefused, match="none of the 0 trusted"):
        registry.statements.attach(NAME, first.digest, StatementKind.SIGNATURE, bundle, actor="ann")
    made = registry.statements.attach(
        NAME, first.digest, StatementKind.SIGNATURE, bundle, actor="ann", trusted_keys=[ann.public]
    )
    assert (made.signer, made.summary) == (ann.fingerprint, {"key": ann.public, "bound": True})


@on_both
def test_the_namespace_says_whom_it_trusts(
    registry: Registry, first: VersionRecord, second: VersionRecord, people: Callable[[str], Signer]
) -> None:
    ann = people("ann")
    registry.namespaces.set_policy("team", NamespacePolicy(trusted_keys=(ann.public,)), actor="root")
    bundle = sign_version(Signed(first.digest, first.files), ann.private)
    made = registry.statements.attach(NAME, first.digest, StatementKind.SIGNATURE, bundle, actor="bob")
    assert made.signer == ann.fingerprint
    with pytest.raises(StatementRefused, match="made for version"):
        registry.statements.attach(NAME, second.digest, StatementKind.SIGNATURE, bundle, actor="bob")
    assert registry.statements.of(NAME, second.digest)[0] == []
