"""TLS of a listener: certificate and key from files that may be replaced while the server runs.

Each handshake looks whether the files have changed; connections that are open
stay as they are. Files that cannot be read or do not belong together leave the
certificate before them in place: a rotation that went wrong must not take the
server down.
"""

from __future__ import annotations

import logging
from typing import Final

import grpc

from switchyard.server.calls.certificates import checked_context, stamp_of
from switchyard.server.protection import TlsFiles

_log: Final = logging.getLogger(__name__)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Reads the files and follows them.

    Raises:
        OSError: a file cannot be read, or they are no certificate, its key and authorities.
    """
    source = _Source(files)
    return grpc.dynamic_ssl_server_credentials(
        source.first,
        source.newest,  # type: ignore[arg-type]  # None is documented to keep what is in use
        require_client_authentication=files.client_required,
    )


class _Source:
    """Gives gRPC a new configuration when the files have changed."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = stamp_of(files)
        self.first = _configuration(files)

    def newest(self) -> grpc.ServerCertificateConfiguration | None:
        """What a handshake asks for; None keeps what is in use."""
        try:
            stamp = stamp_of(self._files)
            if stamp == self._stamp:
                return None
            configuration = _configuration(self._files)
        except OSError:
            _log.exception("TLS files cannot be used; the former certificate stays")
            return None
        self._stamp = stamp
        _log.info("TLS certificate replaced", extra={"certificate": str(self._files.certificate)})
        return configuration


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    # gRPC would find out only in a handshake, and then tell nobody.
    checked_context(files)
    chain = [(files.key.read_bytes(), files.certificate.read_bytes())]
    return grpc.ssl_server_certificate_configuration(
        chain, files.client_ca.read_bytes() if files.client_ca is not None else None
    )
