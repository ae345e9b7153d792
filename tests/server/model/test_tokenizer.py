"""A tokenizer may know tokens for which the model has no embedding: they are neither taken nor waited for."""

from __future__ import annotations

import pytest
from tiny_base import VOCAB_SIZE, make_byte_tokenizer

from switchyard.server.model.tokenizer import BaseTokenizer


def test_ids_end_where_the_embedding_ends() -> None:
    known = make_byte_tokenizer()
    narrow = BaseTokenizer(known, frozenset({150, 250}), embedded=190)
    assert narrow.vocab_size == 190
    assert narrow.eos_token_ids == {2, 150}
    assert max(narrow.encode("\xff")) >= narrow.vocab_size, "admission has to refuse such text"


def test_a_padded_embedding_adds_no_tokens() -> None:
    known = make_byte_tokenizer()
    wide = BaseTokenizer(known, frozenset(), embedded=VOCAB_SIZE + 100)
    assert wide.vocab_size == len(known)


def test_the_text_of_a_token_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = make_byte_tokenizer()
    decoded: list[list[int]] = []
    original = known.decode

    def counting(ids: list[int], **options: bool) -> str:
        decoded.append(ids)
        text: str = original(ids, **options)
        return text

    monkeypatch.setattr(known, "decode", counting)
    tokenizer = BaseTokenizer(known, frozenset())
    texts = [tokenizer.text_of(token) for token in (70, 71, 70, 70, 71)]
    assert texts == [original([token]) for token in (70, 71, 70, 70, 71)]
    assert decoded == [[70], [71]]
