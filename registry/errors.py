"""The errors that the registry raises on purpose.

    RegistryError
    ├── InvalidInput              wrong as given; sending it again does not help
    │   ├── RefSyntax                 a ref, name or alias that does not parse
    │   ├── ArgumentInvalid           another argument out of range
    │   ├── BaseRefused               a base model directory that cannot be described; lists every fault
    │   ├── VersionRefused            files or lineage that cannot become a version; lists every fault
    │   ├── UploadOffset              bytes that do not continue where the blob stands
    │   └── DestinationExists         pull never writes into what is already there
    ├── NotFound                  nothing of that name
    │   ├── AdapterNotFound
    │   ├── VersionNotFound
    │   ├── AliasNotFound
    │   ├── BaseNotFound              register the base model first
    │   ├── SessionNotFound
    │   └── BlobNotFound              not part of any committed version
    ├── Unmet                     right in form, but not in this state
    │   ├── BaseMismatch              the version was made for another base model
    │   ├── UploadIncomplete          commit before every byte has arrived
    │   └── SessionClosed             the session was given up
    ├── Conflict                  somebody else got there first
    │   ├── IdempotencyConflict       the key was used for something else
    │   ├── GenerationMismatch        the alias has moved; read it again
    │   ├── LeaseExpired              begin again with the same key to go on
    │   └── UploadBusy                another call is sending this blob
    ├── IntegrityError            bytes are not what their digest says
    │   ├── DigestMismatch            the bytes that arrived
    │   └── BlobCorrupt               the bytes that were stored; publish them again to heal the blob
    ├── StorageError              the disk or the database refused
    │   ├── StorageFull
    │   ├── StorageFailed
    │   ├── StoreBusy                 another process held the write lock too long
    │   └── SchemaUnknown             the store was written by a newer release
    └── ValidationFailed          the validator itself stopped: limit exceeded or crashed

Each class has a stable `reason`, and `retryable` says whether the same call
may succeed later. Faults inside files are `Verdict`s with reasons of their own
(`switchyard.registry.verdicts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from switchyard.registry.verdicts import Verdict


class RegistryError(Exception):
    """Root of the registry's errors.

    Attributes:
        reason: stable upper-case name for machines.
        retryable: whether the same call may succeed later.
    """

    reason: ClassVar[str] = "REGISTRY_ERROR"
    retryable: ClassVar[bool] = False


class InvalidInput(RegistryError):
    """Wrong as given; sending it again does not help."""

    reason = "INPUT_INVALID"


class RefSyntax(InvalidInput):
    """A ref, an adapter name or an alias name does not parse."""

    reason = "REF_SYNTAX"


class ArgumentInvalid(InvalidInput):
    """An argument other than a ref is out of range."""

    reason = "ARGUMENT_INVALID"


def _lines(headline: str, verdicts: tuple[Verdict, ...]) -> str:
    return "\n".join([headline, *(f"  {verdict}" for verdict in verdicts)])


class BaseRefused(InvalidInput):
    """A base model directory cannot be described.

    Attributes:
        verdicts: every fault found.
    """

    reason = "BASE_REFUSED"

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(_lines(f"base model refused, {len(verdicts)} fault(s):", verdicts))


class VersionRefused(InvalidInput):
    """Files or lineage cannot become a version.

    Attributes:
        verdicts: every fault found.
    """

    reason = "VERSION_REFUSED"

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


class DestinationExists(InvalidInput):
    """The destination of a pull already holds something."""

    reason = "DESTINATION_EXISTS"


class NotFound(RegistryError):
    """Nothing of that name."""

    reason = "NOT_FOUND"


class AdapterNotFound(NotFound):
    """The adapter has no version."""

    reason = "ADAPTER_NOT_FOUND"


class VersionNotFound(NotFound):
    """The adapter exists, that version of it does not."""

    reason = "VERSION_NOT_FOUND"


class AliasNotFound(NotFound):
    """The adapter exists, that alias of it does not."""

    reason = "ALIAS_NOT_FOUND"


class BaseNotFound(NotFound):
    """No base model of that digest is registered."""

    reason = "BASE_NOT_FOUND"


class SessionNotFound(NotFound):
    """No upload session of that id."""

    reason = "SESSION_NOT_FOUND"


class BlobNotFound(NotFound):
    """No committed version, or not this session, has a blob of that digest."""

    reason = "BLOB_NOT_FOUND"


class Unmet(RegistryError):
    """Right in form, but not in this state."""

    reason = "PRECONDITION"


class BaseMismatch(Unmet):
    """The version was made for another base model."""

    reason = "BASE_MISMATCH"


class UploadIncomplete(Unmet):
    """Not every byte has arrived.

    Attributes:
        missing: digests still to be sent.
    """

    reason = "UPLOAD_INCOMPLETE"

    def __init__(self, message: str, *, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__(message)


class SessionClosed(Unmet):
    """The session was given up, or committed another way."""

    reason = "SESSION_CLOSED"


class Conflict(RegistryError):
    """Somebody else got there first."""

    reason = "CONFLICT"


class IdempotencyConflict(Conflict):
    """The idempotency key was used for other content."""

    reason = "IDEMPOTENCY_CONFLICT"


class GenerationMismatch(Conflict):
    """The alias is not at the expected generation.

    Attributes:
        current_generation: the generation it is at; 0 when it does not exist.
        current_version: the version it points to; 0 when it does not exist.
    """

    reason = "GENERATION_MISMATCH"

    def __init__(self, message: str, *, current_generation: int, current_version: int) -> None:
        self.current_generation = current_generation
        self.current_version = current_version
        super().__init__(message)


class LeaseExpired(Conflict):
    """The session's lease ran out."""

    reason = "LEASE_EXPIRED"
    retryable = True


class UploadBusy(Conflict):
    """Another call is sending this blob in this session."""

    reason = "UPLOAD_BUSY"
    retryable = True


class IntegrityError(RegistryError):
    """Bytes are not what their digest says."""

    reason = "INTEGRITY"


class DigestMismatch(IntegrityError):
    """The bytes that arrived do not have the declared digest."""

    reason = "DIGEST_MISMATCH"


class BlobCorrupt(IntegrityError):
    """The bytes that were stored are missing or changed."""

    reason = "BLOB_CORRUPT"


class StorageError(RegistryError):
    """The disk or the database refused."""

    reason = "STORAGE_ERROR"


class StorageFull(StorageError):
    """No space, or no quota, is left."""

    reason = "STORAGE_FULL"


class StorageFailed(StorageError):
    """An input or output operation failed; what it was writing is not acknowledged."""

    reason = "STORAGE_FAILED"


class StoreBusy(StorageError):
    """Another process held the write lock for too long."""

    reason = "BUSY"
    retryable = True


class SchemaUnknown(StorageError):
    """The store was written by a release that this one does not know."""

    reason = "SCHEMA_UNKNOWN"


class ValidationFailed(RegistryError):
    """The validator stopped before a verdict: it crossed a limit or crashed."""

    reason = "VALIDATION_FAILED"
