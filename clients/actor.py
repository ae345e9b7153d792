"""Who is calling, as the registry records it. Said, not proven: no credential."""

from __future__ import annotations

import getpass
from typing import Final

METADATA_KEY: Final = "switchyard-actor"


def user_name() -> str:
    """The user of this machine; empty when it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def call_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata that every call carries; a name that HTTP/2 headers cannot carry is left out."""
    name = user_name()
    return ((METADATA_KEY, name),) if name.isascii() and name.isprintable() and name.strip() else ()
