"""What is wrong as given, and what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchyard.registry.errors.root import RegistryError, listed

if TYPE_CHECKING:
    from switchyard.registry.verdicts import Verdict


class InvalidInput(RegistryError):
    """Wrong as given; sending it again does not help."""

    reason = "INPUT_INVALID"


class RefSyntax(InvalidInput):
    """A ref, an adapter name or an alias name does not parse."""


class ArgumentInvalid(InvalidInput):
    """An argument other than a ref is out of range."""


class BaseRefused(InvalidInput):
    """A base model directory cannot be described.

    Attributes:
        verdicts: every fault found.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(listed(f"base model refused, {len(verdicts)} fault(s):", verdicts))


class VersionRefused(InvalidInput):
    """Files or lineage cannot become a version.

    Attributes:
        verdicts: every fault found.
    """

    def __init__(self, verdicts: tuple[Verdict, ...]) -> None:
        self.verdicts = verdicts
        super().__init__(listed(f"version refused, {len(verdicts)} fault(s):", verdicts))


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
        super().__init__(listed(f"statement refused, {len(verdicts)} fault(s):", verdicts))


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


class RolloutNotFound(NotFound):
    """The alias has no rollout, or none that goes on."""


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
