"""The demo tokenizer gives back exactly what it was given, and agrees with its plain-Python twin."""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerFast

from switchyard.trainer.demo import addresses, alphabet, drills, edits, tokenizer
from switchyard.trainer.demo.rows import Split

TEXTS = (
    "",
    " two  spaces , before . punctuation ' s\n\nand a tail ",
    "臺北市中正區重慶南路一段122號",
    "bytes: é 嗨 😀 \t \x00 \u200b",
    "<s> is text of four characters here, not a token",
)


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerFast:
    return tokenizer.build(512)


@pytest.mark.parametrize("text", TEXTS[:4])
def test_decode_returns_the_text(built: PreTrainedTokenizerFast, text: str) -> None:
    ids = built(text)["input_ids"]
    assert built.decode(ids) == text
    assert ids == tokenizer.encode(text)


def test_specials_are_where_the_config_says(built: PreTrainedTokenizerFast) -> None:
    assert (built.pad_token_id, built.bos_token_id, built.eos_token_id, built.unk_token_id) == (0, 1, 2, 3)
    assert built.decode([1, *tokenizer.encode("好"), 2], skip_special_tokens=True) == "好"


def test_vocabulary_fits_the_kernels_and_covers_the_tasks() -> None:
    assert len(tokenizer.VOCABULARY) % 32 == 0
    assert len(set(alphabet.CHARACTERS)) == len(alphabet.CHARACTERS)
    shown = "".join(
        row.prompt + row.completion
        for task in (addresses.TASK, edits.TASK)
        for row in task.draw(Split.TRAIN, 1, 2000)
    )
    assert set(shown) <= set(alphabet.CHARACTERS)


def test_drills_show_neither_keys_nor_prompts_of_the_tasks() -> None:
    rng = random.Random(1)  # noqa: S311 - synthetic data
    for _ in range(3000):
        drill = drills.draw(rng)
        text = drill.prompt + drill.answer
        for forbidden in ('"city"', '"town"', '"road"', "地址:", "指令:", "輸入:", "輸出:"):
            assert forbidden not in text
