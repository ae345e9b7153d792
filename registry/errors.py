"""The errors that the registry raises on purpose.

    RegistryError
    ├── InvalidInput              wrong as given; sending it again does not help
    │   ├── RefSyntax                 a ref, name or alias that does not parse
    │   ├── ArgumentInvalid           another argument out of range
    │   ├── BaseRefused               a base model directory that cannot be described; lists every fault
    │   ├── VersionRefused            files or lineage that cannot become a version; lists every fault
    │   ├── StatementRefused          a signature or statement that does not hold; lists every fault
    │   ├── UploadOffset              bytes that do not continue where the blob stands
    │   └── DestinationExists         pull never writes into what is already there
    ├── NotFound                  nothing of that name
    │   ├── NamespaceNotFound
    │   ├── AdapterNotFound
    │   ├── VersionNotFound
    │   ├── AliasNotFound
    │   ├── BaseNotFound              register the base model first
    │   ├── StatementNotFound
    │   ├── ArtifactNotFound          in somebody else's container registry
    │   ├── SessionNotFound
    │   └── BlobNotFound              not part of any committed version
    ├── Unmet                     right in form, but not in this state
    │   ├── BaseMismatch              the version was made for another base model
    │   ├── VersionYanked             withdrawn; only a ref that names it exactly gets it
    │   ├── VersionQuarantined        held back for bad bytes or security
    │   ├── VersionDeleted            undelete it while its bytes are there
    │   ├── VersionInUse              an alias points to it; move the alias first
    │   ├── StateRefused              the version's state does not allow this move
    │   ├── PolicyUnmet               a policy asks for more; lists all that is missing
    │   ├── NothingToRollBack         the alias has no earlier version that may be served
    │   ├── RevisionCompacted         the events asked for are gone; list again, then watch
    │   ├── CollectionHeld            a backup is copying; nothing is collected meanwhile
    │   ├── BackendRefused            a database or store that does not keep what it acknowledges
    │   ├── ExtraMissing              a part of the package that was not installed
    │   ├── UploadIncomplete          commit before every byte has arrived
    │   └── SessionClosed             the session was given up
    ├── Conflict                  somebody else got there first
    │   ├── IdempotencyConflict       the key was used for something else
    │   ├── GenerationMismatch        the alias has moved; read it again
    │   ├── LeaseExpired              begin again with the same key to go on
    │   └── UploadBusy                another call is sending this blob
    ├── IntegrityError            bytes are not what their digest says
    │   ├── DigestMismatch            the bytes that arrived
    │   ├── ChunkDamaged              a part of an upload; continue where it stands
    │   ├── BlobCorrupt               the bytes that were stored; publish them again to heal the blob
    │   ├── AuditBroken               the chain of the audit log does not hold
    │   └── BackupBroken              a backup is incomplete or changed
    ├── StorageError              the disk or the database refused
    │   ├── StorageFull
    │   ├── QuotaExceeded             the namespace may not hold more
    │   ├── StorageFailed
    │   ├── StoreUnavailable          the object store does not answer
    │   ├── StoreBusy                 another process held the write lock too long
    │   └── SchemaUnknown             the store was written by a newer release
    ├── AccessError               who asks may not
    │   ├── Unauthenticated           no credential, or one that does not hold
    │   └── PermissionDenied          known, but not allowed
    └── ValidationFailed          the validator itself stopped: limit exceeded or crashed

Each class has a stable `reason`, and `retryable` says whether the same call
may succeed later. Faults inside files are `Verdict`s with reasons of their own
(`switchyard.registry.verdicts`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from switchyard.registry.verdicts import Verdict


_CAPITAL = re.compile("(?<!^)(?=[A-Z])")


class RegistryError(Exception):
    """Root of the registry's errors.

    Attributes:
        reason: stable upper-case name for machines.
        retryable: whether the same call may succeed later.
    """

    reason: ClassVar[str] = "REGISTRY_ERROR"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Names the reason after the class, unless the class names it."""
        cls.reason = vars(cls).get("reason") or _CAPITAL.sub("_", cls.__name__).upper()


class InvalidInput(RegistryError):
    """Wrong as given; sending it again does not help."""

    reason = "INPUT_INVALID"


class RefSyntax(InvalidInput):
    """A ref, an adapter name or an alias name does not parse."""


class ArgumentInvalid(InvalidInput):
    """An argument other than a ref is out of range."""


def _lines(headline: str, verdicts: tuple[Verdict, ...]) -> str:
    return "\n".join([headline, *(f"  {verdict}" for verdict in verdicts)])


class BaseRefused(InvalidInput):
    """A base model directory cannot be described.

    Attributes:
        verdicts: every fault found.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_lines(f"base model refused, {len(verdicts)} fault(s):", verdicts))


class VersionRefused(InvalidInput):
    """Files or lineage cannot become a version.

    Attributes:
        verdicts: every fault found.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_lines(f"version refused, {len(verdicts)} fault(s):", verdicts))


class UploadOffset(InvalidInput):
    """Bytes do not continue where the blob stands, or run past its size.

    Attributes:
        committed_bytes: where to continue.
    """

    reason = "OFFSET"

    def __init__(self, message: str, *, committed_bytes: int) -> None:
        self.committed_bytes = committed_bytes
        super().__init__(message)


class StatementRefused(InvalidInput):
    """A signature or another statement does not hold for what it is about.

    Attributes:
        verdicts: every fault found.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_lines(f"statement refused, {len(verdicts)} fault(s):", verdicts))


class DestinationExists(InvalidInput):
    """The destination of a pull already holds something."""


class NotFound(RegistryError):
    """Nothing of that name."""


class NamespaceNotFound(NotFound):
    """Nothing was ever published in the namespace."""


class AdapterNotFound(NotFound):
    """The adapter has no version."""


class VersionNotFound(NotFound):
    """The adapter exists, that version of it does not."""


class AliasNotFound(NotFound):
    """The adapter exists, that alias of it does not."""


class BaseNotFound(NotFound):
    """No base model of that digest is registered."""


class StatementNotFound(NotFound):
    """No statement of that id."""


class ArtifactNotFound(NotFound):
    """A container registry has no such repository, tag or blob."""


class SessionNotFound(NotFound):
    """No upload session of that id."""


class BlobNotFound(NotFound):
    """No committed version, or not this session, has a blob of that digest."""


class Unmet(RegistryError):
    """Right in form, but not in this state."""

    reason = "PRECONDITION"


class BaseMismatch(Unmet):
    """The version was made for another base model."""


class VersionYanked(Unmet):
    """The version is withdrawn; only a ref that names it exactly gets it."""


class VersionQuarantined(Unmet):
    """The version is held back, for bad bytes or security."""


class VersionDeleted(Unmet):
    """The version is deleted; undelete it while its bytes are there."""


class VersionInUse(Unmet):
    """An alias points to the version; move the alias first."""


class StateRefused(Unmet):
    """The state of the version does not allow this move."""


class PolicyUnmet(Unmet):
    """The policy of an alias, or of a namespace, asks for more before the version may be there.

    Attributes:
        verdicts: everything that is missing.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_lines(f"policy unmet, {len(verdicts)} requirement(s):", verdicts))


class NothingToRollBack(Unmet):
    """The alias has no earlier version that may be served."""


class RevisionCompacted(Unmet):
    """The events after that revision are gone; list again, then watch from there.

    Attributes:
        compacted_revision: the oldest revision that can be watched from.
    """

    def __init__(self, message: str, *, compacted_revision: int) -> None:
        self.compacted_revision = compacted_revision
        super().__init__(message)


class CollectionHeld(Unmet):
    """A backup is copying; nothing is collected meanwhile."""

    retryable = True


class BackendRefused(Unmet):
    """The database or store does not keep what it acknowledges."""


class ExtraMissing(Unmet):
    """A part of the package is needed that was not installed; the message names its extra."""


class UploadIncomplete(Unmet):
    """Not every byte has arrived.

    Attributes:
        missing: digests still to be sent.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__(message)


class SessionClosed(Unmet):
    """The session was given up, or committed another way."""


class Conflict(RegistryError):
    """Somebody else got there first."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used for other content."""


class GenerationMismatch(Conflict):
    """The alias is not at the expected generation.

    Attributes:
        current_generation: the generation it is at; 0 when it does not exist.
        current_version: the version it points to; 0 when it does not exist.
    """

    def __init__(self, message: str, *, current_generation: int, current_version: int) -> None:
        self.current_generation = current_generation
        self.current_version = current_version
        super().__init__(message)


class LeaseExpired(Conflict):
    """The session's lease ran out."""

    retryable = True


class UploadBusy(Conflict):
    """Another call is sending this blob in this session."""

    retryable = True


class IntegrityError(RegistryError):
    """Bytes are not what their digest says."""

    reason = "INTEGRITY"


class DigestMismatch(IntegrityError):
    """The bytes that arrived do not have the declared digest."""


class ChunkDamaged(IntegrityError):
    """A part of an upload was damaged on its way; none of it was stored.

    Attributes:
        committed_bytes: where to continue.
    """

    retryable = True

    def __init__(self, message: str, *, committed_bytes: int) -> None:
        self.committed_bytes = committed_bytes
        super().__init__(message)


class BlobCorrupt(IntegrityError):
    """The bytes that were stored are missing or changed."""


class AuditBroken(IntegrityError):
    """The chain of the audit log does not hold.

    Attributes:
        seq: number of the first row that does not fit.
    """

    def __init__(self, message: str, *, seq: int) -> None:
        self.seq = seq
        super().__init__(message)


class BackupBroken(IntegrityError):
    """A backup is incomplete or changed."""


class StorageError(RegistryError):
    """The disk or the database refused."""


class StorageFull(StorageError):
    """No space, or no quota, is left."""


class QuotaExceeded(StorageError):
    """The namespace may not hold more.

    Attributes:
        wanted_bytes: what it would hold.
        quota_bytes: what it may hold.
    """

    def __init__(self, message: str, *, wanted_bytes: int, quota_bytes: int) -> None:
        self.wanted_bytes = wanted_bytes
        self.quota_bytes = quota_bytes
        super().__init__(message)


class StorageFailed(StorageError):
    """An input or output operation failed; what it was writing is not acknowledged."""


class StoreUnavailable(StorageError):
    """The object store did not answer, or with a fault of its own; nothing is acknowledged."""

    retryable = True


class StoreBusy(StorageError):
    """Another process held the write lock for too long."""

    reason = "BUSY"
    retryable = True


class SchemaUnknown(StorageError):
    """The store was written by a release that this one does not know."""


class AccessError(RegistryError):
    """Who asks may not."""

    reason = "ACCESS"


class Unauthenticated(AccessError):
    """No credential, or one that does not hold."""


class PermissionDenied(AccessError):
    """Known, but not allowed."""


class ValidationFailed(RegistryError):
    """The validator stopped before a verdict: it crossed a limit or crashed."""
