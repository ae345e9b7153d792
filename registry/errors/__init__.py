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
    │   ├── RolloutNotFound           the alias has none, or none that goes on
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

from switchyard.registry.errors.inputs import (
    AdapterNotFound,
    AliasNotFound,
    ArgumentInvalid,
    ArtifactNotFound,
    BaseNotFound,
    BaseRefused,
    BlobNotFound,
    DestinationExists,
    InvalidInput,
    NamespaceNotFound,
    NotFound,
    RefSyntax,
    RolloutNotFound,
    SessionNotFound,
    StatementNotFound,
    StatementRefused,
    UploadOffset,
    VersionNotFound,
    VersionRefused,
)
from switchyard.registry.errors.root import RegistryError
from switchyard.registry.errors.states import (
    BackendRefused,
    BaseMismatch,
    CollectionHeld,
    Conflict,
    ExtraMissing,
    GenerationMismatch,
    IdempotencyConflict,
    LeaseExpired,
    NothingToRollBack,
    PolicyUnmet,
    RevisionCompacted,
    SessionClosed,
    StateRefused,
    Unmet,
    UploadBusy,
    UploadIncomplete,
    VersionDeleted,
    VersionInUse,
    VersionQuarantined,
    VersionYanked,
)
from switchyard.registry.errors.storing import (
    AccessError,
    AuditBroken,
    BackupBroken,
    BlobCorrupt,
    ChunkDamaged,
    DigestMismatch,
    IntegrityError,
    PermissionDenied,
    QuotaExceeded,
    SchemaUnknown,
    StorageError,
    StorageFailed,
    StorageFull,
    StoreBusy,
    StoreUnavailable,
    Unauthenticated,
    ValidationFailed,
)

__all__ = [
    "AccessError",
    "AdapterNotFound",
    "AliasNotFound",
    "ArgumentInvalid",
    "ArtifactNotFound",
    "AuditBroken",
    "BackendRefused",
    "BackupBroken",
    "BaseMismatch",
    "BaseNotFound",
    "BaseRefused",
    "BlobCorrupt",
    "BlobNotFound",
    "ChunkDamaged",
    "CollectionHeld",
    "Conflict",
    "DestinationExists",
    "DigestMismatch",
    "ExtraMissing",
    "GenerationMismatch",
    "IdempotencyConflict",
    "IntegrityError",
    "InvalidInput",
    "LeaseExpired",
    "NamespaceNotFound",
    "NotFound",
    "NothingToRollBack",
    "PermissionDenied",
    "PolicyUnmet",
    "QuotaExceeded",
    "RefSyntax",
    "RegistryError",
    "RevisionCompacted",
    "RolloutNotFound",
    "SchemaUnknown",
    "SessionClosed",
    "SessionNotFound",
    "StateRefused",
    "StatementNotFound",
    "StatementRefused",
    "StorageError",
    "StorageFailed",
    "StorageFull",
    "StoreBusy",
    "StoreUnavailable",
    "Unauthenticated",
    "Unmet",
    "UploadBusy",
    "UploadIncomplete",
    "UploadOffset",
    "ValidationFailed",
    "VersionDeleted",
    "VersionInUse",
    "VersionNotFound",
    "VersionQuarantined",
    "VersionRefused",
    "VersionYanked",
]
