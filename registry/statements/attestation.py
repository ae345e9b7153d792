"""Weighs the statements about a version, for the policies of aliases."""

from __future__ import annotations

from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog.alias_policy import Evidence
from switchyard.registry.catalog.namespaces import Namespaces
from switchyard.registry.errors import ArgumentInvalid, BlobCorrupt, StatementRefused
from switchyard.registry.index.database import Index
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind, StatementRecord
from switchyard.registry.statements.rows import counts_for, statement_query, statement_record
from switchyard.registry.statements.signing import Signature, Signed, verify_version
from switchyard.registry.storage.blob_store import BlobStore


class Attestation:
    """Says what is attested of a version now.

    Signatures are verified again, with the bytes of the bundle as they are now: a row alone, which
    whoever can write to the database could add, attests nothing.

    Args:
        index: where the rows of statements are.
        blobs: where their bytes are.
        namespaces: say which keys are trusted.
    """

    def __init__(self, index: Index, blobs: BlobStore, namespaces: Namespaces) -> None:
        self._index = index
        self._blobs = blobs
        self._namespaces = namespaces

    def evidence_of(self, connection: Connection, version: VersionRecord) -> Evidence:
        """Weighs every statement that counts for a version, in the caller's transaction.

        Raises:
            ExtraMissing: there is a signature, and the extra `sign` is not installed.
        """
        now_s = self._index.now()
        trusted = self._namespaces.get_within(connection, version.namespace).policy.trusted_keys
        kinds: set[StatementKind] = set()
        signers: set[str] = set()
        fingerprints: set[str] = set()
        approvers: set[str] = set()
        about = counts_for(AdapterName(version.namespace, version.adapter), version.digest)
        for row in connection.execute(statement_query().where(about)).mappings():
            record = statement_record(row)
            if record.kind is StatementKind.SIGNATURE:
                signature = self._still_holds(row, version)
                if signature is None:
                    continue
                if signature.key in trusted:
                    signers.add(signature.signer)
                if signature.is_fingerprint:
                    fingerprints.add(signature.signer)
            elif record.kind is StatementKind.APPROVAL and not _has_expired(record, now_s):
                approvers.add(record.actor)
            kinds.add(record.kind)
        return Evidence(frozenset(kinds), frozenset(signers), frozenset(fingerprints), frozenset(approvers))

    def _still_holds(self, row: RowMapping, version: VersionRecord) -> Signature | None:
        subject = Signed(version.digest, version.files)
        try:
            bundle = b"".join(self._blobs.stream(row["blob_digest"], physical_key=row["physical_key"]))
            return verify_version(bundle, subject, [str(row["summary"].get("key"))])
        except (StatementRefused, ArgumentInvalid, BlobCorrupt):
            return None


def _has_expired(record: StatementRecord, now_s: float) -> bool:
    expires_at_s = record.summary.get("expires_at_s")
    return isinstance(expires_at_s, int | float) and expires_at_s <= now_s
