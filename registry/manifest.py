"""The manifest: one canonical JSON document whose digest is a version's identity.

It is an OCI image manifest 1.1 with the media types of the ModelPack
specification, so that registries and tools for OCI artifacts can carry it:
https://github.com/opencontainers/image-spec/blob/main/manifest.md and
https://github.com/modelpack/model-spec. There is no version number and no time
in it: the same content has the same digest wherever and whenever it is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.registry.lineage import Lineage, Metric, QuantizationSpec
from switchyard.registry.serving_contract import CONTRACT_FILE
from switchyard.registry.strict_json import Json

__all__ = ["FileEntry", "Lineage", "Manifest", "Metric", "QuantizationSpec"]

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
LINEAGE_TYPE = "application/vnd.switchyard.lora.lineage.v1+json"
_WEIGHTS_TYPE = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
_DOCUMENT_TYPE = "application/vnd.cncf.model.doc.v1.raw"
PATH_ANNOTATION = "org.cncf.model.filepath"

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_CARD = "README.md"
# Beside the files of a version, never one of them: it cannot be under its own digest.
SIGNATURE_FILE = "signature.sigstore.json"
# What a version may hold, and as which kind of layer.
FILE_TYPES = {
    ADAPTER_CONFIG: _WEIGHT_CONFIG_TYPE,
    ADAPTER_WEIGHTS: _WEIGHTS_TYPE,
    MODEL_CARD: _DOCUMENT_TYPE,
    "training_manifest.json": _DOCUMENT_TYPE,
    "metrics.json": _DOCUMENT_TYPE,
    "evaluation.json": _DOCUMENT_TYPE,
    "golden.json": _DOCUMENT_TYPE,
    CONTRACT_FILE: _DOCUMENT_TYPE,
}


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a version.

    Attributes:
        path: one of `FILE_TYPES`.
        digest: of its bytes.
        size_bytes: how many bytes it has.
    """

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The content of one version.

    Attributes:
        files: sorted by path.
        base_digest: the base model it was made for.
        lineage: what produced it.
    """

    files: tuple[FileEntry, ...]
    base_digest: str
    lineage: Lineage

    @classmethod
    def of(cls, files: Sequence[FileEntry], base_digest: str, lineage: Lineage) -> Manifest:
        """Builds the manifest of these files, in whatever order they are given."""
        return cls(tuple(sorted(files)), base_digest, lineage)

    @cached_property
    def lineage_data(self) -> bytes:
        """Canonical JSON of the lineage layer."""
        return canonical_json(self.lineage.document(self.base_digest))

    @cached_property
    def config_data(self) -> bytes:
        """Canonical JSON of the ModelPack configuration."""
        layers: list[Json] = [entry.digest for entry in self.files]
        return canonical_json(
            {
                "descriptor": {"family": "lora-adapter"},
                "modelfs": {"type": "layers", "diffIds": [*layers, sha256_digest(self.lineage_data)]},
                "config": {"format": "safetensors"},
            }
        )

    @cached_property
    def data(self) -> bytes:
        """Canonical JSON of the manifest itself."""
        layers: list[Json] = [
            {
                **_descriptor(FILE_TYPES[entry.path], entry.digest, entry.size_bytes),
                "annotations": {PATH_ANNOTATION: entry.path},
            }
            for entry in self.files
        ]
        lineage = _descriptor(LINEAGE_TYPE, sha256_digest(self.lineage_data), len(self.lineage_data))
        config = _descriptor(CONFIG_TYPE, sha256_digest(self.config_data), len(self.config_data))
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": ARTIFACT_TYPE,
                "config": config,
                "layers": [*layers, lineage],
            }
        )

    @cached_property
    def digest(self) -> str:
        """Identity of the version."""
        return sha256_digest(self.data)

    @property
    def documents(self) -> tuple[bytes, ...]:
        """The documents that the registry writes itself: lineage, configuration, manifest."""
        return (self.lineage_data, self.config_data, self.data)


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}
