"""What a caller proves itself with, and whom it trusts: a token, and the files of TLS.

Everything comes from the environment unless it is given, so that no secret
stands on a command line, where every user of the machine could read it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from switchyard.clients.errors import CredentialInvalid

TOKEN_VARIABLE: Final = "SWITCHYARD_TOKEN"  # noqa: S105 - a name
TOKEN_FILE_VARIABLE: Final = "SWITCHYARD_TOKEN_FILE"  # noqa: S105
ROOTS_VARIABLE: Final = "SWITCHYARD_TLS_ROOTS"
CERTIFICATE_VARIABLE: Final = "SWITCHYARD_TLS_CERTIFICATE"
KEY_VARIABLE: Final = "SWITCHYARD_TLS_KEY"
SYSTEM_ROOTS: Final = "system"
"""In place of a file of roots: those that gRPC brings along."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client proves who it is.

    Attributes:
        token: sent with every call; empty for none.
        roots: PEM file of who signs servers' certificates, or `system`; None for a connection without TLS.
        certificate: PEM file of the client's certificate; None for none.
        key: PEM file of its key.
    """

    token: str = ""
    roots: str | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.token and _TOKEN.fullmatch(self.token) is None:
            raise CredentialInvalid("the token holds characters that no token has; copy it again, without spaces")
        if (self.certificate is None) != (self.key is None):
            raise CredentialInvalid(
                f"a client certificate and its key belong together; found one of them. Set {CERTIFICATE_VARIABLE} "
                f"and {KEY_VARIABLE}."
            )
        if self.certificate is not None and self.roots is None:
            raise CredentialInvalid(
                f"a client certificate is only used with TLS; set {ROOTS_VARIABLE} to a PEM file, or to "
                f"`{SYSTEM_ROOTS}`."
            )

    def __repr__(self) -> str:
        token = "not shown" if self.token else "none"
        return f"Credentials(token {token}, roots={self.roots!r}, certificate={self.certificate!r})"

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.roots is not None

    def metadata(self, address: str, *, is_local: bool) -> tuple[tuple[str, str], ...]:
        """What every call to a server carries.

        Raises:
            CredentialInvalid: the token would cross a network in the clear.
        """
        if not self.token:
            return ()
        if not (self.uses_tls or is_local):
            raise CredentialInvalid(
                f"a token is not sent to {address} without TLS, where others could read it; set {ROOTS_VARIABLE} to "
                f"the PEM file of the server's authority, or to `{SYSTEM_ROOTS}`."
            )
        return (("authorization", f"Bearer {self.token}"),)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a TLS connection is made with.

        Raises:
            CredentialInvalid: a file cannot be read.
        """
        roots = None if self.roots in (None, SYSTEM_ROOTS) else _read(Path(str(self.roots)))
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(roots)
        return grpc.ssl_channel_credentials(roots, _read(self.key), _read(self.certificate))


def from_environment(environment: Mapping[str, str] | None = None) -> Credentials:
    """Reads the variables.

    Raises:
        CredentialInvalid: they contradict each other, or a file cannot be read.
    """
    found = os.environ if environment is None else environment
    token, token_file = found.get(TOKEN_VARIABLE, ""), found.get(TOKEN_FILE_VARIABLE, "")
    if token and token_file:
        raise CredentialInvalid(f"found both {TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE}; expected one of them.")
    if token_file:
        token = _read(Path(token_file)).decode("ascii", "replace")
    return Credentials(
        token=token.strip(),
        roots=found.get(ROOTS_VARIABLE) or None,
        certificate=_path(found, CERTIFICATE_VARIABLE),
        key=_path(found, KEY_VARIABLE),
    )


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name, "")
    return Path(value) if value else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialInvalid(f"{path} cannot be read: {error.strerror}.") from error
