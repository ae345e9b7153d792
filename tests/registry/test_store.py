"""The rest of the registry's surface: base models, lists, pulls, and damage that is found and healed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import ManualClock, write_base

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import (
    AdapterNotFound,
    ArgumentInvalid,
    BaseNotFound,
    BlobCorrupt,
    BlobNotFound,
    DestinationExists,
    RefSyntax,
    StorageFailed,
)
from switchyard.registry.index.database import Index
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.rebuild import rebuild_index
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
FIRST = AdapterRef.parse("team/addresses:1")


@pytest.fixture
def filled(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    registry.publish(name, adapter(0), base_digest=base.digest, publisher="ann")
    return registry


def test_bases_are_registered_once(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    assert registry.register_base(replace(base, name="another name")) == base
    other = registry.register_base(describe_base(write_base(tmp_path / "b", seed=1)))
    assert registry.base_models() == [base, other]
    assert registry.base_model(other.digest) == other
    with pytest.raises(BaseNotFound):
        registry.base_model("sha256:" + "0" * 64)


def test_a_base_from_before_its_embedding_was_recorded_is_completed(
    root: Path, clock: ManualClock, base: BaseModelSpec, tmp_path: Path
) -> None:
    with Registry.open(root, clock=clock) as registry:
        assert registry.register_base(replace(base, tensors={})).tensors == {}
        assert registry.register_base(replace(base, name="another name")) == base
        assert registry.register_base(replace(base, tensors={})) == base
    rebuild_index(root, into=tmp_path / "rebuilt")
    with Registry.open(tmp_path / "rebuilt") as rebuilt:
        assert rebuilt.base_models() == [base]


def test_everything_is_there_after_reopening(filled: Registry, root: Path, base: BaseModelSpec) -> None:
    version = filled.get_version(FIRST)
    filled.close()
    with Registry.open(root) as reopened:
        assert reopened.get_version(FIRST) == version
        assert dict(reopened.base_model(base.digest).modules) == dict(base.modules)


def test_lists_are_complete_and_in_order(registry: Registry, base: BaseModelSpec, adapter: Make) -> None:
    names = [AdapterName(*text.split("/")) for text in ("a/x", "a/y", "b/a", "b.c/a", "b-c/z")]
    for number, name in enumerate(names):
        registry.publish(name, adapter(number), base_digest=base.digest, publisher="ann", set_alias="prod")
    found, token = [], ""
    for _ in range(10):
        page, token = registry.list_adapters(limit=2, page_token=token)
        assert len(page) <= 2
        found += [AdapterName(summary.namespace, summary.adapter) for summary in page]
        if not token:
            break
    assert found == sorted(names)
    (one, two), token = registry.list_adapters("a")
    assert (one.adapter, two.adapter, token) == ("x", "y", "")
    assert [(alias.name, alias.version, alias.generation) for alias in one.aliases] == [("prod", 1, 1)]
    assert (one.latest_version, one.base_digest) == (1, base.digest)
    assert registry.list_adapters("nobody") == ([], "")


def test_versions_come_newest_first_with_their_aliases(
    filled: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    for seed in range(1, 5):
        filled.publish(name, adapter(seed), base_digest=base.digest, publisher="ann")
    filled.set_alias(name, "prod", 4, actor="ann")
    filled.set_alias(name, "canary", 4, actor="ann")
    first, token = filled.list_versions(name, limit=2)
    second, token = filled.list_versions(name, limit=2, page_token=token)
    third, end = filled.list_versions(name, limit=2, page_token=token)
    assert [version.version for version in first + second + third] == [5, 4, 3, 2, 1]
    assert [version.aliases for version in first] == [(), ("canary", "prod")]
    assert end == ""


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_limits_of_a_page(limit: int, filled: Registry, name: AdapterName) -> None:
    with pytest.raises(ArgumentInvalid):
        filled.list_versions(name, limit=limit)
    with pytest.raises(ArgumentInvalid):
        filled.list_adapters(limit=limit)


def test_tokens_of_a_page(filled: Registry, name: AdapterName) -> None:
    for token in ("x", "-1", "1" * 30, "١"):
        with pytest.raises(ArgumentInvalid):
            filled.list_versions(name, page_token=token)
    with pytest.raises(RefSyntax):
        filled.list_adapters(page_token="../x")
    with pytest.raises(AdapterNotFound):
        filled.list_versions(AdapterName("team", "nothing"))


# -- bytes ---------------------------------------------------------------


def test_pull_gives_the_files(filled: Registry, adapter: Make, tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "pulled"
    version = filled.pull(FIRST, dest)
    assert version == filled.get_version(FIRST)
    assert {path.name: path.read_bytes() for path in dest.iterdir()} == {
        path.name: path.read_bytes() for path in adapter(0).iterdir()
    }
    assert [path.name for path in dest.parent.iterdir()] == ["pulled"]


@pytest.mark.parametrize("kind", ["file", "full directory", "link"])
def test_pull_never_writes_into_what_is_there(kind: str, filled: Registry, tmp_path: Path) -> None:
    dest = tmp_path / "pulled"
    match kind:
        case "file":
            dest.write_text("precious")
        case "full directory":
            dest.mkdir()
            (dest / "precious").write_text("")
        case "link":
            dest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationExists):
        filled.pull(FIRST, dest)
    dest = tmp_path / "empty"
    dest.mkdir()
    filled.pull(FIRST, dest)
    assert len(list(dest.iterdir())) == 3


def test_only_blobs_of_versions_are_handed_out(filled: Registry) -> None:
    for digest in ("", "../registry.db", "sha256:" + "0" * 64):
        with pytest.raises(BlobNotFound):
            filled.open_blob(digest)
    digest = filled.get_version(FIRST).files[0].digest
    assert b"".join(filled.open_blob(digest, 3)) == filled.read_blob(digest)[3:]
    with pytest.raises(ArgumentInvalid):
        filled.open_blob(digest, -1)


def test_damage_is_found_remembered_and_healed(
    filled: Registry, root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make, tmp_path: Path
) -> None:
    weights = filled.get_version(FIRST).file("adapter_model.safetensors")
    path = root / "blobs" / "sha256" / weights.digest[7:]
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BlobCorrupt):
        filled.read_blob(weights.digest)
    with pytest.raises(BlobCorrupt):
        filled.pull(FIRST, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    again = filled.publish(name, adapter(0), base_digest=base.digest, publisher="ann")
    assert again.version == filled.get_version(FIRST)
    assert filled.read_blob(weights.digest) == content


def raise_if_any(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [None, ValueError("made of wrong bytes"), BlobCorrupt("of another blob")])
def test_what_was_made_of_wrong_bytes_ends_in_the_damage(
    filled: Registry, root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make, error: Exception | None
) -> None:
    weights = filled.get_version(FIRST).file("adapter_model.safetensors")
    path = root / "blobs" / "sha256" / weights.digest[7:]
    content = path.read_bytes()
    buffer = memoryview(bytearray(len(content)))
    for spoiled in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], content + b"x"):
        path.chmod(0o644)
        path.write_bytes(spoiled)
        with pytest.raises(BlobCorrupt, match=weights.digest), filled.read_ahead(weights.digest, buffer):
            raise_if_any(error)
    # It was remembered: the same bytes are taken once more.
    filled.publish(name, adapter(0), base_digest=base.digest, publisher="ann")
    with filled.read_ahead(weights.digest, buffer):
        assert buffer == content


def test_an_error_of_its_own_leaves_a_sound_blob_sound(filled: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[str] = []
    monkeypatch.setattr(Index, "mark_corrupt", lambda _index, digest, _key: marked.append(digest))
    weights = filled.get_version(FIRST).file("adapter_model.safetensors")
    with (
        pytest.raises(BlobCorrupt, match="another"),
        filled.read_ahead(weights.digest, memoryview(bytearray(weights.size_bytes))),
    ):
        raise BlobCorrupt("of another blob")
    assert marked == []


@pytest.mark.parametrize("position", [10, -1], ids=["header", "values"])
def test_damage_that_nobody_has_read_yet_does_not_refuse_an_honest_publisher(
    position: int, filled: Registry, root: Path, base: BaseModelSpec, adapter: Make
) -> None:
    weights = filled.get_version(FIRST).file("adapter_model.safetensors")
    path = root / "blobs" / "sha256" / weights.digest[7:]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    other = AdapterName("team", "other")
    with pytest.raises(BlobCorrupt, match="publish again"):
        filled.publish(other, adapter(0), base_digest=base.digest, publisher="ann", idempotency_key="k")
    done = filled.publish(other, adapter(0), base_digest=base.digest, publisher="ann", idempotency_key="k")
    assert done.version is not None
    assert filled.pull(FIRST, root.parent / "pulled").version == 1


def test_a_blob_that_vanished_is_asked_for_again(
    filled: Registry, root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    weights = filled.get_version(FIRST).file("adapter_model.safetensors")
    (root / "blobs" / "sha256" / weights.digest[7:]).unlink()
    filled.publish(name, adapter(0), base_digest=base.digest, publisher="ann")
    assert len(filled.read_blob(weights.digest)) == weights.size_bytes


def test_files_of_unknown_path(filled: Registry) -> None:
    with pytest.raises(KeyError):
        filled.get_version(FIRST).file("tokenizer.json")


def test_two_processes_see_each_other(
    filled: Registry, root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    """Two handles stand for two processes: they share nothing but the directory."""
    with Registry.open(root, clock=clock, validate=validate_files) as other:
        other.publish(name, adapter(1), base_digest=base.digest, publisher="bob", set_alias="prod")
    assert filled.resolve(AdapterRef.parse("team/addresses@prod")).version.version == 2


def test_a_pull_that_fails_at_the_end_leaves_nothing(
    filled: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are written under another name; the directory appears by one rename or not at all."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageFailed):
        filled.pull(FIRST, tmp_path / "out" / "pulled")
    monkeypatch.undo()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_relative_root_stays_where_it_was(
    template: Path,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(template, "here")
    (tmp_path / "there").mkdir()
    with Registry.open(Path("here")) as registry:
        monkeypatch.chdir(tmp_path / "there")
        assert registry.publish(name, adapter(0), base_digest=base.digest, publisher="ann").version is not None
        registry.pull(FIRST, tmp_path / "pulled")
    assert list((tmp_path / "there").iterdir()) == []
