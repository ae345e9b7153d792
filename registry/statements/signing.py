"""Signatures over the files of a version: OpenSSF model-signing with elliptic-curve keys or certificates.

A signature is a Sigstore bundle that lists the name and digest of every file. Because the registry
knows the digests of all files, and whoever reads a blob verifies its digest, signing and verifying take
digests instead of reading the bytes again. The stock tool verifies such a signature over a pulled
directory, and a signature that the stock tool made over a directory verifies here.

The files do not say which base model they are for. A signature made here therefore also carries the
version's own digest, as the name of what is signed, and is refused for any other version. One that was
made by the stock tool carries the name of a directory and speaks for the files alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from switchyard.registry.digest import PREFIX, hex_of
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.manifest import SIGNATURE_FILE, FileEntry
from switchyard.registry.statements.bundles import Bundle, read_bundle, signature_refused
from switchyard.registry.statements.keys import TrustedKey, extra_missing, holder, read_key
from switchyard.registry.verdicts import shown

if TYPE_CHECKING:
    from model_signing import hashing

_NAME = "sha256-"


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature is over.

    Attributes:
        digest: identity of the version.
        files: its files.
    """

    digest: str
    files: tuple[FileEntry, ...]

    @property
    def name(self) -> str:
        """What a signature that is for this version only calls it."""
        return _NAME + hex_of(self.digest)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that holds.

    Attributes:
        signer: who signed: the fingerprint of a public key, or the name in a certificate.
        key: the trusted key or root certificate that it was verified with, in PEM.
        bound: whether it is for this version only, and not for its files wherever they are.
        is_fingerprint: whether `signer` is the fingerprint of the key, which nobody else can have.
    """

    signer: str
    key: str
    bound: bool
    is_fingerprint: bool


def sign_version(
    subject: Signed,
    private_key: Path,
    *,
    password: str | None = None,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
) -> bytes:
    """Signs a version and returns the bundle, to be attached as a statement.

    Args:
        subject: what to sign.
        private_key: an elliptic-curve key in PEM.
        password: of the key, if it has one; not together with a certificate.
        certificate: for that key, in PEM; the bundle then names its holder.
        chain: certificates between it and the root.

    Raises:
        ExtraMissing: the extra `sign` is not installed.
        ArgumentInvalid: the key or the certificate cannot be used.
    """
    try:
        from model_signing import signing
    except ImportError as error:
        raise extra_missing() from error
    config = signing.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(_known_files(subject.name, subject.files))
    try:
        if certificate is None:
            # It hands the password on as it is, to a function that takes bytes.
            secret = password.encode() if password is not None else None
            config.use_elliptic_key_signer(private_key=private_key, password=secret)  # type: ignore[arg-type]
        else:
            # It cannot read an empty chain; the certificate itself adds nothing to it.
            config.use_certificate_signer(
                private_key=private_key, signing_certificate=certificate, certificate_chain=chain or [certificate]
            )
    except (ValueError, TypeError, OSError) as error:
        raise ArgumentInvalid(f"{private_key} cannot sign: {error}; give an elliptic-curve key in PEM") from None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SIGNATURE_FILE
        config.sign(scratch, path)
        return path.read_bytes()


def verify_version(bundle: bytes, subject: Signed, trusted_keys: Sequence[str]) -> Signature:
    """Checks a signature against the files of a version.

    Args:
        bundle: the signature.
        subject: what it should be over: exactly these files, none missing and none besides.
        trusted_keys: public keys and root certificates, in PEM.

    Raises:
        ExtraMissing: the extra `sign` is not installed.
        ArgumentInvalid: a trusted key cannot be read.
        StatementRefused: the signature does not hold; the message says why.
    """
    carried = read_bundle(bundle)
    if carried.name.startswith(_NAME) and carried.name != subject.name:
        other = PREFIX + carried.name.removeprefix(_NAME)
        raise signature_refused(f"it was made for version {shown(other)}, not for {subject.digest}; sign that one")
    candidates = [key for key in map(read_key, trusted_keys) if key.hint == carried.hint]
    reasons = []
    for key in candidates:
        failure = _failure(bundle, subject, key)
        if failure is None:
            return _signature(carried, key, subject)
        reasons.append(failure)
    if not candidates:
        raise signature_refused(
            f"none of the {len(trusted_keys)} trusted key(s) made it; trust its key in the policy of the namespace, "
            "or give the key with the call"
        )
    raise signature_refused(f"it does not hold for {subject.digest}: {'; '.join(reasons)}; sign the version anew")


def _failure(bundle: bytes, subject: Signed, key: TrustedKey) -> str | None:
    """Returns why a signature does not hold under a key; None when it does."""
    try:
        from model_signing import verifying
    except ImportError as error:
        raise extra_missing() from error
    config = verifying.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(_known_files("version", subject.files))
    with tempfile.TemporaryDirectory() as scratch:
        signature, pem = Path(scratch) / SIGNATURE_FILE, Path(scratch) / "key.pem"
        signature.write_bytes(bundle)
        pem.write_text(key.pem)
        try:
            if key.hint:
                config.use_elliptic_key_verifier(public_key=pem)
            else:
                config.use_certificate_verifier(certificate_chain=[pem])
            config.verify(scratch, signature)
        except Exception as error:  # Its parsers raise what they like, and all of it means no.
            return shown(str(error) or type(error).__name__)
    return None


def _signature(carried: Bundle, key: TrustedKey, subject: Signed) -> Signature:
    signer = key.identity or holder(carried.certificate)
    return Signature(signer, key.pem, carried.name == subject.name, bool(key.identity))


def _known_files(name: str, files: Sequence[FileEntry]) -> hashing.Config:
    """Returns what model-signing asks for the digests of a directory, with the answer at hand.

    It ignores no file, whatever a signature asks to be ignored.
    """
    from model_signing import hashing, manifest

    # The only name that is not part of its documented interface; the constraints pin its version.
    from model_signing._hashing.hashing import Digest

    layout = manifest.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
    items = [
        manifest.FileManifestItem(
            path=PurePosixPath(entry.path), digest=Digest("sha256", bytes.fromhex(hex_of(entry.digest)))
        )
        for entry in files
    ]
    known = manifest.Manifest(name, items, layout)

    class KnownFiles(hashing.Config):
        def hash(self, model_path: object, *, files_to_hash: object = None) -> manifest.Manifest:
            return known

    return KnownFiles()  # type: ignore[no-untyped-call]
