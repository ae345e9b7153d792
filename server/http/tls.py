"""TLS of an HTTP listener, from files that may be replaced while the server runs.

Each handshake looks whether the files have changed, as gRPC's does. Which
authorities sign client certificates is read once.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final

from switchyard.server.calls.certificates import checked_context, stamp_of
from switchyard.server.protection import TlsFiles

_log: Final = logging.getLogger(__name__)


def following_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that takes replaced files at the next handshake.

    Raises:
        OSError: a file cannot be read, or they are no certificate, its key and authorities.
    """
    first = checked_context(files)
    first.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_NONE
    newest, stamp = first, stamp_of(files)

    def handshake(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal newest, stamp
        try:
            if (now := stamp_of(files)) != stamp:
                newest, stamp = checked_context(files), now
                _log.info("TLS certificate replaced", extra={"certificate": str(files.certificate)})
        except OSError:
            _log.exception("TLS files cannot be used; the former certificate stays")
        if newest is not first:
            connection.context = newest

    first.sni_callback = handshake
    return first
