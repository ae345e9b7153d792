"""Keys and certificates that signatures are verified with, and the names that signers go by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import ArgumentInvalid, ExtraMissing
from switchyard.registry.verdicts import shown

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, or a root certificate for the certificates of signers.

    Attributes:
        pem: as it was given.
        hint: how bundles name a key; empty for a certificate.
        identity: the fingerprint of a key, `sha256:` over its DER form; empty for a certificate, whose
            holders go by the name in their own.
    """

    pem: str
    hint: str
    identity: str


def read_key(pem: str) -> TrustedKey:
    """Reads a public key or a certificate in PEM.

    Raises:
        ArgumentInvalid: it is neither, or not for elliptic curves.
        ExtraMissing: the extra `sign` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise extra_missing() from error
    try:
        if pem.lstrip().startswith(_CERTIFICATE):
            x509.load_pem_x509_certificates(pem.encode())
            return TrustedKey(pem, "", "")
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ArgumentInvalid(f"trusted key {shown(pem[:60])} is not in PEM: {error}; give a public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ArgumentInvalid(f"trusted key {shown(pem[:60])} is not for elliptic curves; give one that is")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    hint = hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()
    return TrustedKey(pem, hint, sha256_digest(key.public_bytes(serialization.Encoding.DER, form)))


def holder(certificate: bytes) -> str:
    """Returns the name in a certificate: its first URI, else its first e-mail address, else its subject.

    Raises:
        ArgumentInvalid: it is no certificate in DER.
        ExtraMissing: the extra `sign` is not installed.
    """
    try:
        from cryptography import x509
    except ImportError as error:
        raise extra_missing() from error
    try:
        found = x509.load_der_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(found.subject.rfc4514_string())
    except ValueError as error:
        raise ArgumentInvalid(f"the signing certificate cannot be read: {error}") from None
    kinds = (x509.UniformResourceIdentifier, x509.RFC822Name)
    listed = [name for kind in kinds for name in names.get_values_for_type(kind)]
    return str(listed[0]) if listed else str(found.subject.rfc4514_string())


def extra_missing() -> ExtraMissing:
    """Returns the error for signatures without the libraries that make them."""
    return ExtraMissing("signatures need the extra `sign`: install switchyard[sign]")
