"""A signature holds for exactly the files and the version it was made for, under a key that is trusted."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from model_signing import signing, verifying
from signers import Signer, leaf_certificate, make_signer, root_certificate

from switchyard.registry.errors import ArgumentInvalid, ExtraMissing, StatementRefused
from switchyard.registry.manifest import FileEntry
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.statements.bundles import read_bundle
from switchyard.registry.statements.signing import Signed, sign_version, verify_version
from switchyard.registry.store import Registry

People = Callable[[str], Signer]
Sign = Callable[[VersionRecord], Signed]


def reasons(caught: pytest.ExceptionInfo[StatementRefused]) -> set[str]:
    return {verdict.reason for verdict in caught.value.verdicts}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_what_was_signed_verifies(
    curve: ec.EllipticCurve, first: VersionRecord, signed: Sign, tmp_path: Path
) -> None:
    ann = make_signer(tmp_path, "ann", curve)
    signature = verify_version(sign_version(signed(first), ann.private), signed(first), [ann.public])
    assert (signature.signer, signature.key, signature.bound) == (ann.fingerprint, ann.public, True)


def test_a_key_with_a_password(first: VersionRecord, signed: Sign, tmp_path: Path) -> None:
    ann = make_signer(tmp_path, "ann")
    secret = serialization.BestAvailableEncryption(b"open sesame")
    form = serialization.PrivateFormat.PKCS8
    ann.private.write_bytes(ann.key.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(ArgumentInvalid, match="cannot sign"):
        sign_version(signed(first), ann.private)
    with pytest.raises(ArgumentInvalid, match="cannot sign"):
        sign_version(signed(first), ann.private, password="open barley")
    bundle = sign_version(signed(first), ann.private, password="open sesame")
    assert verify_version(bundle, signed(first), [ann.public]).signer == ann.fingerprint


def test_the_stock_tool_agrees(
    registry: Registry, first: VersionRecord, signed: Sign, people: People, tmp_path: Path
) -> None:
    """Both ways: it verifies ours over what was pulled, and what it signs over that verifies here."""
    ann = people("ann")
    pulled, ours, theirs, key = (tmp_path / part for part in ("pulled", "ours", "theirs", "key.pem"))
    registry.pull(AdapterRef.parse("team/addresses:1"), pulled)
    key.write_text(ann.public)
    ours.write_bytes(sign_version(signed(first), ann.private))
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(pulled, ours)
    signing.Config().use_elliptic_key_signer(private_key=ann.private).sign(pulled, theirs)
    signature = verify_version(theirs.read_bytes(), signed(first), [ann.public])
    assert (signature.signer, signature.bound) == (ann.fingerprint, False)

    (pulled / "README.md").write_text("something else\n")
    with pytest.raises(ValueError, match="mismatch"):
        verifying.Config().use_elliptic_key_verifier(public_key=key).verify(pulled, ours)


def changed(files: tuple[FileEntry, ...]) -> dict[str, tuple[FileEntry, ...]]:
    other = replace(files[0], digest="sha256:" + "0" * 64)
    return {
        "changed": (other, *files[1:]),
        "missing": files[1:],
        "extra": (*files, FileEntry("metrics.json", "sha256:" + "1" * 64, 3)),
        "renamed": (replace(files[0], path="metrics.json"), *files[1:]),
        "none": (),
    }


@pytest.mark.parametrize("how", ["changed", "missing", "extra", "renamed", "none"])
@pytest.mark.parametrize("stock", [False, True])
def test_other_files_are_refused(
    how: str, stock: bool, registry: Registry, first: VersionRecord, signed: Sign, people: People, tmp_path: Path
) -> None:
    ann = people("ann")
    bundle = sign_version(signed(first), ann.private)
    if stock:
        registry.pull(AdapterRef.parse("team/addresses:1"), tmp_path / "pulled")
        signing.Config().use_elliptic_key_signer(private_key=ann.private).sign(tmp_path / "pulled", tmp_path / "sig")
        bundle = (tmp_path / "sig").read_bytes()
    with pytest.raises(StatementRefused, match="does not hold"):
        verify_version(bundle, Signed(first.digest, changed(first.files)[how]), [ann.public])


def test_a_signature_for_another_version_is_refused(
    first: VersionRecord, second: VersionRecord, signed: Sign, people: People
) -> None:
    """Even when the files are the same: they may be for another base model there."""
    ann = people("ann")
    bundle = sign_version(signed(first), ann.private)
    for subject in (signed(second), Signed(second.digest, first.files)):
        with pytest.raises(StatementRefused, match="made for version") as caught:
            verify_version(bundle, subject, [ann.public])
        assert reasons(caught) == {"SIGNATURE"}


def test_another_key_is_refused(first: VersionRecord, signed: Sign, people: People) -> None:
    bundle = sign_version(signed(first), people("ann").private)
    for trusted in ([], [people("eve").public], [people("eve").public, people("bob").public]):
        with pytest.raises(StatementRefused, match=rf"none of the {len(trusted)} trusted"):
            verify_version(bundle, signed(first), trusted)
    assert verify_version(bundle, signed(first), [people("eve").public, people("ann").public])


def test_a_forged_hint_does_not_help(first: VersionRecord, signed: Sign, people: People) -> None:
    """Eve signs and says that Ann's key made it."""
    forged = json.loads(sign_version(signed(first), people("eve").private))
    honest = json.loads(sign_version(signed(first), people("ann").private))
    forged["verificationMaterial"] = honest["verificationMaterial"]
    with pytest.raises(StatementRefused, match="does not hold"):
        verify_version(json.dumps(forged).encode(), signed(first), [people("ann").public, people("eve").public])


def test_the_signed_words_cannot_be_changed(first: VersionRecord, second: VersionRecord, people: People) -> None:
    """The statement of one version under the signature of another."""
    ann = people("ann")
    one = json.loads(sign_version(Signed(first.digest, first.files), ann.private))
    two = json.loads(sign_version(Signed(second.digest, second.files), ann.private))
    one["dsseEnvelope"]["payload"] = two["dsseEnvelope"]["payload"]
    with pytest.raises(StatementRefused, match="does not hold"):
        verify_version(json.dumps(one).encode(), Signed(second.digest, second.files), [ann.public])


def test_nothing_is_ignored(first: VersionRecord, people: People, tmp_path: Path, registry: Registry) -> None:
    """A signature may ask for files to be left out of account; what is served is never left out."""
    from model_signing import hashing

    ann = people("ann")
    pulled = tmp_path / "pulled"
    registry.pull(AdapterRef.parse("team/addresses:1"), pulled)
    lenient = hashing.Config().set_ignored_paths(paths=[Path("README.md")])
    config = signing.Config().set_hashing_config(lenient).use_elliptic_key_signer(private_key=ann.private)
    config.sign(pulled, tmp_path / "sig")
    with pytest.raises(StatementRefused, match=r"README\.md"):
        verify_version((tmp_path / "sig").read_bytes(), Signed(first.digest, first.files), [ann.public])


# -- certificates --------------------------------------------------------

URI = "spiffe://example/ns/team/trainer"


def test_a_certificate_names_its_holder(first: VersionRecord, signed: Sign, people: People, tmp_path: Path) -> None:
    ann, root = people("ann"), people("root")
    leaf = leaf_certificate(tmp_path, ann, URI, root)
    bundle = sign_version(signed(first), ann.private, certificate=leaf)
    trusted = root_certificate(root)
    signature = verify_version(bundle, signed(first), [trusted])
    assert (signature.signer, signature.key, signature.is_fingerprint) == (URI, trusted, False)
    with pytest.raises(StatementRefused, match="does not hold"):
        verify_version(bundle, signed(first), [root_certificate(people("eve"))])
    with pytest.raises(StatementRefused, match="none of the 1 trusted"):
        verify_version(bundle, signed(first), [ann.public])


# -- what is no signature ------------------------------------------------


def bundle_with(first: VersionRecord, ann: Signer, change: Callable[[dict[str, Any]], None]) -> bytes:
    bundle = json.loads(sign_version(Signed(first.digest, first.files), ann.private))
    change(bundle)
    return json.dumps(bundle).encode()


def restate(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Changes the signed statement; the signature no longer fits, but its form is looked at first."""

    def rewrite(bundle: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(statement)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return rewrite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.update(mediaType="application/json"), "mediaType"),
        (lambda b: b.pop("verificationMaterial"), "verificationMaterial is not an object"),
        (lambda b: b["verificationMaterial"]["publicKey"].pop("hint"), "which key"),
        (lambda b: b["verificationMaterial"].update(x509CertificateChain={"certificates": []}), "chain is empty"),
        (lambda b: b.pop("dsseEnvelope"), "dsseEnvelope is not an object"),
        (lambda b: b["dsseEnvelope"].update(signatures=[]), "exactly one signature"),
        (lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]), "exactly one"),
        (lambda b: b["dsseEnvelope"].update(payload="***"), "base64"),
        (lambda b: b["dsseEnvelope"].update(payload="e30="), "predicateType"),
        (restate(lambda s: s.update(predicateType="https://model_signing/Digests/v0.1")), "predicateType"),
        (restate(lambda s: s.update(subject=[])), "exactly one subject"),
        (restate(lambda s: s["subject"][0].update(name=7)), "no name"),
        (restate(lambda s: s["predicate"]["resources"].pop()), "does not hold"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "does not hold"),
    ],
)
def test_broken_bundles(
    change: Callable[[dict[str, Any]], None], message: str, first: VersionRecord, people: People
) -> None:
    bundle = bundle_with(first, people("ann"), change)
    with pytest.raises(StatementRefused, match=message):
        verify_version(bundle, Signed(first.digest, first.files), [people("ann").public])


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(StatementRefused):
        read_bundle(data)


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(StatementRefused, match="twice"):
        read_bundle(b'{"mediaType": "a", "mediaType": "b"}')


def test_every_flipped_byte_is_noticed(first: VersionRecord, people: People) -> None:
    """Wherever a bit of the bundle changes, the outcome is a refusal or the very same signature."""
    ann = people("ann")
    subject = Signed(first.digest, first.files)
    bundle = sign_version(subject, ann.private)
    expected = verify_version(bundle, subject, [ann.public])
    for position in range(0, len(bundle), 23):
        bad = bytearray(bundle)
        bad[position] ^= 0x01
        try:
            assert verify_version(bytes(bad), subject, [ann.public]) == expected
        except StatementRefused:
            continue


# -- keys ----------------------------------------------------------------


def test_keys_that_cannot_be_used(first: VersionRecord, signed: Sign, people: People, tmp_path: Path) -> None:
    bundle = sign_version(signed(first), people("ann").private)
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = edwards.public_bytes(serialization.Encoding.PEM, form).decode()
    for trusted in ("nothing", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", pem):
        with pytest.raises(ArgumentInvalid, match="trusted key"):
            verify_version(bundle, signed(first), [trusted])
    (tmp_path / "key").write_text("nothing")
    with pytest.raises(ArgumentInvalid, match="cannot sign"):
        sign_version(signed(first), tmp_path / "key")
    with pytest.raises(ArgumentInvalid, match="cannot sign"):
        sign_version(signed(first), tmp_path / "not there")


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, first: VersionRecord, signed: Sign, people: People
) -> None:
    bundle = sign_version(signed(first), people("ann").private)
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(ExtraMissing, match=r"switchyard\[sign\]"):
        sign_version(signed(first), people("ann").private)
    with pytest.raises(ExtraMissing, match=r"switchyard\[sign\]"):
        verify_version(bundle, signed(first), [people("ann").public])
