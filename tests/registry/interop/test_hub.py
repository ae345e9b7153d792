"""A version goes to a Hub repository and comes back the same; nothing unpinned or linked elsewhere comes in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import write_adapter
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import ArgumentInvalid, DestinationExists, VersionRefused
from switchyard.registry.interop.hub import PASSPORT, export_hub, import_hub
from switchyard.registry.lineage import Lineage, Metric
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = AdapterName("team", "imported")
DATASET = "sha256:" + "d" * 64


def exported(registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, dest: Path) -> Path:
    lineage = Lineage(dataset_digest=DATASET, metrics=(Metric("exact_match", 0.9),))
    publish(registry, base, name, source, lineage=lineage)
    export_hub(registry, AdapterRef.parse(f"{name}:1"), dest)
    return dest


def test_there_and_back_is_the_same_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path], tmp_path: Path
) -> None:
    directory = exported(registry, base, name, adapter(0), tmp_path / "hub")
    outcome = import_hub(registry, str(directory), OTHER, base_digest=base.digest, publisher="ann")
    version = outcome.result.version
    assert version is not None
    assert version.digest == registry.get_version(AdapterRef.parse(f"{name}:1")).digest
    assert version.lineage.dataset_digest == DATASET
    assert outcome.left_out == ()


def test_an_export_has_a_card_and_a_passport(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path], tmp_path: Path
) -> None:
    source = adapter(0)
    (source / "README.md").unlink()
    directory = exported(registry, base, name, source, tmp_path / "hub")
    card = (directory / "README.md").read_text()
    assert card.startswith("---\n")
    assert "base_model" in card
    passport = json.loads((directory / PASSPORT).read_text())
    assert passport["base_digest"] == base.digest
    with pytest.raises(DestinationExists):
        export_hub(registry, AdapterRef.parse(f"{name}:1"), directory)


def snapshot_of(source: Path, root: Path) -> Path:
    """The layout of the Hub's cache: links from a snapshot into blobs named by their hash."""
    snapshot, blobs = root / "models--team--x" / "snapshots" / COMMIT, root / "models--team--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    return snapshot


def test_a_snapshot_of_the_cache_is_followed(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source")
    (source / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (source / "training_args.bin").write_bytes(b"\x80\x04.")
    outcome = import_hub(
        registry, str(snapshot_of(source, tmp_path)), OTHER, base_digest=base.digest, publisher="ann"
    )
    assert outcome.left_out == (".gitattributes", "training_args.bin")
    assert outcome.result.version is not None


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret"])
def test_a_link_to_anywhere_else_is_refused(
    target: str, registry: Registry, base: BaseModelSpec, tmp_path: Path
) -> None:
    snapshot = snapshot_of(write_adapter(tmp_path / "source"), tmp_path)
    (tmp_path / "secret").write_text("{}")
    (snapshot / "adapter_config.json").unlink()
    (snapshot / "adapter_config.json").symlink_to(target)
    with pytest.raises(VersionRefused, match="NOT_REGULAR_FILE"):
        import_hub(registry, str(snapshot), OTHER, base_digest=base.digest, publisher="ann")


def test_an_id_needs_a_full_commit(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source")
    asked: list[tuple[str, str]] = []

    def download(repository: str, revision: str, directory: Path) -> Path:
        asked.append((repository, revision))
        return Path(shutil.copytree(source, directory))

    for revision in ("", "main", COMMIT[:7]):
        with pytest.raises(ArgumentInvalid, match="not a full commit"):
            import_hub(registry, "team/x", OTHER, base_digest=base.digest, publisher="ann", revision=revision)
    with pytest.raises(ArgumentInvalid, match="no Hub repository id"):
        import_hub(registry, "../x", OTHER, base_digest=base.digest, publisher="ann", revision=COMMIT)
    done = import_hub(
        registry, "team/x", OTHER, base_digest=base.digest, publisher="ann", revision=COMMIT, download=download
    )
    assert asked == [("team/x", COMMIT)]
    assert done.result.version is not None
    assert COMMIT in done.result.version.note


@pytest.mark.parametrize("passport", ["[]", "{", '{"lineage": 1}', '{"lineage": {"schema": 1}}'])
def test_a_broken_passport_is_told(passport: str, registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source")
    (source / PASSPORT).write_text(passport)
    with pytest.raises(ArgumentInvalid, match=PASSPORT):
        import_hub(registry, str(source), OTHER, base_digest=base.digest, publisher="ann")
