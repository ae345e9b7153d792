"""Packing keeps every token that it says it keeps, and a packed run is the run that was explained."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from switchyard.trainer.base_model import load_tokenizer, takes_positions
from switchyard.trainer.errors import RecipeInvalid
from switchyard.trainer.explain import explain
from switchyard.trainer.packing import Packing, chunks, packing_report
from switchyard.trainer.row_formats import Row
from switchyard.trainer.run import train
from switchyard.trainer.sequences import as_dataset, pack
from switchyard.trainer.token_rows import NOT_TRAINED, TokenRow, encode
from tests.support.tiny_base import make_tiny_llama
from tests.trainer.conftest import MakeRecipe, rows, write_rows

LONG = ["The yard has nine tracks. " * 6, "Trains leave at six.", "A signal is green. " * 9, "End."]


def row(*ids: int) -> TokenRow:
    return TokenRow(ids, (NOT_TRAINED, *ids[1:]))


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=30).map(lambda ids: row(*ids)), max_size=12),
    st.integers(1, 12),
)
def test_chunks_are_all_tokens_in_their_order(given_rows: list[TokenRow], length: int) -> None:
    made = list(chunks(given_rows, length))
    assert all(len(one.ids) == length for one in made[:-1])
    for part in ("ids", "labels"):
        assert list(chain(*(getattr(one, part) for one in made))) == list(
            chain(*(getattr(one, part) for one in given_rows))
        )
    report = packing_report(given_rows, made, Packing.CHUNKS, length)
    assert (report.lost_tokens, report.cut, report.sequences) == (0, 0, len(made))


def test_a_chunk_goes_over_rows_and_the_last_is_as_short_as_it_is() -> None:
    made = chunks([row(1, 2, 3, 4, 5), row(6), row(7, 8)], 3)
    assert [one.ids for one in made] == [(1, 2, 3), (4, 5, 6), (7, 8)]


@pytest.mark.parametrize("packing", [one for one in Packing if one is not Packing.NONE])
def test_what_each_way_of_packing_keeps(packing: Packing) -> None:
    given_rows = [row(*range(10)), row(*range(20, 23)), row(*range(30, 34))]
    packed = pack(given_rows, packing, 8)
    report = packing_report(given_rows, packed, packing, 8)
    assert report.lost_tokens == (2 if packing is Packing.BFD else 0)
    assert report.cut == (1 if packing is Packing.BFD else 0)
    assert report.tokens + report.lost_tokens == 17
    assert max(len(one.ids) for one in packed) <= 8


def write_texts(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.mark.parametrize("packing", [None, "none", "bfd", "bfd_split", "wrapped"])
def test_what_is_explained_is_what_happens_to_text(
    make_recipe: MakeRecipe, tmp_path: Path, packing: str | None
) -> None:
    write_texts(tmp_path / "train.jsonl", LONG)
    write_texts(tmp_path / "dev.jsonl", [LONG[0]])
    keys: dict[str, Any] = {"max_steps": None, "epochs": 1, "batch_size": 2, "max_length": 48, "packing": packing}
    recipe = make_recipe(data={"format": "text", "test": None}, train={**keys, "eval_steps": 2})
    said = explain(recipe)
    result = train(recipe, out_dir=tmp_path / "out", threads=1)

    assert said.rows == result.figures.rows
    assert said.steps == result.figures.steps
    assert said.warnings == result.warnings
    dev = result.figures.score("dev")
    assert dev is not None
    chunk_count = -(-(len(LONG[0]) + 2) // 48)
    assert dev.rows == (1 if packing == "none" else chunk_count)
    lost = {"none": 0, "bfd": sum(max(0, len(text) + 2 - 48) for text in LONG)}
    assert said.rows.lost_tokens == lost.get(str(packing), 0)


def test_pairs_can_be_packed_and_are_measured_one_by_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"packing": "bfd", "max_steps": 3, "eval_steps": 3})
    said, result = explain(recipe), train(recipe, out_dir=tmp_path / "out", threads=1)
    alone = explain(make_recipe())
    assert said.rows == result.figures.rows
    assert said.rows.sequences < alone.rows.rows
    assert said.rows.trained_tokens == alone.rows.trained_tokens
    dev = result.figures.score("dev")
    assert dev is not None
    assert dev.rows == 16


def test_rows_of_a_sequence_do_not_see_each_other_where_that_is_promised(tiny_base: Path) -> None:
    """TRL's collator and the base together against each row alone."""
    tokenizer = load_tokenizer(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    encoded = [encode(Row("", text), tokenizer) for text in LONG[1::2]]
    packed = pack_with_lengths(encoded, 64)
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(packed)
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        alone = [model(input_ids=torch.tensor([one.ids])).logits[0] for one in encoded]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def pack_with_lengths(encoded: list[TokenRow], length: int) -> list[dict[str, Any]]:
    from trl import pack_dataset

    return list(pack_dataset(as_dataset(encoded), length, "bfd"))


def test_a_base_without_positions_is_refused_only_where_borders_are_promised(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    base = make_tiny_llama(tmp_path / "bloom", architecture="bloom")
    write_rows(tmp_path / "train.jsonl", rows(0, 8))
    for packing in ("bfd", "bfd_split"):
        recipe = make_recipe(train={"packing": packing}).with_base(base)
        with pytest.raises(RecipeInvalid, match="would see each other"):
            explain(recipe)
        with pytest.raises(RecipeInvalid, match="would see each other"):
            train(recipe, out_dir=tmp_path / "out")
    assert explain(make_recipe(train={"packing": "wrapped"}).with_base(base)).rows.lost_tokens == 0


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3", "gpt2", "bloom"])
def test_who_takes_positions(architecture: str, tmp_path: Path) -> None:
    assert takes_positions(make_tiny_llama(tmp_path, architecture=architecture)) is (architecture != "bloom")


def test_the_digest_says_how_rows_were_packed(make_recipe: MakeRecipe) -> None:
    plain, text = make_recipe(), make_recipe(data={"format": "text"})
    assert make_recipe(train={"packing": "none"}).digest == plain.digest
    assert text.digest != plain.digest
    assert make_recipe(data={"format": "text"}, train={"packing": "chunks"}).digest == text.digest
