"""What a check of a registry can find, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Severity(IntEnum):
    """How bad; the value is the exit code of a check whose worst finding it is."""

    NOTE = 0
    """Space that the next collection frees."""
    WARNING = 1
    """Nothing is lost, but something does not add up."""
    ERROR = 2
    """Something was promised that is not there."""


class FindingKind(StrEnum):
    """Everything that can be found; the value goes over the wire."""

    INDEX_MISSING = "INDEX_MISSING"
    INDEX_DAMAGED = "INDEX_DAMAGED"
    BLOB_MISSING = "BLOB_MISSING"
    BLOB_SIZE = "BLOB_SIZE"
    BLOB_CHANGED = "BLOB_CHANGED"
    BLOB_STATE = "BLOB_STATE"
    BLOB_UNREADABLE = "BLOB_UNREADABLE"
    MANIFEST = "MANIFEST"
    VERSION_NUMBERS = "VERSION_NUMBERS"
    VERSION_STATE = "VERSION_STATE"
    ALIAS_HISTORY = "ALIAS_HISTORY"
    ALIAS_TARGET = "ALIAS_TARGET"
    REVISIONS = "REVISIONS"
    AUDIT_CHAIN = "AUDIT_CHAIN"
    USED_BYTES = "USED_BYTES"
    SESSION = "SESSION"
    ORPHAN_FILE = "ORPHAN_FILE"
    STALE_UPLOAD = "STALE_UPLOAD"


_SEVERITIES = {
    FindingKind.BLOB_UNREADABLE: Severity.WARNING,
    FindingKind.USED_BYTES: Severity.WARNING,
    FindingKind.SESSION: Severity.WARNING,
    FindingKind.ORPHAN_FILE: Severity.NOTE,
    FindingKind.STALE_UPLOAD: Severity.NOTE,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: what sort of thing.
        subject: what it is about: a version, an alias, a digest.
        message: what was found, what is expected, what to do.
    """

    kind: FindingKind
    subject: str
    message: str

    @property
    def severity(self) -> Severity:
        """How bad it is; what is not listed as milder is an error."""
        return _SEVERITIES.get(self.kind, Severity.ERROR)

    def __str__(self) -> str:
        return f"{self.severity.name} {self.kind} {self.subject}: {self.message}"


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check has looked at and found.

    Attributes:
        deep: whether every blob was read and hashed.
        versions: how many version rows there are.
        blobs: how many blob rows there are.
        findings: the worst first.
    """

    deep: bool
    versions: int
    blobs: int
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 when nothing is wrong, 1 for warnings, 2 for errors."""
        return max((int(finding.severity) for finding in self.findings), default=0)
