"""Principals: who they are, what they may do, and the tokens that prove them.

Every change is announced and so reaches the audit log and every watcher. A
revoked token, a grant taken back or a principal removed has its effect on the
next call: what is remembered holds only until anybody commits anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.access import tokens
from switchyard.registry.access.last_uses import LastUses
from switchyard.registry.access.policy import Effect, Grant, Role, Scope, parse_scope, role_grants
from switchyard.registry.access.resources import ResourcePattern
from switchyard.registry.access.tokens import IssuedToken, TokenRecord
from switchyard.registry.errors import ArgumentInvalid, Unauthenticated
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.memo import Memo
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import shown

_principal, _grant, _token = schema.principal, schema.access_grant, schema.token
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,255}\Z")
_NOTE_CHARACTERS = 256
_LAST_USED_S = 60.0
_REFUSED = "the token is malformed, unknown, expired or revoked; ask for a new one"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, proven.

    Attributes:
        name: what the audit log calls it.
        grants: what it may do.
        credential: id of the token or URI of the certificate that proved it.
    """

    name: str
    grants: tuple[Grant, ...]
    credential: str


@dataclass(frozen=True, slots=True)
class PrincipalRecord:
    """One principal with everything that hangs on it.

    Attributes:
        name: its name.
        created_at_s: when, in seconds since the epoch.
        grants: sorted.
        tokens: oldest first, revoked ones included.
    """

    name: str
    created_at_s: float
    grants: tuple[Grant, ...]
    tokens: tuple[TokenRecord, ...]


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a token that holds was found to prove."""

    principal: Principal
    expires_at_s: float | None
    last_used_at_s: float | None


class AccessControl:
    """Keeps principals, grants and tokens, and tells who a credential belongs to.

    Args:
        index: where they are kept.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._last_uses = LastUses(index)
        self._proven = Memo[str, _Proof](index.stamp)

    def close(self) -> None:
        """Writes the uses of tokens that wait for it; waits for the write lock if there are any."""
        self._last_uses.close()

    # -- who may do what -------------------------------------------------

    def create_principal(self, name: str, *, actor: str) -> None:
        """Adds a principal that may do nothing yet; one that is there already stays as it is.

        Args:
            name: of the operator's choice, or the URI in a client certificate.
            actor: who does this.

        Raises:
            ArgumentInvalid: the name cannot be one.
        """
        if _NAME.match(name) is None:
            raise ArgumentInvalid(
                f"{shown(name)} cannot name a principal: 1 to 256 of letters, digits and . _ @ : / + -, "
                "beginning with a letter or digit"
            )
        with self._index.write() as connection:
            if not _exists(connection, name):
                now_s = self._index.now()
                connection.execute(sa.insert(_principal).values(name=name, created_at_s=now_s))
                self._announce(connection, actor, {"action": "principal.created", "principal": name, "at_s": now_s})

    def delete_principal(self, name: str, *, actor: str) -> None:
        """Removes a principal with its grants and tokens.

        Raises:
            ArgumentInvalid: there is none of that name.
        """
        with self._index.write() as connection:
            _require(connection, name)
            for table in (_token, _grant):
                connection.execute(sa.delete(table).where(table.c.principal == name))
            connection.execute(sa.delete(_principal).where(_principal.c.name == name))
            self._announce(connection, actor, {"action": "principal.deleted", "principal": name})

    def grant(
        self, principal: str, scope: Scope | str, resource: str, *, effect: Effect = Effect.ALLOW, actor: str
    ) -> Grant:
        """Allows or denies one scope on the resources of one pattern; replaces the rule for the same two.

        Raises:
            ArgumentInvalid: no such principal or scope, or the pattern does not parse.
        """
        rule = Grant(parse_scope(scope), ResourcePattern.parse(resource), effect)
        self._add(principal, (rule,), actor)
        return rule

    def assign_role(self, principal: str, role: Role, namespace: str, *, actor: str) -> tuple[Grant, ...]:
        """Adds the grants of a role in a namespace, `*` for all.

        Raises:
            ArgumentInvalid: no such principal.
            RefSyntax: the namespace is no name.
        """
        rules = role_grants(role, namespace)
        self._add(principal, rules, actor)
        return rules

    def revoke_grant(self, principal: str, scope: Scope | str, resource: str, *, actor: str) -> bool:
        """Takes one rule back, whatever its effect; tells whether it was there.

        Raises:
            ArgumentInvalid: no such principal or scope, or the pattern does not parse.
        """
        pattern, scope = ResourcePattern.parse(resource), parse_scope(scope)
        where = sa.and_(
            _grant.c.principal == principal, _grant.c.scope == str(scope), _grant.c.resource == str(pattern)
        )
        with self._index.write() as connection:
            _require(connection, principal)
            if not connection.execute(sa.delete(_grant).where(where)).rowcount:
                return False
            payload = {"principal": principal, "scope": str(scope), "resource": str(pattern)}
            self._announce(connection, actor, {"action": "grant.revoked", **payload})
        return True

    def flush(self) -> None:
        """Waits until the uses of tokens so far are written, as far as they can be."""
        self._last_uses.flush()

    def list(self) -> list[PrincipalRecord]:
        """Returns every principal with its grants and tokens, sorted by name."""
        with self._index.read() as connection:
            rows = connection.execute(sa.select(_principal).order_by(_principal.c.name)).all()
            issued = (
                connection.execute(sa.select(_token).order_by(_token.c.created_at_s, _token.c.id)).mappings().all()
            )
            return [
                PrincipalRecord(
                    name=row.name,
                    created_at_s=row.created_at_s,
                    grants=_grants(connection, row.name),
                    tokens=tuple(_record(token) for token in issued if token["principal"] == row.name),
                )
                for row in rows
            ]

    # -- tokens ----------------------------------------------------------

    def create_token(self, principal: str, *, ttl_s: float | None = None, note: str = "", actor: str) -> IssuedToken:
        """Issues a token; its secret is in the answer and nowhere else.

        Args:
            principal: whom it proves.
            ttl_s: seconds that it holds; None for ever.
            note: what it is for.
            actor: who does this.

        Raises:
            ArgumentInvalid: no such principal, no time to live, or too long a note.
        """
        if ttl_s is not None and not 0 < ttl_s < float("inf"):
            raise ArgumentInvalid(f"a token of {ttl_s:g} s; expected more than 0, or none for one that does not end")
        if len(note) > _NOTE_CHARACTERS:
            raise ArgumentInvalid(f"a note of {len(note)} characters; expected at most {_NOTE_CHARACTERS}")
        now_s = self._index.now()
        issued = tokens.issue(None if ttl_s is None else now_s + ttl_s)
        row: dict[str, Json] = {
            "id": issued.token_id,
            "principal": principal,
            "secret_digest": tokens.secret_digest(issued.secret),
            "created_at_s": now_s,
            "expires_at_s": issued.expires_at_s,
            "note": note,
        }
        with self._index.write() as connection:
            _require(connection, principal)
            connection.execute(sa.insert(_token).values(**row))
            self._announce(connection, actor, {"action": "token.created", "principal": principal, "token": row})
        return issued

    def revoke_token(self, token_id: str, *, actor: str) -> bool:
        """Ends a token at once; tells whether it still held.

        Raises:
            ArgumentInvalid: there is none of that id.
        """
        with self._index.write() as connection:
            row = connection.execute(sa.select(_token).where(_token.c.id == token_id)).one_or_none()
            if row is None:
                raise ArgumentInvalid(f"there is no token {shown(token_id)}; list the tokens for their ids")
            if row.revoked_at_s is not None:
                return False
            now_s = self._index.now()
            connection.execute(sa.update(_token).where(_token.c.id == token_id).values(revoked_at_s=now_s))
            payload: dict[str, Json] = {"principal": row.principal, "token_id": token_id, "at_s": now_s}
            self._announce(connection, actor, {"action": "token.revoked", **payload})
        return True

    # -- who is calling --------------------------------------------------

    def authenticate(self, secret: str) -> Principal:
        """Returns the principal that a token proves. Reads only: a writer keeps no caller waiting.

        Raises:
            Unauthenticated: it proves nobody; the message does not say why.
        """
        token_id, stamp = tokens.token_id_of(secret), self._index.stamp()
        with self._index.read() as connection:
            row = connection.execute(sa.select(_token).where(_token.c.id == (token_id or ""))).one_or_none()
            same = tokens.matches(secret, row.secret_digest if row is not None else None)
            now_s = self._index.now()
            if row is None or not same or _has_ended(row.revoked_at_s, row.expires_at_s, now_s):
                raise Unauthenticated(_REFUSED)
            principal = Principal(row.principal, _grants(connection, row.principal), row.id)
        proof = _Proof(principal, row.expires_at_s, row.last_used_at_s)
        self._proven.keep(tokens.secret_digest(secret), proof, stamp)
        return self._used(proof, now_s)

    def remembered(self, secret: str) -> Principal | None:
        """Returns what `authenticate` would, where that is known without a transaction; never waits."""
        proof, now_s = self._proven.get(tokens.secret_digest(secret)), self._index.now()
        if proof is None or _has_ended(None, proof.expires_at_s, now_s):
            return None
        return self._used(proof, now_s)

    def identify(self, uris: Sequence[str]) -> Principal:
        """Returns the principal that a verified client certificate names.

        Args:
            uris: the URIs among its subject alternative names; anything else in it is ignored.

        Raises:
            Unauthenticated: not exactly one of them is a principal.
        """
        named = [uri for uri in uris if "://" in uri]
        with self._index.read() as connection:
            known = [uri for uri in named if _exists(connection, uri)]
            if len(known) != 1:
                listed = ", ".join(shown(uri) for uri in named[:3]) or "none"
                raise Unauthenticated(
                    f"the client certificate must name exactly one principal as a URI; found {listed}"
                )
            return Principal(known[0], _grants(connection, known[0]), known[0])

    def _used(self, proof: _Proof, now_s: float) -> Principal:
        if proof.last_used_at_s is None or now_s - proof.last_used_at_s >= _LAST_USED_S:
            self._last_uses.note(proof.principal.credential, now_s)
        return proof.principal

    def _add(self, principal: str, rules: Sequence[Grant], actor: str) -> None:
        with self._index.write() as connection:
            _require(connection, principal)
            for rule in rules:
                row = {"principal": principal, "scope": str(rule.scope), "resource": str(rule.pattern)}
                same = sa.and_(*(_grant.c[name] == value for name, value in row.items()))
                connection.execute(sa.delete(_grant).where(same))
                connection.execute(sa.insert(_grant).values(**row, effect=str(rule.effect)))
            added: list[Json] = [
                {"scope": str(rule.scope), "resource": str(rule.pattern), "effect": str(rule.effect)}
                for rule in rules
            ]
            self._announce(connection, actor, {"action": "grants.added", "principal": principal, "grants": added})

    def _announce(self, connection: Connection, actor: str, payload: dict[str, Json]) -> None:
        self._index.announce(connection, Change(ChangeKind.ACCESS_CHANGED, actor, payload=payload))


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute(sa.select(_principal.c.name).where(_principal.c.name == name)).first() is not None


def _require(connection: Connection, name: str) -> None:
    if not _exists(connection, name):
        raise ArgumentInvalid(f"there is no principal {shown(name)}; create it first")


def _grants(connection: Connection, name: str) -> tuple[Grant, ...]:
    rows = connection.execute(sa.select(_grant).where(_grant.c.principal == name)).all()
    return tuple(sorted(_grant_of(row.scope, row.resource, row.effect) for row in rows))


# Every call reads its caller's grants, and they hardly ever change.
@lru_cache(maxsize=4096)
def _grant_of(scope: str, resource: str, effect: str) -> Grant:
    return Grant(Scope(scope), ResourcePattern.parse(resource), Effect(effect))


def _has_ended(revoked_at_s: float | None, expires_at_s: float | None, now_s: float) -> bool:
    return revoked_at_s is not None or (expires_at_s is not None and expires_at_s <= now_s)


def _record(row: sa.RowMapping) -> TokenRecord:
    return TokenRecord(
        token_id=row["id"],
        principal=row["principal"],
        created_at_s=row["created_at_s"],
        expires_at_s=row["expires_at_s"],
        revoked_at_s=row["revoked_at_s"],
        last_used_at_s=row["last_used_at_s"],
        note=row["note"],
    )
