"""Findings about files: what the gate, the config reader and the checks report.

A fault refuses the publish, a warning goes with the version. All findings of
one look are collected before anything is raised, so that a person mends a file
once. Text that came out of a file is shown escaped and cut, never raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_SHOWN_CHARACTERS = 120
_LISTED_FAULTS = 100


class Reason(StrEnum):
    """Every reason a verdict can have; the value is what goes over the wire."""

    FILE_NOT_ALLOWED = "FILE_NOT_ALLOWED"
    FILE_NAME = "FILE_NAME"
    FILE_MISSING = "FILE_MISSING"
    FILE_CONTENT = "FILE_CONTENT"
    NOT_REGULAR_FILE = "NOT_REGULAR_FILE"
    SIZE = "SIZE"
    DIGEST = "DIGEST_MISMATCH"
    HEADER_LENGTH = "HEADER_LENGTH"
    HEADER_SHAPE = "HEADER_SHAPE"
    HEADER_JSON = "HEADER_JSON"
    METADATA = "METADATA"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    TENSOR_COUNT = "TENSOR_COUNT"
    TENSOR_FIELDS = "TENSOR_FIELDS"
    TENSOR_NAME = "TENSOR_NAME"
    TENSORS_MISSING = "TENSORS_MISSING"
    DTYPE = "DTYPE"
    SHAPE = "SHAPE"
    OFFSETS = "OFFSETS"
    TRAILING_BYTES = "TRAILING_BYTES"
    CONFIG_SIZE = "CONFIG_SIZE"
    CONFIG_JSON = "CONFIG_JSON"
    CONFIG_VALUE = "CONFIG_VALUE"
    CONFIG_FIELD_REFUSED = "CONFIG_FIELD_REFUSED"
    FEATURE_UNSUPPORTED = "FEATURE_UNSUPPORTED"
    RANK = "RANK"
    PATTERN = "PATTERN"
    NO_TARGETS = "NO_TARGETS"
    BASE_MISMATCH = "BASE_MISMATCH"
    RANK_MISMATCH = "RANK_MISMATCH"
    NON_FINITE = "NON_FINITE"
    SCALE_RANGE = "SCALE_RANGE"
    LINEAGE = "LINEAGE"
    # Statements, and what the policy of an alias misses.
    STATEMENT = "STATEMENT"
    SIGNATURE = "SIGNATURE"
    GENERATION_REQUIRED = "GENERATION_REQUIRED"
    STATEMENT_MISSING = "STATEMENT_MISSING"
    SIGNATURE_MISSING = "SIGNATURE_MISSING"
    APPROVALS_MISSING = "APPROVALS_MISSING"
    PROMOTER_IS_PUBLISHER = "PROMOTER_IS_PUBLISHER"
    # Warnings only.
    NO_EFFECT = "NO_EFFECT"
    TARGET_UNMATCHED = "TARGET_UNMATCHED"
    TARGETS_FROM_TENSORS = "TARGETS_FROM_TENSORS"
    FIELD_IGNORED = "FIELD_IGNORED"
    FILE_IGNORED = "FILE_IGNORED"
    ALREADY_PUBLISHED = "ALREADY_PUBLISHED"
    VERSION_RESTORED = "VERSION_RESTORED"
    VERSION_YANKED = "VERSION_YANKED"
    CARD_BASE = "CARD_BASE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.

    Attributes:
        reason: stable name for machines.
        subject: what it is about, e.g. a file, `file#tensor` or a config field; safe to print.
        message: what was found, what is expected, what to do.
    """

    reason: Reason
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason} {self.subject}: {self.message}"


def shown(text: object) -> str:
    """Makes text that came from a file safe to print.

    Escapes everything outside printable ASCII, so that a name cannot move the
    cursor, turn writing direction or forge a log line.
    """
    escaped = ascii(text)
    if len(escaped) <= _SHOWN_CHARACTERS:
        return escaped
    return f"{escaped[:_SHOWN_CHARACTERS]}... ({len(escaped)} characters)"


class Findings:
    """Collects faults and warnings of one look at some files.

    Keeps at most 100 faults of a kind and counts the rest: a file with a
    million bad tensors must not become a million verdicts.
    """

    def __init__(self) -> None:
        self._faults: list[Verdict] = []
        self._warnings: list[Verdict] = []
        self._dropped: dict[Reason, int] = {}

    def fault(self, reason: Reason, subject: str, message: str) -> None:
        """Records a reason to refuse."""
        if sum(verdict.reason == reason for verdict in self._faults) < _LISTED_FAULTS:
            self._faults.append(Verdict(reason, subject, message))
        else:
            self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def warn(self, reason: Reason, subject: str, message: str) -> None:
        """Records something worth knowing that does not refuse."""
        self._warnings.append(Verdict(reason, subject, message))

    @property
    def faults(self) -> tuple[Verdict, ...]:
        """All faults, in the order found, with a line for those not listed."""
        rest = (
            Verdict(reason, "and more", f"{count} further fault(s) of this kind are not listed")
            for reason, count in self._dropped.items()
        )
        return (*self._faults, *rest)

    @property
    def warnings(self) -> tuple[Verdict, ...]:
        """All warnings, in the order found."""
        return tuple(self._warnings)

    def take(self, faults: tuple[Verdict, ...], warnings: tuple[Verdict, ...] = ()) -> None:
        """Adds what another look has found."""
        self._faults.extend(faults)
        self._warnings.extend(warnings)
