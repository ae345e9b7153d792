"""Bearer tokens: `swy_<id>_<secret>`, 256 random bits that are shown once and never stored.

The prefix lets secret scanners find a token that leaked; the id names it in
logs and in the audit log. What is stored is the sha256 of the whole text: with
that much randomness a slow hash would add nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass

from switchyard.registry.digest import sha256_digest

PREFIX = "swy"
_ID_BYTES = 8
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"{PREFIX}_(?P<id>[0-9a-f]{{16}})_[A-Za-z0-9_-]{{43}}\Z")
_NOBODY = sha256_digest(b"")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token, with its secret for the only time.

    Attributes:
        token_id: names it; not secret.
        secret: the whole text that a caller sends.
        expires_at_s: when it ends, in seconds since the epoch; None for never.
    """

    token_id: str
    secret: str
    expires_at_s: float | None

    def __repr__(self) -> str:
        return f"IssuedToken({self.token_id!r}, secret not shown)"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known of a token; never its secret.

    Attributes:
        token_id: names it.
        principal: whom it proves.
        created_at_s: seconds since the epoch, as all times here.
        expires_at_s: None for never.
        revoked_at_s: None while it holds.
        last_used_at_s: to the minute; None when it was never used.
        note: what it is for.
    """

    token_id: str
    principal: str
    created_at_s: float
    expires_at_s: float | None
    revoked_at_s: float | None
    last_used_at_s: float | None
    note: str


def issue(expires_at_s: float | None) -> IssuedToken:
    """Makes a token that nobody has seen."""
    token_id = secrets.token_hex(_ID_BYTES)
    text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return IssuedToken(token_id, text, expires_at_s)


def token_id_of(secret: str) -> str | None:
    """Returns the id in a token's text, or None when it has not the form of one."""
    match = _TOKEN.match(secret)
    return match["id"] if match else None


def secret_digest(secret: str) -> str:
    """Returns what is stored of a token."""
    return sha256_digest(secret.encode())


def matches(secret: str, stored_digest: str | None) -> bool:
    """Tells whether a token is the stored one, in a time that does not depend on how much of it is right."""
    same = hmac.compare_digest(secret_digest(secret), stored_digest or _NOBODY)
    return same and stored_digest is not None
