"""Text comes out whole: no broken characters, nothing of a stop string."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from switchyard.server.engine.detokenize import Detokenizer


@dataclass
class ByteDecoder:
    """Token n is the byte n, so a character may take up to four tokens."""

    eos_token_ids: frozenset[int] = frozenset()

    def decode(self, token_ids: list[int]) -> str:
        return bytes(token_ids).decode("utf-8", errors="replace")


def run(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], str, str]:
    """Pushes the bytes of `text`; returns the pieces shown, their whole, and the matched stop string."""
    detokenizer = Detokenizer(ByteDecoder(), stop)
    pieces = []
    for byte in text.encode():
        pieces.append(detokenizer.push(byte))
        if detokenizer.matched_stop:
            break
    pieces.append(detokenizer.finish())
    return pieces, "".join(pieces), detokenizer.matched_stop


def expected(text: str, stop: tuple[str, ...]) -> str:
    """The oracle: cut the finished text at the earliest stop string."""
    cuts = [text.find(s) for s in stop if s in text]
    return text[: min(cuts)] if cuts else text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="�")))
def test_text_round_trips(text: str) -> None:
    pieces, whole, _ = run(text)
    assert whole == text
    assert not any("�" in piece for piece in pieces)


@given(
    st.text(alphabet="ab臺", max_size=30),
    st.lists(st.text(alphabet="ab臺", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_stop_strings_cut_where_the_oracle_cuts(text: str, stop: tuple[str, ...]) -> None:
    _, whole, matched = run(text, stop)
    # Text grows a character at a time, so the stop that completes first wins; it can only
    # end at the same place or earlier than the first occurrence in the finished text.
    cut = expected(text, stop)
    assert bool(matched) == (cut != text)
    assert whole == text[: len(whole)]
    assert not any(s in whole for s in stop)
    if matched:
        assert text.startswith(whole + matched)


def test_the_earliest_of_two_stops_in_one_piece_wins() -> None:
    detokenizer = Detokenizer(ByteDecoder(), ("yz", "x"))
    assert detokenizer._release("abxyz") == "ab"
    assert detokenizer.matched_stop == "x"


def test_bytes_that_never_become_a_character_are_shown_as_replaced() -> None:
    detokenizer = Detokenizer(ByteDecoder())
    shown = "".join(detokenizer.push(0x80) for _ in range(6)) + detokenizer.finish()
    assert shown == "�" * 6
