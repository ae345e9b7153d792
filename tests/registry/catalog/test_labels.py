"""Tags, descriptions and owners: what may be written, and that every answer shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.labels import MOST_TAGS
from switchyard.registry.errors import AdapterNotFound, ArgumentInvalid, VersionNotFound
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
FIRST = AdapterRef.parse("team/addresses:1")


@pytest.fixture
def filled(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    registry.publish(name, adapter(0), base_digest=base.digest, publisher="ann")
    return registry


@on_both
def test_tags_of_a_version(filled: Registry, name: AdapterName) -> None:
    assert filled.labels.tag(name, 1, {"task": "ner", "lang": "de"}, actor="ann") == {"lang": "de", "task": "ner"}
    assert filled.labels.tag(name, 1, {"task": "qa"}, ["lang", "never"], actor="ann") == {"task": "qa"}
    assert filled.get_version(FIRST).tags == {"task": "qa"}
    assert filled.list_versions(name)[0][0].tags == {"task": "qa"}
    event = filled.feed.events(0)[-1]
    assert (event.kind, event.payload) == ("version.tags", {"version": 1, "tags": {"task": "qa"}})


def test_tags_of_an_adapter(filled: Registry, name: AdapterName) -> None:
    filled.labels.tag(name, None, {"team": "search"}, actor="ann")
    assert filled.get_adapter(name).tags == {"team": "search"}
    assert filled.list_adapters()[0][0].tags == {"team": "search"}
    assert filled.get_version(FIRST).tags == {}


def test_every_bad_tag_is_told(filled: Registry, name: AdapterName) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        filled.labels.tag(
            name, 1, {"Bad Key": "x", "long": "x" * 257, "both": "", "esc": "\x1b"}, ["both"], actor="a"
        )
    for part in ("'Bad Key'", "'long' has 257", "'both' is both", "'esc' has 1"):
        assert part in str(caught.value)
    assert filled.get_version(FIRST).tags == {}


def test_tags_are_limited(filled: Registry, name: AdapterName) -> None:
    many = {f"k{number}": "v" for number in range(MOST_TAGS)}
    filled.labels.tag(name, 1, many, actor="ann")
    with pytest.raises(ArgumentInvalid, match="would have 65 tags"):
        filled.labels.tag(name, 1, {"more": ""}, actor="ann")
    filled.labels.tag(name, 1, {"more": ""}, ["k0"], actor="ann")
    assert len(filled.get_version(FIRST).tags) == MOST_TAGS
    with pytest.raises(ArgumentInvalid, match="65 tags are given"):
        filled.labels.tag(name, 1, many | {"more": ""}, actor="ann")


def test_unknown_names(filled: Registry, name: AdapterName) -> None:
    with pytest.raises(VersionNotFound):
        filled.labels.tag(name, 2, {"a": "b"}, actor="ann")
    with pytest.raises(AdapterNotFound):
        filled.labels.tag(AdapterName("team", "nothing"), None, {"a": "b"}, actor="ann")
    with pytest.raises(AdapterNotFound):
        filled.labels.describe(AdapterName("team", "nothing"), owner="x", actor="ann")


def test_description_and_owner(filled: Registry, name: AdapterName) -> None:
    filled.labels.describe(name, description="reads addresses\nin Chinese", actor="ann")
    filled.labels.describe(name, owner="ann@team", actor="ann")
    summary = filled.get_adapter(name)
    assert (summary.description, summary.owner) == ("reads addresses\nin Chinese", "ann@team")
    filled.labels.describe(name, description="", actor="ann")
    assert filled.get_adapter(name).description == ""
    for bad in ({"owner": "two\nlines"}, {"owner": "x" * 257}, {"description": "\x1b"}, {}):
        with pytest.raises(ArgumentInvalid):
            filled.labels.describe(name, actor="ann", **bad)
    assert filled.get_adapter(name).owner == "ann@team"
