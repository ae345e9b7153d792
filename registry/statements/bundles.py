"""What a Sigstore bundle says about itself, read before anything in it is believed.

The format is https://github.com/sigstore/protobuf-specs, version 0.3 of the bundle, around a DSSE
envelope with an in-toto statement. Nothing here is verified; `signing` does that on the same bytes.
Keys that appear twice are refused, so that no two readers can see two different bundles.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from switchyard.registry.errors import StatementRefused
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.verdicts import Reason, Verdict

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
LIMIT_BYTES = 1 << 20
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a bundle that say who signed what.

    Attributes:
        hint: fingerprint of the public key, as model-signing writes it; empty with certificates.
        certificate: the signing certificate in DER; empty with a key.
        name: what the signed statement calls its subject.
    """

    hint: str
    certificate: bytes
    name: str


def read_bundle(data: bytes) -> Bundle:
    """Reads a bundle.

    Raises:
        StatementRefused: not a bundle with one signature over one model.
    """
    if len(data) > LIMIT_BYTES:
        raise signature_refused(f"it has {len(data)} bytes; expected at most {LIMIT_BYTES}")
    try:
        bundle = _object(parse_json(data), "the bundle")
        if bundle.get("mediaType") != MEDIA_TYPE:
            raise _Shape(f"its mediaType is not {MEDIA_TYPE}")
        material = _object(bundle.get("verificationMaterial"), "verificationMaterial")
        hint, certificate = _signer(material)
        envelope = _object(bundle.get("dsseEnvelope"), "dsseEnvelope")
        signatures = envelope.get("signatures")
        if not isinstance(signatures, list) or len(signatures) != 1:
            raise _Shape("it does not have exactly one signature")
        statement = _object(parse_json(_decoded(envelope.get("payload"), "payload")), "the signed statement")
        return Bundle(hint, certificate, _name(statement))
    except (JsonRefused, _Shape) as error:
        message = f"it is not a signature of a model: {error}; sign with `switchyard sign` or model-signing 1.1"
        raise signature_refused(message) from None


def signature_refused(message: str) -> StatementRefused:
    """Returns the error for a signature that does not hold."""
    return StatementRefused((Verdict(Reason.SIGNATURE, "signature", message),))


class _Shape(ValueError):
    """A part of the bundle is not as the format says."""


def _signer(material: dict[str, Json]) -> tuple[str, bytes]:
    if "x509CertificateChain" in material:
        chain = _object(material["x509CertificateChain"], "x509CertificateChain").get("certificates")
        if not isinstance(chain, list) or not chain:
            raise _Shape("its certificate chain is empty")
        return "", _decoded(_object(chain[0], "certificates[0]").get("rawBytes"), "certificates[0]")
    hint = _object(material.get("publicKey"), "publicKey").get("hint")
    if not isinstance(hint, str) or not hint:
        raise _Shape("it does not say which key made it")
    return hint, b""


def _name(statement: dict[str, Json]) -> str:
    if statement.get("predicateType") != _PREDICATE:
        raise _Shape(f"the signed statement's predicateType is not {_PREDICATE}")
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise _Shape("it does not have exactly one subject")
    name = _object(subjects[0], "subject[0]").get("name")
    if not isinstance(name, str):
        raise _Shape("its subject has no name")
    return name


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _Shape(f"{what} is not an object")
    return value


def _decoded(value: Json, what: str) -> bytes:
    if not isinstance(value, str):
        raise _Shape(f"{what} is not base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise _Shape(f"{what} is not base64 text") from None
