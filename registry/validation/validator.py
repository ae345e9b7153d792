"""All checks of the files of one version, in one call that can run anywhere.

`validate_files` needs no registry: it takes paths, digests and the base
model's module table and returns verdicts. `worker` runs it in a process of its
own; `switchyard.registry.publishing.publisher` does not care which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import open_file_digest, sha256_digest
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MODEL_CARD, FileEntry
from switchyard.registry.records import AdapterShape
from switchyard.registry.serving_contract import CONTRACT_FILE, read_contract
from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.registry.validation.adapter_config import AdapterConfig, read_adapter_config
from switchyard.registry.validation.adapter_files import limit_bytes, open_regular
from switchyard.registry.validation.base_table import BaseTable
from switchyard.registry.validation.card_claims import check_card
from switchyard.registry.validation.checks import check_base_fit, check_config_fit, shape_of
from switchyard.registry.validation.gate import read_adapter_header
from switchyard.registry.validation.scan import check_updates, scan_values
from switchyard.registry.validation.shared_inputs import check_shared_inputs
from switchyard.registry.verdicts import Findings, Reason, Verdict


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """What is to be checked.

    Attributes:
        files: the files of a version, and where their bytes are.
        modules: linear layers of the base model, path to (in_features, out_features).
        base_name: what the base model is called; empty when unknown.
        base_digest: identity of the base model; empty when unknown.
        tensors: shapes of the base model's embedding, head and biases, by parameter name.
        architecture: the base model's; empty when unknown.
    """

    files: tuple[tuple[FileEntry, Path], ...]
    modules: Mapping[str, tuple[int, int]]
    base_name: str = ""
    base_digest: str = ""
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    architecture: str = ""

    @classmethod
    def of(cls, base: BaseModelSpec, files: tuple[tuple[FileEntry, Path], ...]) -> ValidationRequest:
        """What has to be known of a base model to check files against it."""
        return cls(files, base.modules, base.name, base.digest, base.tensors, base.architecture)

    @property
    def table(self) -> BaseTable:
        """What the base model has."""
        return BaseTable(self.modules, self.tensors)


@dataclass(frozen=True, slots=True)
class ValidationOutcome:
    """What was found.

    Attributes:
        shape: of the weights; None when there is a fault.
        faults: every reason to refuse.
        warnings: everything else worth knowing.
    """

    shape: AdapterShape | None
    faults: tuple[Verdict, ...]
    warnings: tuple[Verdict, ...]


Validator: TypeAlias = Callable[[ValidationRequest], ValidationOutcome]


def validate_files(request: ValidationRequest) -> ValidationOutcome:
    """Runs every check on the files of one version, in this process."""
    findings = Findings()
    config: AdapterConfig | None = None
    weights: tuple[FileEntry, Path] | None = None
    for entry, path in request.files:
        if entry.path == ADAPTER_WEIGHTS:
            weights = (entry, path)
            continue
        data = _read_document(entry, path, findings)
        if entry.path == ADAPTER_CONFIG and data is not None:
            config = read_adapter_config(data, findings)
        elif entry.path == CONTRACT_FILE and data is not None:
            read_contract(data, findings)
        elif entry.path.endswith(".json") and data is not None:
            _check_json(entry.path, data, findings)
        elif data is not None:
            text = _read_text(entry.path, data, findings)
            if entry.path == MODEL_CARD:
                check_card(entry.path, text, request.base_name, request.base_digest, findings)
    shape = _check_weights(*weights, config, request, findings) if weights is not None else None
    return ValidationOutcome(None if findings.faults else shape, findings.faults, findings.warnings)


def _check_weights(
    entry: FileEntry,
    path: Path,
    config: AdapterConfig | None,
    request: ValidationRequest,
    findings: Findings,
) -> AdapterShape | None:
    with open_regular(path, entry.path, findings) as fd:
        if fd is None or not _has_size(fd, entry, findings):
            return None
        header = read_adapter_header(fd, entry.path, findings)
        if header is None:
            # Whoever reads the verdicts must be able to tell a bad file from a file that went bad.
            _check_digest(entry, open_file_digest(fd)[0], findings)
            return None
        check_base_fit(header, request.table, findings)
        check_shared_inputs(fd, header, request.architecture, findings)
        scan = scan_values(fd, header, findings)
    _check_digest(entry, scan.digest, findings)
    if config is None:
        return None
    check_config_fit(header, config, request.table, findings)
    check_updates(header, config, scan, findings)
    return shape_of(header, config)


def _read_document(entry: FileEntry, path: Path, findings: Findings) -> bytes | None:
    with open_regular(path, entry.path, findings) as fd:
        if fd is None or not _has_size(fd, entry, findings):
            return None
        data = os.pread(fd, entry.size_bytes, 0)
    return data if _check_digest(entry, sha256_digest(data), findings) else None


def _has_size(fd: int, entry: FileEntry, findings: Findings) -> bool:
    size_bytes = os.fstat(fd).st_size
    if size_bytes == entry.size_bytes and size_bytes <= limit_bytes(entry.path):
        return True
    findings.fault(Reason.SIZE, entry.path, f"{size_bytes} bytes; expected {entry.size_bytes}")
    return False


def _check_digest(entry: FileEntry, found: str, findings: Findings) -> bool:
    if found == entry.digest:
        return True
    findings.fault(Reason.DIGEST, entry.path, f"the bytes have digest {found}; expected {entry.digest}")
    return False


def _check_json(name: str, data: bytes, findings: Findings) -> None:
    try:
        parse_json(data)
    except JsonRefused as error:
        findings.fault(Reason.FILE_CONTENT, name, f"not valid JSON: {error}")


def _read_text(name: str, data: bytes, findings: Findings) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        findings.fault(Reason.FILE_CONTENT, name, "not valid UTF-8 text")
        return ""
