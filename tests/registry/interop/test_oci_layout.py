"""A layout carries the very bytes of a version, and nothing in a layout is taken on trust."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import canonical_json, hex_of, sha256_digest
from switchyard.registry.errors import ArgumentInvalid, DestinationExists, DigestMismatch
from switchyard.registry.interop.oci_layout import blob_path, export_layout, import_layout
from switchyard.registry.lineage import Lineage
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

OTHER = AdapterName("team", "imported")


@pytest.fixture
def layout(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path], tmp_path: Path
) -> Path:
    publish(registry, base, name, adapter(0), lineage=Lineage(code_commit="abc"))
    export_layout(registry, AdapterRef.parse(f"{name}:1"), tmp_path / "layout")
    return tmp_path / "layout"


def index(layout: Path) -> dict[str, object]:
    return json.loads((layout / "index.json").read_text())["manifests"][0]  # type: ignore[no-any-return]


def rewrite(layout: Path, change: Callable[[dict[str, object]], None]) -> str:
    """Changes the manifest and everything that names it; returns its new digest."""
    manifest = json.loads(blob_path(layout, str(index(layout)["digest"])).read_text())
    change(manifest)
    data = canonical_json(manifest)
    blob_path(layout, sha256_digest(data)).write_bytes(data)
    entry = {"mediaType": "x", "digest": sha256_digest(data), "size": len(data)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return sha256_digest(data)


def test_there_and_back_is_the_same_version(registry: Registry, layout: Path, name: AdapterName) -> None:
    before = registry.get_version(AdapterRef.parse(f"{name}:1"))
    assert index(layout)["digest"] == before.digest
    assert index(layout)["annotations"] == {"org.opencontainers.image.ref.name": f"{name}:1"}
    version = import_layout(registry, layout, OTHER, publisher="ann").version
    assert version is not None
    assert (version.digest, version.lineage, version.files) == (before.digest, before.lineage, before.files)


def test_every_blob_of_a_layout_has_its_name(layout: Path) -> None:
    for file in (layout / "blobs" / "sha256").iterdir():
        assert hex_of(sha256_digest(file.read_bytes())) == file.name
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_an_export_replaces_nothing(registry: Registry, layout: Path, name: AdapterName) -> None:
    with pytest.raises(DestinationExists):
        export_layout(registry, AdapterRef.parse(f"{name}:1"), layout)


def test_changed_bytes_are_refused_wherever_they_are(registry: Registry, layout: Path) -> None:
    digest = str(index(layout)["digest"])
    for file in sorted((layout / "blobs" / "sha256").iterdir()):
        data = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(DigestMismatch):
            import_layout(registry, layout, OTHER, publisher="ann", digest=digest)
        file.write_bytes(data)


def test_a_missing_blob_and_a_missing_index_are_told(registry: Registry, layout: Path, name: AdapterName) -> None:
    version = registry.get_version(AdapterRef.parse(f"{name}:1"))
    blob_path(layout, version.file("adapter_model.safetensors").digest).unlink()
    with pytest.raises(ArgumentInvalid, match="has no blob"):
        import_layout(registry, layout, OTHER, publisher="ann")
    (layout / "index.json").unlink()
    with pytest.raises(ArgumentInvalid, match="no OCI layout"):
        import_layout(registry, layout, OTHER, publisher="ann")


@pytest.mark.parametrize("path", ["../../evil", "evil.py", "/etc/passwd", "ADAPTER_CONFIG.JSON"])
def test_a_layer_names_only_files_of_a_version(path: str, registry: Registry, layout: Path) -> None:
    def rename(manifest: dict[str, object]) -> None:
        manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = path  # type: ignore[index]

    rewrite(layout, rename)
    with pytest.raises(ArgumentInvalid, match="layers are named"):
        import_layout(registry, layout, OTHER, publisher="ann")


def test_other_artifacts_and_several_manifests_are_told(registry: Registry, layout: Path) -> None:
    digest = rewrite(layout, lambda manifest: manifest.update(artifactType="application/vnd.example"))
    with pytest.raises(ArgumentInvalid, match="artifactType"):
        import_layout(registry, layout, OTHER, publisher="ann")
    entry = {"digest": digest, "size": 1}
    (layout / "index.json").write_text(json.dumps({"manifests": [entry, entry]}))
    with pytest.raises(ArgumentInvalid, match="name the digest"):
        import_layout(registry, layout, OTHER, publisher="ann")


def test_a_manifest_by_other_software_is_told(registry: Registry, layout: Path) -> None:
    digest = rewrite(layout, lambda manifest: manifest.update(annotations={"by": "others"}))
    with pytest.raises(DigestMismatch, match="written by other software"):
        import_layout(registry, layout, OTHER, publisher="ann", digest=digest)
