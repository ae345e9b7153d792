"""Which store an address means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.storage.objects import ObjectBlobs
from switchyard.registry.storage.opening import open_blobs
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]


def test_nothing_is_the_registrys_own_directory(tmp_path: Path) -> None:
    blobs = open_blobs("", tmp_path)
    assert isinstance(blobs, FileBlobs)
    assert blobs.directory == tmp_path


@pytest.mark.parametrize("prefix", ["file://", "file://localhost"])
def test_another_directory_of_this_machine(prefix: str, tmp_path: Path) -> None:
    blobs = open_blobs(f"{prefix}{tmp_path}/with%20blank", tmp_path / "root")
    assert blobs.directory == tmp_path / "with blank"


def test_a_bucket(tmp_path: Path) -> None:
    blobs = open_blobs("memory:///", tmp_path)
    assert isinstance(blobs, ObjectBlobs)
    assert blobs.directory is None


@pytest.mark.parametrize("url", ["file://elsewhere/directory", "file:relative", "ftp://host/x", "directory"])
def test_what_is_no_place(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentInvalid, match="blob store"):
        open_blobs(url, tmp_path)


def test_a_registry_with_its_bytes_on_another_disk(
    base: BaseModelSpec, name: AdapterName, adapter: Make, tmp_path: Path
) -> None:
    root, bytes_there = tmp_path / "registry", tmp_path / "large-disk"
    with Registry.open(Location(root, blobs=f"file://{bytes_there}"), validate=validate_files) as registry:
        registry.register_base(base)
        publish(registry, base, name, adapter(0))
    with Registry.open(root) as registry:
        (version,) = registry.list_versions(name)[0]
        assert registry.read_blob(version.files[0].digest)
    assert len(list((bytes_there / "blobs" / "sha256").iterdir())) == 6
    assert len(json.loads((bytes_there / "index.json").read_bytes())["manifests"]) == 1
    assert not (root / "blobs").exists()
