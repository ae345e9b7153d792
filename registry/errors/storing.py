"""What went wrong with bytes, storage, access, or the validator itself."""

from __future__ import annotations

from switchyard.registry.errors.root import RegistryError


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
