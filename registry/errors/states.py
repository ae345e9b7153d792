"""What is right in form but not in this state, and what somebody else was first with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchyard.registry.errors.root import RegistryError, listed

if TYPE_CHECKING:
    from switchyard.registry.verdicts import Verdict


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
        super().__init__(listed(f"policy unmet, {len(verdicts)} requirement(s):", verdicts))


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
