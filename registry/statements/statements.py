"""Statements about versions: attached, listed and read.

The bytes of a statement are a blob like any other. They are at hand and small, so they are stored
inside the very transaction that writes the row of the blob and of the statement: a collector removes
bytes only while it holds the write lock, and therefore comes before all of it or after all of it.
A crash in between leaves bytes without a row, which the next collection takes away.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.catalog.namespaces import Namespaces
from switchyard.registry.catalog.versions import Versions, check_limit
from switchyard.registry.digest import is_digest, sha256_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    BlobCorrupt,
    NamespaceNotFound,
    StatementNotFound,
    StatementRefused,
    VersionNotFound,
)
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState, VersionState
from switchyard.registry.publishing.session_rows import Stored, write_blob
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind, StatementRecord
from switchyard.registry.statements.payloads import LIMIT_BYTES, named, summary_of
from switchyard.registry.statements.rows import counts_for, statement_query, statement_record
from switchyard.registry.statements.signing import Signature, Signed, verify_version
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import Reason, Verdict, shown

_statement, _blob, _version = schema.statement, schema.blob, schema.version
_ACTOR_CHARACTERS = 256
MOST_BY_ONE = 64
"""Statements of one kind by one actor about one version of an adapter; every move of an alias reads them all."""


class Statements:
    """Keeps statements.

    Args:
        index: where their rows are.
        blobs: where their bytes are.
        versions: finds what they are about.
        namespaces: say which keys are trusted.
    """

    def __init__(self, index: Index, blobs: BlobStore, versions: Versions, namespaces: Namespaces) -> None:
        self._index = index
        self._blobs = blobs
        self._versions = versions
        self._namespaces = namespaces

    def attach(
        self,
        name: AdapterName,
        subject_digest: str,
        kind: str,
        payload: bytes,
        *,
        actor: str,
        trusted_keys: Sequence[str] = (),
    ) -> StatementRecord:
        """Attaches a statement to a version; the same bytes again give the statement that is there.

        Args:
            name: the adapter through which the version is meant; except a signature, a statement counts
                for this one alone.
            subject_digest: manifest digest of the version. Only a signature needs it to be here already.
            kind: one of `StatementKind`; says how to read the bytes.
            payload: at most 1 MiB.
            actor: who attaches it.
            trusted_keys: keys and roots in PEM to verify a signature with, besides those that the
                version's namespaces trust.

        Raises:
            ArgumentInvalid: the digest, the kind, the actor or a trusted key.
            VersionNotFound: a signature for a version that is not here.
            StatementRefused: the statement does not hold; every fault is told.
            ExtraMissing: a signature, and the extra `sign` is not installed.
            StorageFull, StorageFailed: nothing is attached.
        """
        known = _checked_kind(subject_digest, kind, payload, actor)
        if known is StatementKind.SIGNATURE:
            signature = self._verified(subject_digest, payload, trusted_keys)
            signer, summary = signature.signer, signature_summary(signature)
        else:
            signer, summary = "", summary_of(known, payload, subject_digest, actor)
            payload = named(known, payload, actor)
        with self._index.write() as connection:
            return self.attach_within(connection, name, subject_digest, known, payload, signer, summary, actor)

    def attach_within(
        self,
        connection: Connection,
        name: AdapterName,
        subject_digest: str,
        kind: StatementKind,
        payload: bytes,
        signer: str,
        summary: dict[str, Json],
        actor: str,
    ) -> StatementRecord:
        """Writes a statement that was checked before, in the caller's write transaction."""
        digest = sha256_digest(payload)
        same = sa.and_(
            _statement.c.subject_digest == subject_digest,
            _statement.c.kind == str(kind),
            _statement.c.blob_digest == digest,
            _statement.c.namespace == name.namespace,
            _statement.c.adapter == name.adapter,
        )
        known = connection.execute(statement_query().where(same)).mappings().one_or_none()
        if known is None:
            _require_few(connection, name, subject_digest, kind, actor)
        if known is None or not self._is_stored(connection, digest, len(payload)):
            self._store(connection, digest, payload)
        if known is not None:
            return statement_record(known)
        row: dict[str, Json] = {
            "id": uuid.uuid4().hex,
            "subject_digest": subject_digest,
            "kind": str(kind),
            "signer": signer,
            "actor": actor,
            "summary": summary,
            "created_at_s": self._index.now(),
            "namespace": name.namespace,
            "adapter": name.adapter,
        }
        connection.execute(sa.insert(_statement).values(**row, blob_digest=digest))
        told: dict[str, Json] = {**row, "digest": digest, "size_bytes": len(payload)}
        change = Change(ChangeKind.STATEMENT_ATTACHED, actor, name.namespace, name.adapter, told)
        self._index.announce(connection, change)
        return statement_record(connection.execute(statement_query().where(same)).mappings().one())

    def of(
        self, name: AdapterName, subject_digest: str, limit: int = 100, page_token: str = ""
    ) -> tuple[list[StatementRecord], str]:
        """Returns the statements that count for a version of an adapter, oldest first.

        Args:
            name: the adapter.
            subject_digest: manifest digest of the version.
            limit: most of them.
            page_token: of the page before; empty for the first one.

        Returns:
            The page, and the token of the next one or ''.

        Raises:
            ArgumentInvalid: the limit, or the token is not one that this call gave out.
        """
        check_limit(limit)
        order = (_statement.c.created_at_s, _statement.c.id)
        counting = statement_query().where(counts_for(name, subject_digest))
        query = counting.order_by(*order).limit(limit + 1)
        with self._index.read() as connection:
            if page_token:
                last = connection.execute(counting.where(_statement.c.id == page_token)).mappings().one_or_none()
                if last is None:
                    raise ArgumentInvalid("page_token is not one that this call gave out; begin again without it")
                query = query.where(
                    sa.tuple_(*order) > sa.tuple_(sa.literal(last["created_at_s"]), sa.literal(last["id"]))
                )
            found = [statement_record(row) for row in connection.execute(query).mappings()]
        return found[:limit], found[limit - 1].id if len(found) > limit else ""

    def get(self, statement_id: str) -> StatementRecord:
        """Returns one statement.

        Raises:
            StatementNotFound: there is none of that id.
        """
        return statement_record(self._row(statement_id))

    def read(self, statement_id: str) -> bytes:
        """Returns the bytes of a statement; exactly these bytes were verified.

        Raises:
            StatementNotFound: there is none of that id.
            BlobCorrupt: missing or changed; attach the same bytes again to heal them.
        """
        row = self._row(statement_id)
        try:
            return self._bytes(row)
        except BlobCorrupt:
            self._index.mark_corrupt(row["blob_digest"], row["physical_key"])
            raise

    def verify(self, subject: Signed, trusted_keys: Sequence[str]) -> Signature:
        """Returns the first signature about a version that holds.

        Args:
            subject: the version, with the files as they are served.
            trusted_keys: public keys and root certificates, in PEM.

        Raises:
            StatementRefused: it has none that holds; why each does not is told.
            ExtraMissing: the extra `sign` is not installed.
        """
        faults: list[Verdict] = []
        for statement_id in self._signatures(subject.digest):
            try:
                return verify_version(self.read(statement_id), subject, trusted_keys)
            except StatementRefused as error:
                faults += error.verdicts
            except BlobCorrupt as error:
                faults.append(Verdict(Reason.SIGNATURE, "signature", str(error)))
        none = Verdict(Reason.SIGNATURE, "signature", f"{subject.digest} has none; sign it and attach that")
        raise StatementRefused(tuple(faults) or (none,))

    def rules(self, connection: Connection, namespace: str) -> NamespacePolicy:
        """Returns the rules of a namespace; those of one that is not there yet ask for nothing."""
        try:
            return self._namespaces.get_within(connection, namespace).policy
        except NamespaceNotFound:
            return NamespacePolicy()

    def _verified(self, subject_digest: str, payload: bytes, trusted_keys: Sequence[str]) -> Signature:
        with self._index.read() as connection:
            here = sa.and_(_version.c.manifest_digest == subject_digest, _version.c.state != VersionState.PURGED)
            versions = self._versions.records(connection, here, 100)
            keys = list(trusted_keys)
            for namespace in sorted({version.namespace for version in versions}):
                keys += self.rules(connection, namespace).trusted_keys
        if not versions:
            raise VersionNotFound(f"no version here is {subject_digest}; publish it before its signature is attached")
        return verify_version(payload, Signed(subject_digest, versions[0].files), list(dict.fromkeys(keys)))

    def _is_stored(self, connection: Connection, digest: str, size_bytes: int) -> bool:
        row = connection.execute(sa.select(_blob).where(_blob.c.digest == digest)).mappings().one_or_none()
        present = row is not None and row["state"] == BlobState.PRESENT
        return present and row is not None and self._blobs.has(digest, size_bytes, row["physical_key"])

    def _store(self, connection: Connection, digest: str, payload: bytes) -> None:
        now_s = self._index.now()
        upload = f"statement-{uuid.uuid4().hex}"
        try:
            physical_key = self._blobs.put(upload, digest, len(payload), [payload])
        finally:
            self._blobs.forget_session(upload)
        write_blob(connection, Stored(digest, len(payload), physical_key, now_s), now_s)

    def _signatures(self, subject_digest: str) -> list[str]:
        signed = sa.and_(
            _statement.c.subject_digest == subject_digest, _statement.c.kind == str(StatementKind.SIGNATURE)
        )
        query = sa.select(_statement.c.id).where(signed).order_by(_statement.c.created_at_s, _statement.c.id)
        with self._index.read() as connection:
            return list(connection.execute(query).scalars())

    def _row(self, statement_id: str) -> RowMapping:
        with self._index.read() as connection:
            row = (
                connection.execute(statement_query().where(_statement.c.id == statement_id)).mappings().one_or_none()
            )
        if row is None:
            raise StatementNotFound(f"there is no statement {shown(statement_id)}; list those of the version")
        return row

    def _bytes(self, row: RowMapping) -> bytes:
        return b"".join(self._blobs.stream(row["blob_digest"], physical_key=row["physical_key"]))


def signature_summary(signature: Signature) -> dict[str, Json]:
    """Returns the facts of a signature: the key that it can be verified with again, and how far it reaches."""
    return {"key": signature.key, "bound": signature.bound}


def _require_few(
    connection: Connection, name: AdapterName, subject_digest: str, kind: StatementKind, actor: str
) -> None:
    """Refuses one more than `MOST_BY_ONE`."""
    own = {"namespace": name.namespace, "adapter": name.adapter, "kind": str(kind), "actor": actor}
    conditions = [_statement.c[column] == value for column, value in own.items()]
    query = sa.select(sa.func.count()).where(_statement.c.subject_digest == subject_digest, *conditions)
    count = connection.execute(query.select_from(_statement)).scalar_one()
    if count >= MOST_BY_ONE:
        message = f"{actor} has attached {count} of kind {kind} to {name}@{subject_digest}; expected at most "
        message += f"{MOST_BY_ONE}, so put what is to be said into one, or have another attach it"
        raise StatementRefused((Verdict(Reason.STATEMENT, "statement", message),))


def _checked_kind(subject_digest: str, kind: str, payload: bytes, actor: str) -> StatementKind:
    if kind not in list(StatementKind):
        raise ArgumentInvalid(f"statement kind {shown(kind)} is unknown; expected one of {', '.join(StatementKind)}")
    if not is_digest(subject_digest):
        raise ArgumentInvalid(
            f"subject {shown(subject_digest)} is not a digest; give the manifest digest of a version"
        )
    if not (0 < len(actor) <= _ACTOR_CHARACTERS and actor.isprintable()):
        raise ArgumentInvalid(f"actor has {len(actor)} characters; expected 1 to {_ACTOR_CHARACTERS}, all printable")
    if not 0 < len(payload) <= LIMIT_BYTES:
        message = f"{len(payload)} bytes; expected 1 to {LIMIT_BYTES}"
        raise StatementRefused((Verdict(Reason.SIZE, "statement", message),))
    return StatementKind(kind)
