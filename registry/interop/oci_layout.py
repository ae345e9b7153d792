"""Versions as OCI image layouts: a directory that skopeo, oras, crane and this project can carry.

The layout holds the very bytes of the registry: the manifest's digest is the
version's digest, before and after. Reading one trusts nothing: every blob is
hashed, and the files go through the same gate as any other publish.
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from switchyard.registry.digest import canonical_json, file_digest, hex_of, is_digest, sha256_digest
from switchyard.registry.errors import ArgumentInvalid, DigestMismatch
from switchyard.registry.lineage import Lineage, lineage_from_document
from switchyard.registry.manifest import (
    ARTIFACT_TYPE,
    FILE_TYPES,
    LINEAGE_TYPE,
    MANIFEST_TYPE,
    PATH_ANNOTATION,
    Manifest,
)
from switchyard.registry.records import PublishResult, VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.storage.durable import mapped_os_errors, new_directory, sync_directory, write_new
from switchyard.registry.store import Registry
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.verdicts import shown

LAYOUT_VERSION = '{"imageLayoutVersion":"1.0.0"}'
REF_ANNOTATION = "org.opencontainers.image.ref.name"
DOCUMENT_BYTES = 4 << 20
"""Largest manifest or other JSON document that is read."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob that a manifest names.

    Attributes:
        media_type: what it is.
        digest: of its bytes.
        size_bytes: how many there are.
        path: file name of the layer; empty for documents.
    """

    media_type: str
    digest: str
    size_bytes: int
    path: str


def export_layout(registry: Registry, ref: AdapterRef, dest: Path) -> VersionRecord:
    """Writes one version as an OCI image layout.

    Raises:
        NotFound: nothing of that name.
        DestinationExists: `dest` holds something already.
        BlobCorrupt, StorageError: nothing usable is left behind.
    """
    version = registry.resolve(ref).version
    manifest = Manifest.of(version.files, version.base.digest, version.lineage)
    with new_directory(dest) as staged:
        blobs = staged / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for entry in version.files:
            write_new(blobs / hex_of(entry.digest), registry.open_blob(entry.digest))
        for document in manifest.documents:
            write_new(blobs / hex_of(sha256_digest(document)), [document])
        write_new(staged / "oci-layout", [LAYOUT_VERSION.encode()])
        write_new(staged / "index.json", [_index_of(manifest, version)])
        for directory in (blobs, blobs.parent):
            sync_directory(directory)
    return version


def import_layout(
    registry: Registry, layout: Path, name: AdapterName, *, publisher: str, digest: str = ""
) -> PublishResult:
    """Publishes a version that lies in an OCI image layout.

    Args:
        registry: where the version goes; it knows the base model.
        layout: directory of the layout.
        name: the adapter.
        publisher: who imports.
        digest: of the manifest, when the layout has several.

    Raises:
        ArgumentInvalid: not a layout, or not of one adapter.
        DigestMismatch: a blob or the imported version is not what the manifest says.
        VersionRefused, BaseNotFound: see `Registry.publish`.
    """
    manifest_digest = digest or _only_manifest(layout)
    manifest = read_verified(layout, manifest_digest)
    layers = layers_of(manifest)
    read_verified(layout, descriptor_of_config(manifest).digest)
    lineage, base_digest = _lineage_of(layout, layers)
    with tempfile.TemporaryDirectory(prefix="switchyard-oci-") as scratch:
        for layer in layers:
            if layer.path:
                _copy_verified(layout, layer, Path(scratch) / layer.path)
        note = f"imported from the OCI manifest {manifest_digest}"
        result = registry.publish(
            name, Path(scratch), base_digest=base_digest, lineage=lineage, publisher=publisher, note=note
        )
    if result.version is not None and result.version.digest != manifest_digest:
        raise DigestMismatch(
            f"the imported files make version {result.version.digest}, expected {manifest_digest}; the manifest was "
            "written by other software: keep the version if you trust its files, or delete it"
        )
    return result


def layers_of(data: bytes) -> tuple[Layer, ...]:
    """Reads the layers of a manifest of ours, or of another that follows ModelPack.

    Raises:
        ArgumentInvalid: it is no manifest of one adapter.
    """
    document = _document(data, "manifest")
    if document.get("artifactType") != ARTIFACT_TYPE:
        raise ArgumentInvalid(f"artifactType is {shown(document.get('artifactType'))}, expected {ARTIFACT_TYPE}")
    entries = document.get("layers")
    layers = tuple(_layer(entry) for entry in (entries if isinstance(entries, list) else []))
    paths = [layer.path for layer in layers if layer.path]
    if len(set(paths)) != len(paths) or any(path not in FILE_TYPES for path in paths):
        raise ArgumentInvalid(
            f"layers are named {shown(paths)}; expected each at most once of {', '.join(FILE_TYPES)}"
        )
    return layers


def descriptor_of_config(data: bytes) -> Layer:
    """Reads the descriptor of a manifest's configuration.

    Raises:
        ArgumentInvalid: there is none.
    """
    return _layer(_document(data, "manifest").get("config"))


def blob_path(layout: Path, digest: str) -> Path:
    """Where a layout holds a blob.

    Raises:
        ArgumentInvalid: not a digest.
    """
    if not is_digest(digest):
        raise ArgumentInvalid(f"{shown(digest)} is not a sha256 digest")
    return layout / "blobs" / "sha256" / hex_of(digest)


def read_verified(layout: Path, digest: str) -> bytes:
    """Reads a document of a layout whose bytes have that digest.

    Raises:
        ArgumentInvalid: it is not there or too large.
        DigestMismatch: other bytes.
    """
    path = blob_path(layout, digest)
    if path.is_symlink() or not path.is_file() or path.stat().st_size > DOCUMENT_BYTES:
        raise ArgumentInvalid(f"the layout has no document {digest} of at most {DOCUMENT_BYTES} bytes")
    data = path.read_bytes()
    if sha256_digest(data) != digest:
        raise DigestMismatch(f"the layout's {digest} has bytes of {sha256_digest(data)}; copy it again")
    return data


def _copy_verified(layout: Path, layer: Layer, dest: Path) -> None:
    source = blob_path(layout, layer.digest)
    if source.is_symlink() or not source.is_file():
        raise ArgumentInvalid(f"the layout has no blob {layer.digest} for {layer.path}")
    with mapped_os_errors(f"reading {source}"):
        shutil.copyfile(source, dest)
        found = file_digest(dest)
    if found != layer.digest:
        raise DigestMismatch(f"{layer.path} has digest {found}, expected {layer.digest}; copy the layout again")


def _lineage_of(layout: Path, layers: tuple[Layer, ...]) -> tuple[Lineage, str]:
    found = [layer for layer in layers if layer.media_type == LINEAGE_TYPE]
    if len(found) != 1:
        raise ArgumentInvalid(f"the manifest has {len(found)} layers of type {LINEAGE_TYPE}, expected one")
    document = _document(read_verified(layout, found[0].digest), "lineage")
    try:
        return lineage_from_document(document), str(document["base_digest"])
    except (KeyError, TypeError) as error:
        raise ArgumentInvalid(f"the lineage layer has an unknown layout: {error}") from error


def _only_manifest(layout: Path) -> str:
    path = layout / "index.json"
    if not path.is_file() or path.stat().st_size > DOCUMENT_BYTES:
        raise ArgumentInvalid(f"{layout} has no index.json of at most {DOCUMENT_BYTES} bytes, so it is no OCI layout")
    entries = _document(path.read_bytes(), "index.json").get("manifests")
    digests = (
        [entry.get("digest") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    if len(digests) != 1 or not is_digest(digests[0]):
        raise ArgumentInvalid(f"the layout has the manifests {shown(digests)}; name the digest of one of them")
    return str(digests[0])


def _document(data: bytes, what: str) -> Mapping[str, Json]:
    try:
        document = parse_json(data)
    except JsonRefused as error:
        raise ArgumentInvalid(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ArgumentInvalid(f"the {what} is not a JSON object")
    return document


def _layer(entry: Json) -> Layer:
    fields = entry if isinstance(entry, dict) else {}
    annotations = fields.get("annotations")
    path = annotations.get(PATH_ANNOTATION, "") if isinstance(annotations, dict) else ""
    digest, size_bytes = fields.get("digest"), fields.get("size")
    if not is_digest(digest) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise ArgumentInvalid(f"the manifest has a descriptor without digest or size: {shown(entry)}")
    return Layer(str(fields.get("mediaType")), str(digest), size_bytes, str(path))


def _index_of(manifest: Manifest, version: VersionRecord) -> bytes:
    descriptor: dict[str, Json] = {
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": manifest.digest,
        "size": len(manifest.data),
        "annotations": {REF_ANNOTATION: f"{version.name}:{version.version}"},
    }
    return canonical_json(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [descriptor]}
    )
