"""Identity is stable: the same value has the same bytes and the same digest everywhere."""

from __future__ import annotations

import hashlib

import pytest

from switchyard.registry.digest import DigestWriter, canonical_json, hex_of, is_digest, sha256_digest


def test_known_digest() -> None:
    assert sha256_digest(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_canonical_form_is_a_stored_contract() -> None:
    value = {"b": [1, 2.5, None, True], "a": "臺北\n", "A": {}}
    assert canonical_json(value) == '{"A":{},"a":"臺北\\n","b":[1,2.5,null,true]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": -float("inf")}])
def test_what_is_not_json_has_no_canonical_form(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_writer_equals_one_call() -> None:
    writer = DigestWriter()
    for piece in (b"a", b"", b"bc"):
        writer.write(piece)
    assert (writer.digest, writer.size_bytes) == ("sha256:" + hashlib.sha256(b"abc").hexdigest(), 3)


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 64 + "\n", "md5:" + "a" * 64, 7],
)
def test_only_digests_become_file_names(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(ValueError, match="not a digest"):
        hex_of(text)
