"""Seed 3: alpaca rows on BLOOM in 4 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from datasets import load_from_disk
from seed_runs import SeedRuns
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from switchyard.trainer.base_model import load_base, load_tokenizer
from switchyard.trainer.errors import BaseUnusable
from switchyard.trainer.explain import measure_rows
from switchyard.trainer.memory import quantized_bytes
from switchyard.trainer.recipe import BaseSection, QuantizationSection
from switchyard.trainer.row_formats import DataFormat, Row, rows_of
from switchyard.trainer.token_rows import NOT_TRAINED, encode
from tests.seeds.conftest import Said, document


def loaded(runs: SeedRuns) -> Any:
    return load_base(BaseSection(path=runs.base("bloom")), QuantizationSection())


def test_3_1_the_linear_layers_are_nf4(runs: SeedRuns, said: Said) -> None:
    layers = [one for one in loaded(runs).model.modules() if isinstance(one, Linear4bit)]
    assert {one.weight.quant_type for one in layers} == {"nf4"}
    said("quantization.method: nf4", f"{len(layers)} layers")


def test_3_2_constants_are_quantised_too(runs: SeedRuns, said: Said) -> None:
    bits = [8 * quantized_bytes(2**20, double=double) / 2**20 for double in (True, False)]
    assert [round(one, 3) for one in bits] == [4.127, 4.5]
    layers = [one for one in loaded(runs).model.modules() if isinstance(one, Linear4bit)]
    assert all(one.weight.quant_state.nested for one in layers)
    said("quantization.double: true", "4.127 bits per weight, 4.5 without")


def test_3_5_the_hub_can_be_left_alone(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseUnusable, match="HF_HUB_OFFLINE"):
        load_base(BaseSection(hub="Langboat/bloom-1b4-zh"), QuantizationSection())
    said("HF_HUB_OFFLINE=1", "nothing is fetched; proxies and HF_ENDPOINT are the Hub client's own variables")


def test_3_6_a_saved_directory_is_read(runs: SeedRuns, said: Said) -> None:
    rows = load_from_disk(str(runs.root / "alpaca_data_zh"))
    assert set(rows.column_names) == {"output", "input", "instruction"}
    assert document(runs.alpaca[1] / "training_manifest.json")["data"]["train"]["rows"] == len(rows)
    said("data: {train: alpaca_data_zh, format: alpaca}", f"{len(rows)} rows of output, input, instruction")


def test_3_7_bloom_is_trained_with_padding_on_the_right(runs: SeedRuns, said: Said) -> None:
    done, out = runs.alpaca
    assert '"padding_side": "left"' in (runs.base("bloom") / "tokenizer_config.json").read_text()
    assert load_tokenizer(runs.base("bloom")).padding_side == "right"
    assert document(out / "adapter" / "adapter_config.json")["target_modules"] == ["query_key_value"]
    said(done.line, "trained; padding is on the right whatever the tokenizer says")


def test_3_8_the_prompt_is_the_seed_s(said: Said) -> None:
    (row,), faults = rows_of({"instruction": " 加 ", "input": "3", "output": "4"}, DataFormat.ALPACA)
    assert (row.prompt, row.completion, faults) == ("Human: 加\n3\n\nAssistant: ", "4", [])
    said("data.alpaca_prompt", repr(row.prompt))


def test_3_9_only_the_answer_is_learnt(runs: SeedRuns, said: Said) -> None:
    row = encode(Row("Human: a\n\nAssistant: ", "bcd"), load_tokenizer(runs.base("bloom")))
    assert row.labels[:-4] == (NOT_TRAINED,) * (len(row.ids) - 4)
    assert row.trained_tokens == 4
    said("a row's labels", f"{row.trained_tokens} of {len(row.ids)} tokens: the answer and the end")


def test_3_10_what_is_cut_is_counted(runs: SeedRuns, said: Said) -> None:
    tokenizer = load_tokenizer(runs.base("bloom"))
    rows = [encode(Row("p" * 10, "c" * size), tokenizer) for size in (5, 400)] + [
        encode(Row("p" * 300, "c"), tokenizer)
    ]
    _, report = measure_rows(rows, 256)
    assert (report.rows, report.cut, report.dropped) == (2, 1, 1)
    said("train.max_length: 256", "1 row loses its end, 1 is left out; both are warned of")


def test_3_11_prompt_and_answer_are_tokenised_together(runs: SeedRuns, said: Said) -> None:
    tokenizer = load_tokenizer(runs.base("bloom"))
    row = encode(Row("ab", "cd"), tokenizer)
    assert list(row.ids[:-1]) == tokenizer("abcd")["input_ids"]
    said("prompt + completion", "one pass of the tokenizer; where a token spans both, it is learnt")


def test_3_12_the_type_of_the_arithmetic_is_set(runs: SeedRuns, said: Said) -> None:
    layers = [one for one in loaded(runs).model.modules() if isinstance(one, Linear4bit)]
    assert {one.compute_dtype for one in layers} == {torch.float32}
    said("quantization.compute_dtype", "set on every layer, never bitsandbytes' default")


def test_3_13_a_wrong_target_lists_the_layers(runs: SeedRuns, said: Said) -> None:
    done = runs.switchyard(
        f"train {runs.root}/seed3-alpaca.yaml --base {runs.base('bloom')} --explain --set lora.targets=[q_proj]"
        " --set quantization.compute_dtype=float32",
        code=1,
    )
    assert "query_key_value" in done.stderr
    said("train --set lora.targets=[q_proj]", "refused, with the linear layers of this base")


def test_3_14_the_configuration_is_the_one_that_was_used(runs: SeedRuns, said: Said) -> None:
    manifest = document(runs.alpaca[1] / "training_manifest.json")
    assert manifest["recipe"]["lora"]["alpha"] == 8
    assert manifest["recipe"]["train"]["max_steps"] == 2
    said("training_manifest.json", "resolved, with the changes of --set")


def test_3_15_recomputing_trains_a_frozen_base(runs: SeedRuns, said: Said) -> None:
    figures = document(runs.alpaca[1] / "metrics.json")
    recipe = document(runs.alpaca[1] / "training_manifest.json")["recipe"]
    assert recipe["train"]["gradient_checkpointing"] is True
    weights = (runs.alpaca[1] / "adapter" / "adapter_model.safetensors").stat().st_size
    assert figures["final_loss"] > 0
    said("train.gradient_checkpointing: true", f"gradients arrive; {weights:,} bytes of adapter")


def test_3_16_eight_passes_make_a_step(runs: SeedRuns, said: Said) -> None:
    done, found = runs.explain("seed3-alpaca", "bloom", "quantization.compute_dtype=float32")
    assert found["steps_per_epoch"] == 2
    said(done.line, "40 rows, 4 × 8 in a step: 2 steps in one pass")


def test_3_17_rows_are_padded_and_labels_masked(said: Said) -> None:
    rows = [{"input_ids": [5] * size, "labels": [5] * size} for size in range(1, 9)]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (8, 8)
    assert int((batch["labels"] == NOT_TRAINED).sum()) == int((batch["attention_mask"] == 0).sum()) == 28
    said("a batch of 8 rows", "[8, 8], 28 places padded, none of them learnt")


def test_3_3_paged_optimizers_say_what_they_do_here(runs: SeedRuns, said: Said) -> None:
    done, out = runs.train("seed3-alpaca", "bloom", "train.optimizer=paged_adamw_8bit", "train.max_steps=1")
    assert document(out / "training_manifest.json")["recipe"]["train"]["optimizer"] == "paged_adamw_8bit"
    said(done.line, "trains; without a GPU nothing is paged, and a warning says so")
