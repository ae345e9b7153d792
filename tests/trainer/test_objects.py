"""URLs of objects, and copies of them that keep their places."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_store import BUCKET, Fault, object_store

from switchyard.trainer.errors import ObjectsRefused, ObjectsUnavailable
from switchyard.trainer.objects import ObjectFolder, ObjectUrl, fetch, is_object_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket/"),
        ("gs://bucket//a/./b/", "gs://bucket/a/b"),
        ("az://container/a?b#c", "az://container/a?b#c"),
        ("file:///a b/ü", "file:///a b/ü"),
    ],
)
def test_a_url_is_a_bucket_and_a_key(text: str, shown: str) -> None:
    assert is_object_url(text)
    assert str(ObjectUrl.parse(text)) == shown


@pytest.mark.parametrize("text", ["a/b", "ftp://host/a", "s3:///a", "file://host/a", "s3://key:secret@bucket/a", ""])
def test_what_is_no_url_of_an_object_is_refused(text: str) -> None:
    with pytest.raises(ObjectsRefused, match="is no URL of an object; expected s3://"):
        ObjectUrl.parse(text)


def test_names_are_relative_as_those_of_files() -> None:
    url = ObjectUrl.parse("s3://bucket/jobs/words/recipe.yaml")
    assert str(url.folder.joined("../data/train.jsonl")) == "s3://bucket/jobs/data/train.jsonl"
    assert url.below(Path("/scratch")) == Path("/scratch/s3-bucket/jobs/words/recipe.yaml")
    with pytest.raises(ObjectsRefused, match="out of its bucket"):
        url.joined("../../../../x")


def test_objects_and_folders_come_to_their_places(tmp_path: Path) -> None:
    (tmp_path / "store" / "base").mkdir(parents=True)
    (tmp_path / "store" / "base" / "config.json").write_text("{}")
    (tmp_path / "store" / "rows.jsonl").write_text("1")
    url = ObjectUrl.parse(f"file://{tmp_path}/store")
    assert fetch(url.joined("rows.jsonl"), tmp_path / "here").read_text() == "1"
    assert (fetch(url.joined("base"), tmp_path / "here") / "config.json").read_text() == "{}"
    with pytest.raises(ObjectsRefused, match=r"there is no object file://.*/none, and none in a folder"):
        fetch(url.joined("none"), tmp_path / "here")


def test_an_object_is_replaced_read_and_removed(tmp_path: Path) -> None:
    folder = ObjectFolder(ObjectUrl.parse(f"file://{tmp_path}/store"))
    assert (folder.read("a"), folder.has("a"), folder.names()) == (None, False, [])
    folder.put("a/b", b"1")
    folder.put("a/b", b"2")
    assert (folder.read("a/b"), folder.names(), folder.names("a")) == (b"2", ["a/b"], ["a/b"])
    folder.remove("a/b")
    folder.remove("a/b")
    assert folder.names() == []


def test_a_store_that_does_not_answer_is_told_from_one_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.registry.storage.bucket._RETRIES", 0)
    with object_store() as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        folder = ObjectFolder(ObjectUrl.parse(f"s3://{BUCKET}/words"))
        folder.put("a", b"1")
        service.fail(Fault.REFUSED, "GET")
        with pytest.raises(ObjectsUnavailable, match="does not answer"):
            folder.read("a")
        service.fail(Fault.DENIED, "PUT")
        with pytest.raises(ObjectsRefused, match="the store refuses"):
            folder.put("a", b"2")
        assert folder.read("a") == b"1"
