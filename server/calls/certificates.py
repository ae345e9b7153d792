"""Certificate files of a listener: whether they have changed, and whether they can be used."""

from __future__ import annotations

import ssl

from switchyard.server.protection import TlsFiles

Stamp = tuple[tuple[int, int, int], ...]
"""What changes when a file is replaced."""


def stamp_of(files: TlsFiles) -> Stamp:
    """The files as they are now.

    Raises:
        OSError: one is not there.
    """
    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca is not None else [])]
    facts = [path.stat() for path in paths]
    return tuple((fact.st_mtime_ns, fact.st_size, fact.st_ino) for fact in facts)


def checked_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's context with the files in it.

    Raises:
        OSError: a file cannot be read, or they are no certificate, its key and authorities.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
    except ssl.SSLError as error:
        raise OSError(
            f"{files.certificate}, {files.key} and {files.client_ca or 'no client CA'} cannot be used for TLS: "
            f"{error.reason or error}; expected a PEM certificate, its key without a password, and PEM authorities"
        ) from error
    return context
