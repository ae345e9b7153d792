"""The publish protocol: pin, then bytes, then rows, then one commit.

1. `begin` opens a session that pins every digest, before any byte.
2. Each missing blob is written, synced and linked; then its row is written
   while the session still pins it (`sessions`).
3. `commit` validates the stored bytes and writes the registry's own documents.
4. One transaction makes the version visible: number, rows, alias, session.

A crash anywhere leaves either the whole version or none, and the same
idempotency key goes on from there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sqlalchemy.engine import Connection

from switchyard.registry.catalog import usage
from switchyard.registry.catalog.aliases import Aliases
from switchyard.registry.catalog.bases import BaseModels
from switchyard.registry.catalog.labels import check_tags
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    BlobCorrupt,
    IdempotencyConflict,
    SessionClosed,
    UploadIncomplete,
    VersionRefused,
)
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import SessionState
from switchyard.registry.lineage import Lineage, check_lineage
from switchyard.registry.manifest import SIGNATURE_FILE, FileEntry, Manifest
from switchyard.registry.publishing.session_rows import Session, SessionRequest
from switchyard.registry.publishing.sessions import Sessions
from switchyard.registry.publishing.version_rows import Draft, VersionRows
from switchyard.registry.records import AdapterShape, PublishResult, UploadSession, VersionRecord
from switchyard.registry.refs import AdapterName, check_alias
from switchyard.registry.statements.signed_publish import PublishSignatures
from switchyard.registry.statements.signing import Signed
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.storage.layout import Layout
from switchyard.registry.storage.reserve import Reserve
from switchyard.registry.validation.adapter_files import SourceFiles, check_entries, collect_files, read_chunks
from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest, Validator
from switchyard.registry.verdicts import Findings, Reason, Verdict

_KEY_CHARACTERS = 256
_NOTE_CHARACTERS = 10_000


class Publisher:
    """Makes versions.

    Args:
        index: where rows go.
        blobs: where bytes go.
        sessions: opens and feeds uploads.
        bases: base models that a version can be made for.
        versions: reads back what was made.
        aliases: moved together with a commit when asked.
        rows: writes the version.
        signatures: checks and attaches what is signed.
        layout: told of new versions.
        reserve: refuses uploads that would fill the disk.
        validate: decides whether files can be a version.
        on_step: told of each point of the protocol.
    """

    def __init__(
        self,
        *,
        index: Index,
        blobs: BlobStore,
        sessions: Sessions,
        bases: BaseModels,
        versions: Versions,
        aliases: Aliases,
        rows: VersionRows,
        signatures: PublishSignatures,
        layout: Layout,
        reserve: Reserve,
        validate: Validator,
        on_step: OnStep = ignore_step,
    ) -> None:
        self._index = index
        self._blobs = blobs
        self._sessions = sessions
        self._bases = bases
        self._versions = versions
        self._aliases = aliases
        self._rows = rows
        self._signatures = signatures
        self._layout = layout
        self._reserve = reserve
        self._validate = validate
        self._on_step = on_step

    def begin(
        self,
        name: AdapterName,
        files: Sequence[FileEntry],
        *,
        base_digest: str,
        lineage: Lineage,
        idempotency_key: str,
        publisher: str,
        note: str,
    ) -> UploadSession:
        """Opens an upload session, or continues the one of the same key.

        Raises:
            VersionRefused: faults in the list of files or the lineage, all of them.
            ArgumentInvalid: the key, the publisher or the note.
            BaseNotFound: the base model is not registered.
            IdempotencyConflict: the key was used for other content.
            QuotaExceeded: the namespace may not hold that much more.
            StorageFull: the disk may not.
        """
        _check_text("idempotency_key", idempotency_key, 1, _KEY_CHARACTERS)
        _check_text("publisher", publisher, 1, _KEY_CHARACTERS)
        _check_text("note", note, 0, _NOTE_CHARACTERS, multiline=True)
        findings = Findings()
        check_entries(files, findings)
        check_lineage(lineage, findings)
        if findings.faults:
            raise VersionRefused(findings.faults)
        manifest = Manifest.of(files, base_digest, lineage)
        with self._index.read() as connection:
            self._bases.get(connection, base_digest)
            sizes = {entry.digest: entry.size_bytes for entry in manifest.files}
            usage.require_room(connection, name.namespace, sizes)
        coming_bytes = self._sessions.coming_bytes(name.namespace, idempotency_key, manifest.files)
        if coming_bytes:
            self._reserve.require_room(coming_bytes)
        session = self._sessions.open(SessionRequest(name, manifest, idempotency_key, publisher, note))
        if session.version_id is not None:
            committed = self._record(session.version_id)
            return UploadSession(session.session_id, (), session.expires_at_s, committed)
        missing = self._sessions.missing(session, manifest.files)
        return UploadSession(session.session_id, missing, session.expires_at_s, None)

    def commit(
        self,
        session_id: str,
        *,
        validate_only: bool,
        set_alias: str | None,
        expected_generation: int | None,
        tags: Mapping[str, str],
        signature: bytes | None,
        actor: str,
    ) -> PublishResult:
        """Checks everything and makes the version visible, with the alias moved in the same transaction.

        A session that was committed before returns the same version again.

        Args:
            session_id: from `begin_publish`.
            validate_only: run every check, change nothing.
            set_alias: alias to point at the version.
            expected_generation: generation that alias must have now; 0 means it must not exist.
            tags: labels that the version gets.
            signature: a bundle over the files, attached in the same transaction.
            actor: who commits.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
            UploadIncomplete: not every blob has arrived.
            VersionRefused: faults in the files, all of them.
            StatementRefused: the signature does not hold under a key that the namespace trusts.
            PolicyUnmet: the namespace asks for a signature, or the alias for more than there is.
            GenerationMismatch: the alias has moved; nothing has changed.
            IdempotencyConflict: committed before with another alias.
            VersionQuarantined: the same content is held back.
            QuotaExceeded: the namespace may not hold that much more.
        """
        _check_wishes(set_alias, expected_generation, tags, actor)
        session = self._sessions.get(session_id)
        if session.state is SessionState.COMMITTED:
            return self._committed(session, set_alias)
        self._sessions.require_open(session)
        outcome = self._validated(session)
        subject = Signed(session.manifest.digest, session.manifest.files)
        checked = self._signatures.check(session.name, subject, signature)
        self._on_step(Step.VALIDATED)
        if validate_only:
            return PublishResult(None, _texts(outcome.warnings))
        # Another caller with the same key may commit at any time; the transaction finds out.
        with suppress(SessionClosed):
            for document in session.manifest.documents:
                self._sessions.store(session_id, sha256_digest(document), len(document), [document])
        with self._index.write() as connection:
            session = self._sessions.load(connection, session_id)
            if session.state is SessionState.COMMITTED:
                return self._committed(session, set_alias)
            self._sessions.require_open(session)
            draft = Draft.of(session, _shape(outcome), _texts(outcome.warnings), tags)
            version_id, notes = self._rows.write(connection, draft, session_id)
            self._signatures.attach(connection, checked, actor)
            self._sessions.mark_committed(connection, session_id, version_id, set_alias)
            if set_alias is not None:
                self._promote(connection, session.name, set_alias, version_id, expected_generation, actor)
            self._on_step(Step.COMMIT_BEFORE_COMMIT)
        self._on_step(Step.COMMIT_AFTER_COMMIT)
        self._blobs.forget_session(session_id)
        self._layout.changed()
        return PublishResult(self._record(version_id), _texts((*outcome.warnings, *notes)))

    def _promote(
        self,
        connection: Connection,
        name: AdapterName,
        alias: str,
        version_id: int,
        expected_generation: int | None,
        actor: str,
    ) -> None:
        self._aliases.move_within(
            connection,
            name,
            alias,
            version_id,
            expected_generation=expected_generation,
            actor=actor,
            reason="set by publish",
        )

    def publish_directory(
        self,
        name: AdapterName,
        directory: Path,
        *,
        base_digest: str,
        lineage: Lineage,
        idempotency_key: str | None,
        publisher: str,
        note: str,
        set_alias: str | None,
        expected_generation: int | None,
        tags: Mapping[str, str],
    ) -> PublishResult:
        """Publishes a directory in PEFT's layout: begin, upload and commit in this process.

        Files that training leaves beside an adapter are left out with a warning; pickles, code and
        unknown files are refused. `signature.sigstore.json` is taken as the signature where the namespace
        trusts keys, and left out where it trusts none.

        Raises:
            VersionRefused: faults in the files or the lineage, all of them.
            BaseNotFound, IdempotencyConflict, GenerationMismatch, StorageError: see the single steps
        """
        findings = Findings()
        source = collect_files(directory, findings)
        check_lineage(lineage, findings)
        if findings.faults:
            raise VersionRefused(findings.faults)
        session = self.begin(
            name,
            source.files,
            base_digest=base_digest,
            lineage=lineage,
            idempotency_key=idempotency_key or uuid.uuid4().hex,
            publisher=publisher,
            note=note,
        )
        sources = {entry.digest: entry for entry in source.files}
        # Another caller with the same key may commit at any time; `commit` then returns its version.
        with suppress(SessionClosed):
            for digest in session.missing:
                entry = sources[digest]
                with mapped_os_errors(f"reading {entry.path}"):
                    chunks = read_chunks(directory / entry.path)
                    self._sessions.store(session.session_id, digest, entry.size_bytes, chunks)
        result = self.commit(
            session.session_id,
            validate_only=False,
            set_alias=set_alias,
            expected_generation=expected_generation,
            tags=tags,
            signature=self._signature(name, source),
            actor=publisher,
        )
        return PublishResult(result.version, (*_texts(source.warnings), *result.warnings))

    def _signature(self, name: AdapterName, source: SourceFiles) -> bytes | None:
        if source.signature is None or not self._signatures.takes(name.namespace):
            return None
        with mapped_os_errors(f"reading {SIGNATURE_FILE}"):
            return b"".join(read_chunks(source.directory / SIGNATURE_FILE))

    def _validated(self, session: Session) -> ValidationOutcome:
        files = session.manifest.files
        missing = self._sessions.missing(session, files)
        if missing:
            message = f"{len(missing)} blob(s) have not arrived: {', '.join(missing)}; upload them, then commit"
            raise UploadIncomplete(message, missing=missing)
        with self._index.read() as connection:
            base = self._bases.get(connection, session.manifest.base_digest)
        with self._sessions.local_files(session) as located:
            outcome = self._validate(ValidationRequest.of(base, located))
        if outcome.faults:
            self._refuse(session, outcome)
        return outcome

    def _refuse(self, session: Session, outcome: ValidationOutcome) -> NoReturn:
        """Raises what is wrong: the files themselves, or what the disk has made of them since they were sent."""
        changed = {verdict.subject for verdict in outcome.faults if verdict.reason is Reason.DIGEST}
        digests = [entry.digest for entry in session.manifest.files if entry.path in changed]
        for digest in digests:
            self._index.mark_corrupt(digest)
        if digests:
            raise BlobCorrupt(f"stored bytes have changed: {', '.join(digests)}; publish again to send them anew")
        raise VersionRefused(outcome.faults)

    def _committed(self, session: Session, set_alias: str | None) -> PublishResult:
        """Returns the version that a session has already become."""
        if session.version_id is None:
            self._sessions.require_open(session)
            raise SessionClosed(f"upload session {session.session_id} has no version; begin again")
        if set_alias is not None and set_alias != session.alias_set:
            raise IdempotencyConflict(
                f"upload session {session.session_id} was committed with alias {session.alias_set}, "
                f"now {set_alias} is asked for; move the alias in a call of its own"
            )
        self._blobs.forget_session(session.session_id)
        record = self._record(session.version_id)
        return PublishResult(record, record.warnings)

    def _record(self, version_id: int) -> VersionRecord:
        with self._index.read() as connection:
            return self._versions.by_id(connection, version_id)


def _texts(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(str(verdict) for verdict in verdicts)


def _shape(outcome: ValidationOutcome) -> AdapterShape:
    if outcome.shape is None:
        raise TypeError("a validation without faults gives a shape")
    return outcome.shape


def _check_wishes(alias: str | None, expected_generation: int | None, tags: Mapping[str, str], actor: str) -> None:
    _check_text("actor", actor, 1, _KEY_CHARACTERS)
    check_tags(tags)
    if alias is not None:
        check_alias(alias)
    elif expected_generation is not None:
        raise ArgumentInvalid("expected_generation is given without set_alias; name the alias it is about")


def _check_text(name: str, text: str, least: int, most: int, *, multiline: bool = False) -> None:
    printable = text.replace("\n", " ").isprintable() if multiline else text.isprintable()
    if not least <= len(text) <= most or not (text == "" or printable):
        raise ArgumentInvalid(f"{name} has {len(text)} characters; expected {least} to {most}, all printable")
