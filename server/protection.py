"""What stands between a listener and whoever reaches it: TLS, and whether callers prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path


class AccessMode(StrEnum):
    """Who may call."""

    NONE = "none"
    """Everybody who reaches the listener, and for everything."""
    TOKENS = "tokens"
    """Whoever proves to be a principal, by a token or a client certificate, and for what its grants allow."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a listener's certificate comes from; all files are PEM.

    Attributes:
        certificate: the server's, with its chain.
        key: of the certificate, not encrypted.
        client_ca: who signs client certificates; None asks clients for none.
        client_required: whether a client without a certificate is refused in the handshake.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False


def tls_files(
    certificate: Path | None, key: Path | None, client_ca: Path | None, *, client_required: bool
) -> TlsFiles | None:
    """Puts settings together; None when no TLS is wanted.

    Raises:
        ValueError: one is there without another that it needs.
    """
    faults = []
    if (certificate is None) != (key is None):
        faults.append("tls_certificate and tls_key belong together; one of them is missing")
    if certificate is None and (client_ca is not None or client_required):
        faults.append("client certificates need TLS; give tls_certificate and tls_key too")
    if client_required and client_ca is None:
        faults.append("tls_client_required needs tls_client_ca, to know which certificates are good")
    if faults:
        raise ValueError("; ".join(faults))
    return None if certificate is None or key is None else TlsFiles(certificate, key, client_ca, client_required)


def is_local(host: str) -> bool:
    """Tells whether only this machine reaches an IP address; a name is not looked up and counts as reachable."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require_protection(listen: str, access: AccessMode, *, has_tls: bool) -> None:
    """Refuses a listener that other machines reach without TLS and access control.

    Args:
        listen: `unix:/path`, or an address with a port.
        access: who may call.
        has_tls: whether it speaks TLS.

    Raises:
        ValueError: it would be open to others.
    """
    host, colon, _ = listen.rpartition(":")
    if listen.startswith("unix:") or (colon and is_local(host.strip("[]"))):
        return
    missing = [
        *(["TLS (--tls-certificate, --tls-key)"] if not has_tls else []),
        *(["access control (--access tokens)"] if access is AccessMode.NONE else []),
    ]
    if missing:
        raise ValueError(
            f"{listen!r} is not `unix:/path` or a loopback address with a port, so other machines could reach it; "
            f"that needs {' and '.join(missing)}"
        )
