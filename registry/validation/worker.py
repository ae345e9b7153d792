"""Validation in a process of its own, with limits, that can be killed.

The bytes of an adapter are hostile until proven otherwise. The worker has no
credentials in its environment and no network (where the system lets it go, see
`isolation`), cannot write a file, and dies when it uses too much memory,
processor time or wall time; the registry's process then reports
`VALIDATION_FAILED` and goes on. What crosses the border is JSON both ways.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from switchyard.registry.errors import ValidationFailed
from switchyard.registry.manifest import FileEntry
from switchyard.registry.validation.isolation import leave_network
from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest, validate_files

_PROGRAM = "from switchyard.registry.validation.worker import main; main()"
# One thread: more would only reserve address space, which is limited.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one validation may use.

    Attributes:
        memory_bytes: address space.
        processor_s: processor time.
        wall_s: time from start to verdict.
        open_files: descriptors.
    """

    memory_bytes: int = 1 << 30
    processor_s: int = 120
    wall_s: float = 300.0
    open_files: int = 64


def validate_in_worker(
    request: ValidationRequest, limits: WorkerLimits = WorkerLimits(), *, program: str = _PROGRAM
) -> ValidationOutcome:
    """Runs `validate_files` in a new process.

    Args:
        request: what is to be checked.
        limits: what the process may use.
        program: what the process runs; tests put a misbehaving one here.

    Raises:
        ValidationFailed: the process crossed a limit or crashed; nothing is known about the files.
    """
    message = json.dumps({"request": _request_document(request), "limits": asdict(limits)})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", program],
            input=message.encode(),
            capture_output=True,
            env=_ENVIRONMENT,
            cwd="/",
            timeout=limits.wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValidationFailed(
            f"the files were not validated within {limits.wall_s:g} s; the validator was stopped"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ValidationFailed(
            f"the validator ended with status {done.returncode} ({ascii(lines[-1])[:200]}); "
            f"it may use {limits.memory_bytes} bytes and {limits.processor_s} s"
        )
    return _outcome(done.stdout)


def main() -> None:
    """Runs in the worker: reads a request from stdin, writes the outcome to stdout."""
    leave_network()
    message = json.load(sys.stdin)
    _apply(WorkerLimits(**message["limits"]))
    files = tuple((FileEntry(**entry), Path(path)) for entry, path in message["request"]["files"])
    modules = {name: (pair[0], pair[1]) for name, pair in message["request"]["modules"].items()}
    base = {name: message["request"][name] for name in ("base_name", "base_digest", "architecture")}
    tensors = {name: tuple(shape) for name, shape in message["request"]["tensors"].items()}
    outcome = validate_files(ValidationRequest(files, modules, **base, tensors=tensors))
    json.dump(asdict(outcome), sys.stdout)


def _apply(limits: WorkerLimits) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.processor_s),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _request_document(request: ValidationRequest) -> dict[str, object]:
    return {
        "files": [[asdict(entry), str(path.absolute())] for entry, path in request.files],
        "modules": {name: list(features) for name, features in request.modules.items()},
        "tensors": {name: list(shape) for name, shape in request.tensors.items()},
        "base_name": request.base_name,
        "base_digest": request.base_digest,
        "architecture": request.architecture,
    }


def _outcome(answer: bytes) -> ValidationOutcome:
    """Reads the worker's answer as strictly as anything else that hostile bytes may have reached."""
    # Imported here: the worker itself has no use for it and should start quickly.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(ValidationOutcome).validate_json(answer)
    except ValidationError:
        raise ValidationFailed("the validator gave an answer that is no verdict") from None
