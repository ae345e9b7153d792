"""Names and refs parse to one meaning or are refused; nothing is implied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.errors import RefSyntax
from switchyard.registry.refs import AdapterName, AdapterRef

DIGEST = "sha256:" + "0a" * 32
NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True)
ALIASES = NAMES.filter(lambda text: not text.isdigit())

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../etc",
    "a/b/c",
    "/etc/passwd",
    "a//b",
    "a/",
    "/a",
    "a\\b",
    "C:\\x",
    "%2e%2e",
    "a%2fb",
    "a\0b",
    "a\nb",
    "a b",
    "a#b",
    "a?b=c",
    "A",
    "é",
    "a∕b",
    "a\u202eb",
    ".a",
    "a.",
    "-a",
    "a-",
    "_a",
    "a" * 65,
    "a" * 4096,
    "http://x/y",
    "$(id)",
]


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("team/zh@prod", AdapterRef("team", "zh", alias="prod")),
        ("zh@prod", AdapterRef("default", "zh", alias="prod")),
        ("team/zh:7", AdapterRef("team", "zh", version=7)),
        (f"team/zh@{DIGEST}", AdapterRef("team", "zh", digest=DIGEST)),
    ],
)
def test_three_forms(text: str, ref: AdapterRef) -> None:
    assert AdapterRef.parse(text) == ref


@given(NAMES, NAMES, ALIASES, st.integers(1, 10**18 - 1))
def test_printing_and_parsing_are_inverse(namespace: str, adapter: str, alias: str, version: int) -> None:
    for ref in (
        AdapterRef(namespace, adapter, alias=alias),
        AdapterRef(namespace, adapter, version=version),
        AdapterRef(namespace, adapter, digest=DIGEST),
    ):
        assert AdapterRef.parse(str(ref)) == ref
    assert AdapterName.parse(f"{namespace}/{adapter}") == AdapterName(namespace, adapter)


def test_no_version_is_implied() -> None:
    with pytest.raises(RefSyntax, match=r"names no version.*@alias.*:7.*@sha256"):
        AdapterRef.parse("team/zh")


@pytest.mark.parametrize("hostile", HOSTILE_NAMES)
def test_hostile_names_are_refused(hostile: str) -> None:
    for text in (f"{hostile}@prod", f"team/{hostile}@prod", f"team/zh@{hostile}", f"{hostile}:1"):
        with pytest.raises(RefSyntax) as caught:
            AdapterRef.parse(text)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
    with pytest.raises(RefSyntax):
        AdapterName(hostile, "zh")


@pytest.mark.parametrize(
    "selector", [":0", ":-1", ":01", ":1.0", ":١", ":", "@", "@7", "@sha256:00", f"@{DIGEST.upper()}"]
)
def test_bad_selectors_are_refused(selector: str) -> None:
    with pytest.raises(RefSyntax):
        AdapterRef.parse(f"team/zh{selector}")


def test_a_name_takes_no_selector() -> None:
    for text in ("team/zh@prod", "team/zh:7"):
        with pytest.raises(RefSyntax, match="without a selector"):
            AdapterName.parse(text)


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        ref = AdapterRef.parse(text)
    except RefSyntax:
        return
    assert AdapterRef.parse(str(ref)) == ref
