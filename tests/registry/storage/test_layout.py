"""An embedded registry is a valid OCI image layout, near its tables at a cost that does not grow."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from handmade import ManualClock
from publishing import begin, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.registry.errors import StorageFull
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.index.sqlite import SqliteDialect
from switchyard.registry.refs import AdapterName
from switchyard.registry.storage import layout as layout_module
from switchyard.registry.storage.layout import Layout
from switchyard.registry.store import Registry

Make = Callable[[int], Path]


def index_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "index.json").read_bytes())
    return found


def names_in(root: Path) -> list[str]:
    return [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index_of(root)["manifests"]]


def test_a_new_registry_is_a_layout(registry: Registry, root: Path) -> None:
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = index_of(root)
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    assert index["manifests"] == []


def test_every_blob_can_be_reached_from_the_index(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    """What a tool does: follow descriptors, compare sizes and digests."""
    for seed in range(3):
        publish(registry, base, name, adapter(seed))
    reached: set[str] = set()

    def follow(descriptor: dict[str, Any]) -> bytes:
        data = (root / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert (sha256_digest(data), len(data)) == (descriptor["digest"], descriptor["size"])
        reached.add(descriptor["digest"])
        return data

    for entry in index_of(root)["manifests"]:
        manifest = json.loads(follow(entry))
        assert (manifest["mediaType"], manifest["artifactType"]) == (entry["mediaType"], entry["artifactType"])
        for descriptor in (manifest["config"], *manifest["layers"]):
            follow(descriptor)
    assert {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").iterdir()} == reached
    assert names_in(root) == ["team/addresses:1", "team/addresses:2", "team/addresses:3"]


def test_the_same_content_under_two_names(registry: Registry, base: BaseModelSpec, adapter: Make, root: Path) -> None:
    for owner in ("one", "two"):
        publish(registry, base, AdapterName(owner, "adapter"), adapter(0))
    assert names_in(root) == ["one/adapter:1", "two/adapter:1"]
    assert len({entry["digest"] for entry in index_of(root)["manifests"]}) == 1


def test_deleted_versions_leave_and_come_back(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    publish(registry, base, name, adapter(0))
    publish(registry, base, name, adapter(1))
    registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="old")
    registry.states.move(name, 2, VersionState.YANKED, actor="ann", reason="slow")
    registry.layout.refresh()
    assert names_in(root) == ["team/addresses:2"]
    registry.states.undelete(name, 1, actor="ann", reason="not so old")
    registry.layout.refresh()
    assert names_in(root) == ["team/addresses:1", "team/addresses:2"]


def test_the_file_is_canonical(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    publish(registry, base, name, adapter(0))
    data = (root / "index.json").read_bytes()
    assert data == canonical_json(json.loads(data))


# -- how often -----------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> tuple[Index, Path, Callable[[int], None]]:
    """Tables with versions in them and nothing else, and a way to add more."""
    (tmp_path / "blobs").mkdir()
    index = Index(SqliteDialect(tmp_path / "registry.db"))
    index.migrate()
    with index.write() as connection:
        connection.execute(sa.insert(schema.namespace).values(id=1, name="team", created_at_s=0))
        row = {"id": 1, "namespace_id": 1, "name": "a", "next_version": 1, "created_at_s": 0, "updated_at_s": 0}
        connection.execute(sa.insert(schema.adapter).values(**row))
        texts = (
            "name",
            "config_digest",
            "weights_digest",
            "tokenizer_digest",
            "chat_template_digest",
            "architecture",
        )
        base = dict.fromkeys(texts, "x") | {"digest": "base", "vocab_size": 1, "modules": {}, "registered_at_s": 0}
        connection.execute(sa.insert(schema.base_model).values(**base))

    def add(number: int) -> None:
        digest = sha256_digest(str(number).encode())
        row = {"adapter_id": 1, "version": number, "manifest_digest": digest, "base_digest": "base", "shape": {}}
        row |= {"lineage": {}, "publisher": "x", "note": "", "warnings": [], "created_at_s": 0}
        with index.write() as connection:
            blob = {"digest": digest, "size_bytes": 1, "state": "PRESENT", "created_at_s": 0}
            connection.execute(sa.insert(schema.blob).values(**blob))
            connection.execute(sa.insert(schema.version).values(**row))
            index.announce(connection, Change(ChangeKind.VERSION_CREATED, "x", "team", "a"))

    return index, tmp_path, add


def test_the_work_per_version_does_not_grow(
    many: tuple[Index, Path, Callable[[int], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in descriptors written, not in time; and the file is never more than a sixteenth behind."""
    index, directory, add = many
    written = 0
    descriptors = layout_module._descriptors

    def counted(connection: sa.Connection) -> list[str]:
        nonlocal written
        found = list(descriptors(connection))
        written += len(found)
        return found

    monkeypatch.setattr(layout_module, "_descriptors", counted)
    layout = Layout(index, directory)
    layout.ensure()
    with closing(index):
        for number in range(1, 201):
            add(number)
            # Each publish may come from another process, which remembers nothing.
            Layout(index, directory).changed()
            listed = len(names_in(directory))
            assert number - listed <= number / 16
            assert written <= 20 * number
        layout.refresh()
    assert len(names_in(directory)) == 200


def test_another_writer_is_not_waited_for(many: tuple[Index, Path, Callable[[int], None]]) -> None:
    index, directory, add = many
    layout = Layout(index, directory)
    layout.ensure()
    fd = os.open(directory / "blobs", os.O_RDONLY)
    with closing(index):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            add(1)
            layout.changed()
            assert names_in(directory) == []
        finally:
            os.close(fd)
        layout.changed()
        assert names_in(directory) == ["team/a:1"]


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"annotations":{}}', None])
def test_whatever_is_there_is_replaced(
    damage: bytes | None, registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    if damage is None:
        (root / "index.json").unlink()
    else:
        (root / "index.json").write_bytes(damage)
    publish(registry, base, name, adapter(0))
    assert names_in(root) == ["team/addresses:1"]


def test_an_index_that_cannot_be_written_fails_no_publish(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise StorageFull("no space is left")

    monkeypatch.setattr(layout_module, "write_durably", refuse)
    assert publish(registry, base, name, adapter(0)).version == 1
    with pytest.raises(StorageFull):
        registry.layout.refresh()
    monkeypatch.undo()
    publish(registry, base, name, adapter(1))
    assert names_in(root) == ["team/addresses:1", "team/addresses:2"]


def test_a_registry_from_before_gets_its_index_when_it_is_opened(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, tmp_path: Path
) -> None:
    publish(registry, base, name, adapter(0))
    session = begin(registry, base, name, adapter(1), key="unfinished")
    send_all(registry, session, adapter(1))
    registry.close()
    older = Path(shutil.copytree(root, tmp_path / "older"))
    (older / "index.json").unlink()
    (older / "oci-layout").unlink()
    Registry.open(older).close()
    assert names_in(older) == ["team/addresses:1"]
    assert (older / "oci-layout").read_bytes() == (root / "oci-layout").read_bytes()


def test_versions_in_a_bucket_have_no_layout(tmp_path: Path) -> None:
    index = Index(SqliteDialect(tmp_path / "registry.db"))
    index.migrate()
    with closing(index):
        layout = Layout(index, None)
        layout.ensure()
        layout.changed()
        layout.refresh()
    assert not (tmp_path / "index.json").exists()


def test_a_purged_version_is_not_listed_when_its_bytes_go(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, clock: ManualClock
) -> None:
    publish(registry, base, name, adapter(0))
    publish(registry, base, name, adapter(1))
    registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="old")
    assert len(names_in(root)) == 2
    clock.now_s += 400 * 86_400
    registry.collector.collect(dry_run=True, actor="gc")
    assert len(names_in(root)) == 2
    registry.collector.collect(dry_run=False, actor="gc")
    assert names_in(root) == ["team/addresses:2"]


def test_the_page_names_all_that_is_on_disk(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    version = publish(registry, base, name, adapter(0))
    registry.reserve.fill()
    registry.collector.collect(dry_run=False, actor="gc")
    spoiled = root / "blobs" / "sha256" / version.files[0].digest.removeprefix("sha256:")
    spoiled.chmod(0o644)
    spoiled.write_bytes(b"spoiled")
    registry.scrubber.scrub()
    page = (Path(__file__).parents[3] / "docs" / "registry.md").read_text()
    section = page[page.index("## On disk") :].partition("```")[2].partition("```")[0]
    named = set(re.findall(r"(?<=  )[a-z][\w.-]*", "\n".join(line[:32] for line in section.splitlines())))
    found = {path.name.removesuffix("-wal").removesuffix("-shm") for path in root.iterdir()}
    assert found == named - {"reading"}
