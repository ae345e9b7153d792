"""The strict parser takes what the standard one takes, less what two readers could read differently."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.strict_json import DuplicateKey, JsonRefused, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans())
def test_honest_documents_pass(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text.encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b'{"a": 1} x',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'"\\ud800"',
        b"[" * 200_000,
        b"9" * 5_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(JsonRefused) as caught:
        parse_json(data)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("data", [b'{"a": 1, "a": 1}', b'[{"x": {"b": 1, "b": 2}}]', b'{"a": 1, "\\u0061": 2}'])
def test_duplicate_keys_are_refused_at_any_depth(data: bytes) -> None:
    with pytest.raises(DuplicateKey, match="twice"):
        parse_json(data)
