"""Signatures at publish and at pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from model_signing import signing
from publishing import begin, commit, entries, publish, send_all
from signers import Signer

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.errors import AdapterNotFound, ArgumentInvalid, BlobCorrupt, PolicyUnmet, StatementRefused
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import Manifest
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.statements.signing import SIGNATURE_FILE, Signed, sign_version
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
People = Callable[[str], Signer]
FIRST = AdapterRef.parse("team/addresses:1")


def trust(registry: Registry, *signers: Signer, signed_publish: bool = True) -> None:
    keys = tuple(signer.public for signer in signers)
    registry.namespaces.set_policy(
        "team", NamespacePolicy(trusted_keys=keys, signed_publish=signed_publish), actor="root"
    )


def coming(base: BaseModelSpec, source: Path) -> Signed:
    """What will be signed, as a trainer computes it before it publishes."""
    manifest = Manifest.of(entries(source), base.digest, Lineage())
    return Signed(manifest.digest, manifest.files)


def test_a_signed_namespace_takes_signed_versions_only(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, people: People
) -> None:
    trust(registry, people("ann"))
    session = begin(registry, base, name, adapter(0))
    send_all(registry, session, adapter(0))
    with pytest.raises(PolicyUnmet, match="signed versions only"):
        commit(registry, session)
    with pytest.raises(PolicyUnmet, match="signed versions only"):
        commit(registry, session, validate_only=True)
    forged = sign_version(coming(base, adapter(0)), people("eve").private)
    with pytest.raises(StatementRefused, match="none of the 1 trusted"):
        commit(registry, session, signature=forged)
    other = sign_version(coming(base, adapter(1)), people("ann").private)
    with pytest.raises(StatementRefused, match="made for version"):
        commit(registry, session, signature=other)
    with pytest.raises(AdapterNotFound):
        registry.list_versions(name)

    bundle = sign_version(coming(base, adapter(0)), people("ann").private)
    version = commit(registry, session, signature=bundle).version
    assert version is not None
    (statement,) = registry.statements.of(AdapterName(version.namespace, version.adapter), version.digest)[0]
    assert (statement.signer, registry.statements.read(statement.id)) == (people("ann").fingerprint, bundle)


def test_content_that_was_signed_before_needs_no_second_signature(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, people: People
) -> None:
    trust(registry, people("ann"))
    session = begin(registry, base, name, adapter(0))
    send_all(registry, session, adapter(0))
    commit(registry, session, signature=sign_version(coming(base, adapter(0)), people("ann").private))
    again = publish(registry, base, name, adapter(0))
    assert again.version == 1
    trust(registry, people("bob"))
    with pytest.raises(PolicyUnmet, match="signed versions only"):
        publish(registry, base, name, adapter(0))


def test_a_signature_beside_the_files_is_taken(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, people: People, tmp_path: Path
) -> None:
    """As the stock tool leaves it in the directory that it has signed."""
    trust(registry, people("ann"))
    source = adapter(0)
    signing.Config().use_elliptic_key_signer(private_key=people("ann").private).sign(source, tmp_path / "sig")
    (tmp_path / "sig").rename(source / SIGNATURE_FILE)
    version = publish(registry, base, name, source)
    assert SIGNATURE_FILE not in {entry.path for entry in version.files}
    assert [
        statement.signer
        for statement in registry.statements.of(AdapterName(version.namespace, version.adapter), version.digest)[0]
    ] == [people("ann").fingerprint]


def test_a_signature_beside_changed_files_is_refused(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, people: People, tmp_path: Path
) -> None:
    trust(registry, people("ann"), signed_publish=False)
    source = adapter(0)
    signing.Config().use_elliptic_key_signer(private_key=people("ann").private).sign(source, tmp_path / "sig")
    (tmp_path / "sig").rename(source / SIGNATURE_FILE)
    (source / "README.md").write_text("another card\n")
    with pytest.raises(StatementRefused, match=r"README\.md"):
        publish(registry, base, name, source)


def test_where_nobody_is_trusted_it_is_left_out(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    (source / SIGNATURE_FILE).write_text("anything")
    version = publish(registry, base, name, source)
    assert registry.statements.of(AdapterName(version.namespace, version.adapter), version.digest)[0] == []


def test_a_namespace_that_asks_must_say_whom_it_trusts() -> None:
    with pytest.raises(ArgumentInvalid, match="without trusted_keys"):
        NamespacePolicy(signed_publish=True)


# -- pull ----------------------------------------------------------------


def attach(registry: Registry, version: VersionRecord, signer: Signer) -> str:
    bundle = sign_version(Signed(version.digest, version.files), signer.private)
    made = registry.statements.attach(
        AdapterName(version.namespace, version.adapter),
        version.digest,
        "signature",
        bundle,
        actor="ann",
        trusted_keys=[signer.public],
    )
    return made.digest


def test_only_what_was_signed_is_pulled(
    registry: Registry, first: VersionRecord, people: People, tmp_path: Path
) -> None:
    ann, eve = people("ann"), people("eve")
    with pytest.raises(StatementRefused, match="has none"):
        registry.pull(FIRST, tmp_path / "out", verify=[ann.public])
    attach(registry, first, eve)
    with pytest.raises(StatementRefused, match="none of the 1 trusted"):
        registry.pull(FIRST, tmp_path / "out", verify=[ann.public])
    assert not (tmp_path / "out").exists()
    attach(registry, first, ann)
    registry.pull(FIRST, tmp_path / "out", verify=[ann.public])
    assert (tmp_path / "out" / "README.md").read_text() == "adapter 0\n"
    with pytest.raises(StatementRefused, match="none of the 0 trusted"):
        registry.pull(FIRST, tmp_path / "other", verify=[])


def test_bytes_that_changed_after_signing_are_not_pulled(
    registry: Registry, root: Path, first: VersionRecord, people: People, tmp_path: Path
) -> None:
    attach(registry, first, people("ann"))
    file = root / "blobs" / "sha256" / first.file("README.md").digest.removeprefix("sha256:")
    file.unlink()
    file.write_text("adapter X\n")
    with pytest.raises(BlobCorrupt):
        registry.pull(FIRST, tmp_path / "out", verify=[people("ann").public])
    assert not (tmp_path / "out").exists()


def test_a_signature_whose_bytes_are_gone_does_not_count(
    registry: Registry, root: Path, first: VersionRecord, people: People, tmp_path: Path
) -> None:
    digest = attach(registry, first, people("ann"))
    (root / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()
    with pytest.raises(StatementRefused, match="missing"):
        registry.pull(FIRST, tmp_path / "out", verify=[people("ann").public])
