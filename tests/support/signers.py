"""Elliptic-curve keys, and certificates for them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from switchyard.registry.digest import sha256_digest

_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2046, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Signer:
    """A key pair in files.

    Attributes:
        private: path of the private key.
        public: the public key in PEM.
        fingerprint: how the registry calls it.
        key: the key itself.
    """

    private: Path
    public: str
    fingerprint: str
    key: ec.EllipticCurvePrivateKey


def make_signer(directory: Path, name: str, curve: ec.EllipticCurve | None = None) -> Signer:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private = directory / f"{name}.key"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    fingerprint = sha256_digest(key.public_key().public_bytes(serialization.Encoding.DER, form))
    return Signer(private, public, fingerprint, key)


def root_certificate(root: Signer) -> str:
    """A self-signed certificate that may sign others, in PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, name, root).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return _pem(builder.add_extension(usage, critical=True).sign(root.key, hashes.SHA256()))


def leaf_certificate(directory: Path, holder: Signer, uri: str, root: Signer) -> Path:
    """A certificate for signing code that names its holder by a URI."""
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
    builder = _builder(subject, issuer, holder)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    builder = builder.add_extension(
        x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
        critical=True,
    )
    path = directory / "leaf.pem"
    path.write_text(_pem(builder.sign(root.key, hashes.SHA256())))
    return path


def _builder(subject: x509.Name, issuer: x509.Name, holder: Signer) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(holder.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
