"""The difference between two versions: configuration, lineage, and what the weights do.

Content hashes say that two adapters differ, and saving one again changes every byte. How far each
module's update has grown, how many directions it uses, and whether it still points the same way is what
a person asks; see `weight_delta` for how it is computed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from switchyard.registry.catalog.state_rules import require_usable
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.catalog.weight_delta import Factors, Matrix, cosine, effective_rank, norm_of
from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import BlobCorrupt
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.storage.downloads import Downloads
from switchyard.registry.strict_json import Json, parse_json
from switchyard.registry.validation.adapter_config import AdapterConfig, parse_adapter_config
from switchyard.registry.validation.gate import AdapterHeader, read_adapter_header
from switchyard.registry.validation.safetensors_header import TensorEntry
from switchyard.registry.verdicts import Findings


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that two versions do not agree on.

    Attributes:
        field: its name, with dots for fields inside fields.
        before_json: value in the first version as canonical JSON; empty when it has none.
        after_json: value in the second version.
    """

    field: str
    before_json: str
    after_json: str


@dataclass(frozen=True, slots=True)
class ModuleDiff:
    """One module's update in both versions; a version that leaves the module alone has 0 for it.

    Attributes:
        module: its path in the base model.
        norm_a: Frobenius norm of the first version's update, scaling included.
        norm_b: of the second one's.
        rank_a: effective rank of the first version's update.
        rank_b: of the second one's.
        cosine: of the angle between the two updates; 0 when one of them is zero.
    """

    module: str
    norm_a: float
    norm_b: float
    rank_a: float
    rank_b: float
    cosine: float


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What differs between two versions.

    Attributes:
        a: the first.
        b: the second.
        config: fields of `adapter_config.json` that differ, by name.
        lineage: fields of the lineage that differ, by name.
        modules: every module that one of them adapts, by path, the equal ones too.
    """

    a: VersionRecord
    b: VersionRecord
    config: tuple[FieldChange, ...]
    lineage: tuple[FieldChange, ...]
    modules: tuple[ModuleDiff, ...]


class Diff:
    """Compares versions, also of different adapters and base models.

    Args:
        index: where to read.
        versions: finds them.
        downloads: hands out their verified bytes.
    """

    def __init__(self, index: Index, versions: Versions, downloads: Downloads) -> None:
        self._index = index
        self._versions = versions
        self._downloads = downloads

    def compare(self, a: AdapterRef, b: AdapterRef) -> VersionDiff:
        """Compares two versions in whatever state, as long as their bytes are there.

        Raises:
            AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
            VersionDeleted: the bytes have been collected.
            BlobCorrupt: the bytes are missing or changed.
        """
        first, second = self._version(a), self._version(b)
        config_a, config_b = self._bytes(first, ADAPTER_CONFIG), self._bytes(second, ADAPTER_CONFIG)
        with (
            self._weights(first, parse_adapter_config(config_a)) as weights_a,
            self._weights(second, parse_adapter_config(config_b)) as weights_b,
        ):
            names = sorted({*weights_a.modules, *weights_b.modules})
            modules = tuple(_module_diff(name, weights_a.factors(name), weights_b.factors(name)) for name in names)
        lineage_a = first.lineage.document(first.base.digest)
        lineage_b = second.lineage.document(second.base.digest)
        return VersionDiff(
            first, second, changes(parse_json(config_a), parse_json(config_b)), changes(lineage_a, lineage_b), modules
        )

    def _version(self, ref: AdapterRef) -> VersionRecord:
        with self._index.read() as connection:
            version = self._versions.by_id(connection, self._versions.find(connection, ref)[0])
        if version.state is VersionState.PURGED:
            require_usable(version, by_alias=False)
        return version

    def _bytes(self, version: VersionRecord, path: str) -> bytes:
        return b"".join(self._downloads.open(version.file(path).digest, 0, any_state=True))

    @contextmanager
    def _weights(self, version: VersionRecord, config: AdapterConfig) -> Iterator[_Weights]:
        """Copies the weights into a file without a name, so that one module at a time can be read from it."""
        with tempfile.TemporaryFile() as file:
            for chunk in self._downloads.open(version.file(ADAPTER_WEIGHTS).digest, 0, any_state=True):
                file.write(chunk)
            file.flush()
            findings = Findings()
            header = read_adapter_header(file.fileno(), ADAPTER_WEIGHTS, findings)
            if header is None:
                raise BlobCorrupt(f"the weights of {version.name}:{version.version} are none: {findings.faults[0]}")
            yield _Weights(file.fileno(), header, config)


@dataclass(frozen=True, slots=True)
class _Weights:
    """An open weights file that has passed the gate."""

    fd: int
    header: AdapterHeader
    config: AdapterConfig

    @property
    def modules(self) -> Mapping[str, object]:
        return self.header.factors

    def factors(self, module: str) -> Factors | None:
        pair = self.header.factors.get(module)
        if pair is None:
            return None
        return Factors(self._matrix(pair.a), self._matrix(pair.b), self.config.scaling_of(module))

    def _matrix(self, entry: TensorEntry) -> Matrix:
        start = self.header.header.data_start_bytes + entry.start_bytes
        data = os.pread(self.fd, entry.stop_bytes - entry.start_bytes, start)
        return decode(entry.dtype, data).reshape(entry.shape)


def decode(dtype: str, data: bytes) -> npt.NDArray[np.float64]:
    """Returns the values of a tensor's bytes.

    Args:
        dtype: `F32`, `F16` or `BF16`, which is the upper half of an F32.
        data: little-endian.
    """
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)


def changes(before: Json, after: Json) -> tuple[FieldChange, ...]:
    """Returns the fields in which two JSON objects differ, by name."""
    left, right = _flat(before), _flat(after)
    return tuple(
        FieldChange(name, left.get(name, ""), right.get(name, ""))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    )


def _flat(value: Json, prefix: str = "") -> dict[str, str]:
    """Every field with its canonical JSON; lists stay whole."""
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: canonical_json(value).decode()}
    found: dict[str, str] = {}
    for name, member in value.items():
        found |= _flat(member, f"{prefix}.{name}" if prefix else name)
    return found


def _module_diff(module: str, a: Factors | None, b: Factors | None) -> ModuleDiff:
    nothing = np.zeros(0)
    values_a = a.singular_values() if a is not None else nothing
    values_b = b.singular_values() if b is not None else nothing
    norms = norm_of(values_a), norm_of(values_b)
    # Layers of one name but other widths, in another base model, have no angle between them.
    angle = cosine(a, b, norms) if a is not None and b is not None and a.features == b.features else 0.0
    return ModuleDiff(module, *norms, effective_rank(values_a), effective_rank(values_b), angle)
