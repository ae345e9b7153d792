"""Seed 4: the first rows of a CSV on a small card."""

from __future__ import annotations

from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from peft import PeftModel
from seed_runs import SeedRuns
from transformers import AutoModelForCausalLM
from trl import SFTTrainer

from switchyard.trainer.base_model import load_base
from switchyard.trainer.recipe import BaseSection, QuantizationSection
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.sft import SftAdapterTrainer
from tests.seeds.conftest import Said, document

TOKENS = torch.tensor([[1, 50, 120, 7, 250, 33, 96, 4]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TOKENS).logits
    return found


def nf4(runs: SeedRuns) -> Any:
    return load_base(BaseSection(path=runs.base("mistral")), QuantizationSection()).model


def test_4_1_a_recipe_for_16_gb(runs: SeedRuns, said: Said) -> None:
    recipe = load_recipe(runs.root / "seed4-prompts.yaml")
    assert (recipe.quantization.method, recipe.quantization.compute_dtype) == ("nf4", "float16")
    assert recipe.train.gradient_checkpointing
    said("trainer/recipes/seed4-prompts.yaml", "NF4 twice, float16 arithmetic, float32 adapter, recomputing")


def test_4_2_a_number_in_4_and_8_bits(said: Said) -> None:
    value = torch.tensor([[0.622, 1.0]])
    byte = int(bnb.int8_vectorwise_quant(value.half())[0][0, 0])
    nibble = round(0.622 * 7)
    assert (nibble, byte) == (4, 79)
    assert (round(nibble / 7, 4), round(byte / 127, 4)) == (0.5714, 0.622)
    said("int8_vectorwise_quant(0.622)", "79, which is 0.6220; in 4 bits 4, which is 0.5714")


def test_4_3_versions_are_recorded(runs: SeedRuns, said: Said) -> None:
    environment = document(runs.prompts[1] / "training_manifest.json")["lineage"]["environment"]
    assert {"peft", "torch", "transformers", "trl", "bitsandbytes"} <= environment.keys()
    said(
        "training_manifest.json",
        f"peft {environment['peft']}, trl {environment['trl']}, torch {environment['torch']}",
    )


def test_4_4_a_small_base_first(runs: SeedRuns, said: Said) -> None:
    done, found = runs.explain(
        "seed4-prompts", "mistral", "lora.targets=all-linear", "quantization.compute_dtype=float32"
    )
    said(done.line, f"{found['base_parameters']:,} parameters instead of 7 billion, the same recipe")
    assert found["base"] == "base-mistral"


def test_4_6_no_cache_while_training(runs: SeedRuns, said: Said) -> None:
    model = nf4(runs)
    assert model.config.use_cache is False
    assert {str(one.device) for one in model.parameters()} <= {"cpu", "cuda:0"}
    said("load", "one device, use_cache off")


def test_4_12_a_batch_that_does_not_fit_is_halved(
    runs: SeedRuns, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which two rows fit, and four do not."""
    real = SftAdapterTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        if model.training and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(self, model, inputs, *args, **named)

    monkeypatch.setattr(SftAdapterTrainer, "compute_loss", compute_loss)
    asked = (
        "lora.targets=all-linear",
        "train.batch_size=4",
        "train.gradient_accumulation=1",
        "train.auto_batch=true",
    )
    done, out = runs.train("seed4-prompts", "mistral", *asked)
    found = document(out / "metrics.json")
    assert (found["batch_size"], found["gradient_accumulation"]) == (2, 2)
    said(done.line, "4 rows at a time do not fit: 2 at a time, twice a step")


def test_4_7_a_base_that_was_tried_trains_the_same(runs: SeedRuns, said: Said) -> None:
    tried = document(runs.address[1] / "metrics.json")["evaluations"]
    assert tried
    model = nf4(runs)
    before = logits(model).clone()
    assert torch.equal(before, logits(model))
    said("an evaluation first", "the weights stay unpacked; tests/trainer/test_base_model.py trains after it")


def test_4_8_one_column_and_fifty_rows(runs: SeedRuns, said: Said) -> None:
    done, out = runs.prompts
    assert document(out / "training_manifest.json")["data"]["train"]["rows"] == 50
    said(done.line, "50 rows of `prompt`; `act` does not count")


def test_4_9_the_shape_is_the_recipe_s(runs: SeedRuns, said: Said) -> None:
    config = document(runs.prompts[1] / "adapter" / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (16, 16, 0.05, "none")
    said("adapter_config.json", "r 16, alpha 16, dropout 0.05, bias none")


def test_4_10_biases_are_trained_where_the_base_has_them(runs: SeedRuns, said: Said) -> None:
    done, out = runs.train("seed3-alpaca", "bloom", "lora.bias=lora_only", "train.max_steps=1")
    assert document(out / "adapter" / "adapter_config.json")["bias"] == "lora_only"
    said(done.line, "in the adapter's file, admitted and served; none, all and lora_only are known")


def test_4_11_all_linear_is_every_layer_but_the_head(runs: SeedRuns, said: Said) -> None:
    config = document(runs.prompts[1] / "adapter" / "adapter_config.json")
    assert set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    said("lora.targets: all-linear", ", ".join(sorted(config["target_modules"])))


def test_4_13_trl_s_trainer_does_it(said: Said) -> None:
    assert issubclass(SftAdapterTrainer, SFTTrainer)
    said("SftAdapterTrainer(AdapterTrainer, SFTTrainer)", "processing_class and peft_config; TRL's own collator")


def test_4_14_the_run_says_its_figures(runs: SeedRuns, said: Said) -> None:
    figures = document(runs.prompts[1] / "metrics.json")
    assert figures["steps"] == 2
    assert figures["train_s"] > 0 < figures["tokens_per_s"]
    said("metrics.json", "steps, first and final loss, seconds, tokens, tokens per second")


def test_4_15_the_adapter_is_saved_whole(runs: SeedRuns, said: Said) -> None:
    files = document(runs.prompts[1] / "training_manifest.json")["files"]
    assert set(files) == {one.name for one in (runs.prompts[1] / "adapter").iterdir()}
    said("adapter/", f"{', '.join(sorted(files))}; digests in the manifest")


def test_4_16_the_adapter_loads_on_four_bits(runs: SeedRuns, said: Said) -> None:
    adapted = PeftModel.from_pretrained(nf4(runs), str(runs.prompts[1] / "adapter"))
    assert not torch.equal(logits(adapted), logits(nf4(runs)))
    said("PeftModel on an NF4 base", "loads; load_in_4bit= is BitsAndBytesConfig now")


def test_4_18_longer_and_on_another_base(runs: SeedRuns, said: Said) -> None:
    done, longer = runs.explain("seed4-prompts", "llama", "train.epochs=10", "lora.targets=all-linear",
                                "quantization.compute_dtype=float32")  # fmt: skip
    assert longer["steps"] == 10 * 7
    assert AutoModelForCausalLM.from_pretrained(runs.base("mistral")).config.model_type == "mistral"
    said(done.line, "70 steps on a Llama; rows 4.8 to 4.16 ran on a Mistral")
