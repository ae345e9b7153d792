"""Examines disk, database and bucket before a registry relies on them.

A directory, a server and a bucket are asked to show what the publish protocol
needs of them; each is used, written and read, and left as it was found. A
bucket that has not shown it is refused when a registry is opened.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from switchyard.registry.errors import BackendRefused, StorageError
from switchyard.registry.location import Location, read_settings, settle, write_settings
from switchyard.registry.storage.directory_checks import DIRECTORY_PROBES, SQLITE_PROBES
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.storage.examination import Check, run_probes
from switchyard.registry.storage.opening import files_directory
from switchyard.registry.strict_json import Json

# Raised when a check is added that an older proof says nothing of.
_PROOF = 1


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What was seen of a place.

    Attributes:
        checks: every check, in the order in which they were made.
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that is required holds."""
        return all(check.ok or not check.required for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """What is required and does not hold."""
        return tuple(check for check in self.checks if check.required and not check.ok)


def examine(location: Location) -> DoctorReport:
    """Examines everything that a registry there would rely on.

    Args:
        location: the directory is made if it is not there; what it remembers counts where nothing is said.

    Raises:
        ArgumentInvalid: the location contradicts what the directory remembers, or names nothing that exists.
        StorageError: the directory cannot be made.
    """
    with mapped_os_errors(f"making {location.root}"):
        location.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    location = settle(replace(location, root=location.root.absolute()))
    checks = _directory_checks(location.root, with_index=not location.database)
    blobs = files_directory(location.blobs, location.root)
    if blobs is None:
        checks += _bucket_checks(location.blobs)
    elif blobs != location.root:
        with mapped_os_errors(f"making {blobs}"):
            blobs.mkdir(parents=True, exist_ok=True)
        checks += _directory_checks(blobs, with_index=False)
    if location.database:
        checks += _server_checks(location)
    return DoctorReport(tuple(checks))


def prove(location: Location) -> dict[str, Json] | None:
    """Examines the bucket of a settled location, if it has one and has not shown itself before.

    Returns:
        A proof to be remembered; None when none is needed.

    Raises:
        BackendRefused: the bucket does not keep what it acknowledges; lists all that it lacks.
    """
    if files_directory(location.blobs, location.root) is not None:
        return None
    settings = read_settings(location.root)
    if settings is not None and _is_proof(settings.doctor, location.blobs):
        return None
    report = DoctorReport(tuple(_bucket_checks(location.blobs)))
    if not report.ok:
        raise BackendRefused(_refusal(location.blobs, report.failed))
    warnings: list[Json] = [check.name for check in report.checks if not check.ok]
    return {"proof": _PROOF, "blobs": location.blobs, "at_s": time.time(), "warnings": warnings}


def remember_proof(root: Path, proof: dict[str, Json] | None) -> None:
    """Writes a proof down, so that the next opening need not ask for one.

    Raises:
        StorageFull, StorageFailed: it cannot be written.
    """
    settings = read_settings(root)
    if proof is not None and settings is not None:
        write_settings(root, replace(settings, doctor=proof))


def _is_proof(found: object, blobs: str) -> bool:
    return isinstance(found, dict) and found.get("proof") == _PROOF and found.get("blobs") == blobs


def _refusal(blobs: str, failed: Sequence[Check]) -> str:
    lines = [f"{blobs} does not keep what it acknowledges, {len(failed)} check(s) failed:"]
    lines += [
        f"  {check.name}: {check.found}; expected {check.expected}; next: {check.next_step}" for check in failed
    ]
    return "\n".join(lines)


def _directory_checks(directory: Path, *, with_index: bool) -> list[Check]:
    with mapped_os_errors(f"examining {directory}"):
        scratch = tempfile.TemporaryDirectory(prefix=".doctor.", dir=directory)
    with scratch as name:
        checks = run_probes(Path(name), DIRECTORY_PROBES)
        if with_index:
            checks += run_probes(Path(name), SQLITE_PROBES)
    return checks


def _bucket_checks(url: str) -> list[Check]:
    # Imported here: an embedded registry needs none of it.
    from switchyard.registry.storage.bucket import Bucket
    from switchyard.registry.storage.bucket_checks import BUCKET_PROBES, BucketUnderTest

    under = BucketUnderTest(Bucket.open(url))
    try:
        return run_probes(under, BUCKET_PROBES)
    finally:
        with suppress(StorageError):
            under.clear()


def _server_checks(location: Location) -> list[Check]:
    from switchyard.registry.storage.database_checks import SERVER_PROBES, ServerUnderTest

    dialect = location.dialect()
    under = ServerUnderTest(dialect)
    try:
        under.prepare()
        return run_probes(under, SERVER_PROBES)
    except StorageError as error:
        reach = "start the server, and look at the URL and at the rights of its user"
        return [Check("server", False, True, str(error), "a server that can be reached and written", reach)]
    finally:
        with suppress(StorageError):
            under.clear()
        dialect.close()
