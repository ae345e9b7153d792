"""Seed 1: LoRA on a chat model, addresses to JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from seed_runs import SeedRuns
from transformers import AutoModelForCausalLM, LlamaConfig

from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.misses import classify
from switchyard.trainer.memory import estimate_memory
from switchyard.trainer.recipe import AdapterDType, QuantizationMethod, QuantizationSection
from switchyard.trainer.recipe_train import TrainSection
from switchyard.trainer.step_memory import StepMemory, StepShape, rehearse
from tests.seeds.conftest import Said, document

TOKENS = torch.tensor([[1, 50, 120, 7, 250, 33, 96, 4]])


def config_of(out: Path) -> dict[str, Any]:
    return document(out / "adapter" / "adapter_config.json")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TOKENS).logits.float()
    return found


def step_of(directory: Path, config: LlamaConfig, *, quantized: bool) -> StepMemory:
    """One step of a base that is nothing but its configuration."""
    config.save_pretrained(directory)
    shape = StepShape(1, 16, "bfloat16", "float32", quantized, recomputes=True)
    return rehearse(directory, LoraConfig(r=8, task_type="CAUSAL_LM"), shape)


def test_1_1_one_recipe_runs_the_whole_flow(runs: SeedRuns, said: Said) -> None:
    done, out = runs.address
    assert {one.name for one in (out / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    figures = document(out / "metrics.json")
    said(
        done.line, f"{figures['steps']} steps, loss {figures['first_loss']:.2f} → {figures['final_loss']:.2f}, saved"
    )


def test_1_2_the_adapter_is_peft_s(runs: SeedRuns, said: Said) -> None:
    base = AutoModelForCausalLM.from_pretrained(runs.base("llama"))
    model = PeftModel.from_pretrained(base, str(runs.address[1] / "adapter"))
    assert not torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(runs.base("llama"))))
    said("PeftModel.from_pretrained(base, adapter)", "loads, and changes the logits")


def test_1_3_the_base_is_named_and_no_path_is_kept(runs: SeedRuns, said: Said) -> None:
    _, out = runs.address
    assert "/" not in config_of(out)["base_model_name_or_path"]
    manifest = document(out / "training_manifest.json")
    assert str(runs.root) not in json.dumps(manifest)
    said("training_manifest.json", f"base {manifest['base']['name']}, by digest; compute type float32 as said")


def test_1_4_the_shape_is_the_recipe_s(runs: SeedRuns, said: Said) -> None:
    config = config_of(runs.address[1])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 32, 0.1)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    said("adapter_config.json", "r 8, alpha 32, dropout 0.1, q_proj and v_proj")


@pytest.mark.slow
def test_1_5_parameters_are_counted_exactly(tmp_path: Path, said: Said) -> None:
    step = step_of(tmp_path, LlamaConfig(), quantized=False)
    total = step.base_parameters + step.trainable_parameters
    assert (step.trainable_parameters, total) == (4_194_304, 6_742_609_920)
    said("train --explain, on LlamaConfig()", f"4,194,304 of 6,742,609,920: {step.trainable_parameters / total:.4%}")


def test_1_6_what_quantising_saves_is_said_before(runs: SeedRuns, said: Said) -> None:
    done, plain = runs.explain("seed1-address", "llama")
    _, small = runs.explain("seed1-address", "llama", "quantization.method=nf4")
    whole, quantized = (one["memory"]["weights_bytes"] for one in (plain, small))  # type: ignore[index]
    assert quantized < whole
    said(done.line, f"weights {whole:,} bytes in bfloat16, {quantized:,} in NF4; full tuning is not offered")


def test_1_7_two_thin_matrices_hold_a_fifth(said: Said) -> None:
    wide = torch.nn.Sequential(torch.nn.Linear(100, 100, bias=False))
    wrapped = get_peft_model(wide, LoraConfig(r=10, target_modules=["0"]))
    trained, _ = wrapped.get_nb_trainable_parameters()
    assert trained == 100 * 10 + 10 * 100 == 2_000
    said("LoraConfig(r=10) on 100 × 100", "2,000 of 10,000")


def test_1_8_merged_answers_as_unmerged(runs: SeedRuns, said: Said) -> None:
    _, out = runs.address
    base = AutoModelForCausalLM.from_pretrained(runs.base("llama"), dtype=torch.float32)
    unmerged = logits(PeftModel.from_pretrained(base, str(out / "adapter")))
    merged = logits(AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.float32))
    difference = float((merged - unmerged).abs().max())
    assert difference < 0.05
    said("export: {merged: original}", f"largest difference of a logit {difference:.4f} after rounding to float16")


def test_1_9_ranks_are_trained_and_recorded(runs: SeedRuns, said: Said) -> None:
    for rank in (16, 32):
        _, out = runs.train("seed1-address", "llama", f"lora.r={rank}", "export.merged=none", "train.eval_steps=null",
                            "selection.keep=last", "train.max_steps=1")  # fmt: skip
        weights = load_file(out / "adapter" / "adapter_model.safetensors")
        assert {min(one.shape) for one in weights.values()} == {rank}
    said("train --set lora.r=16, =32", "files of rank 16 and 32, beside 8 of row 1.1")


def test_1_10_alpha_scales_what_is_added(runs: SeedRuns, tmp_path: Path, said: Said) -> None:
    from switchyard.server.model.loading import load_base
    from tests.support.parity_measure import served_logits
    from tests.support.tiny_adapter import make_adapter, peft_logits
    from tests.support.tiny_engine import TinyEngine

    base, tokens = runs.base("llama"), tuple(TOKENS[0].tolist())
    engine = TinyEngine(load_base(str(base)))
    for index, options in enumerate(({}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 4}})):
        adapter = make_adapter(base, tmp_path / str(index), seed=index, options=options, magnitude=0.05)
        expected = peft_logits(base, adapter, tokens)[len(tokens) // 2 - 1 :]
        served = served_logits(engine, engine.adapter(adapter), tokens)
        torch.testing.assert_close(served, expected, rtol=0, atol=5e-3)
    said("alpha over r, over √r, and by pattern", "the server's logits are PEFT's, within 0.005")


def test_1_11_dropout_is_for_training_only(runs: SeedRuns, said: Said) -> None:
    evaluations = document(runs.address[1] / "metrics.json")["evaluations"]
    by_step: dict[int, set[float]] = {}
    for one in (one for one in evaluations if one["split"] == "dev"):
        by_step.setdefault(one["step"], set()).add(one["loss"])
    assert by_step
    assert all(len(losses) == 1 for losses in by_step.values())
    base = AutoModelForCausalLM.from_pretrained(runs.base("llama"))
    model = PeftModel.from_pretrained(base, str(runs.address[1] / "adapter"), is_trainable=True).train()
    with torch.no_grad():
        assert not torch.equal(model(TOKENS).logits, model(TOKENS).logits)
    assert torch.equal(logits(model), logits(model))
    said("lora.dropout: 0.1", "two passes differ while training and are equal when evaluated")


def test_1_12_other_task_types_are_refused_by_name(runs: SeedRuns, tmp_path: Path, said: Said) -> None:
    shutil.copytree(runs.address[1], tmp_path / "run")
    path = tmp_path / "run" / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": "SEQ_2_SEQ_LM"}))
    done = runs.switchyard(f"push {tmp_path}/run demo/other --registry {runs.root}/registry", code=1)
    assert "SEQ_2_SEQ_LM" in done.stderr
    said("switchyard push, of a SEQ_2_SEQ_LM adapter", "refused by name; CAUSAL_LM is what is served")


def test_1_13_an_adapter_loads_again_with_its_bits(runs: SeedRuns, tmp_path: Path, said: Said) -> None:
    line = f"pull demo/address@candidate {tmp_path}/again --registry {runs.root}/registry"
    runs.switchyard(line)
    name = "adapter_model.safetensors"
    (found,) = (tmp_path / "again").rglob(name)
    assert found.read_bytes() == (runs.address[1] / "adapter" / name).read_bytes()
    said("switchyard pull demo/address@candidate", "the same bytes")


def test_1_14_generate_takes_tokens_by_position(runs: SeedRuns, said: Said) -> None:
    base = AutoModelForCausalLM.from_pretrained(runs.base("llama"))
    model = PeftModel.from_pretrained(base, str(runs.address[1] / "adapter")).eval()
    made = model.generate(TOKENS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert made.shape[1] > TOKENS.shape[1]
    said("PeftModel.generate(tokens)", "the old limit is gone")


def test_1_16_tokenizer_and_template_are_part_of_the_base(runs: SeedRuns, said: Said) -> None:
    base = document(runs.address[1] / "training_manifest.json")["base"]
    assert base["tokenizer_digest"].startswith("sha256:")
    said("training_manifest.json", f"tokenizer {base['tokenizer_digest'][:19]}…, checked by the server")


def test_1_17_quantisation_is_said_by_a_section(runs: SeedRuns, said: Said) -> None:
    for method in ("fp4", "nf4"):
        runs.train("seed1-address", "llama", f"quantization.method={method}", "export.merged=none",
                   "train.eval_steps=null", "selection.keep=last", "train.max_steps=1")  # fmt: skip
    wrong = runs.switchyard(f"train {runs.root}/seed1-address.yaml --set load_in_4bit=true", code=1)
    assert "load_in_4bit: unknown key" in wrong.stderr
    said("train --set quantization.method=…", "nf4, fp4 and none train; load_in_4bit is refused by name")


@pytest.mark.slow
def test_1_18_whether_it_fits_is_known_from_shapes(tmp_path: Path, said: Said) -> None:
    config = LlamaConfig(hidden_size=6656, intermediate_size=17920, num_hidden_layers=60, num_attention_heads=52)
    step = step_of(tmp_path, config, quantized=True)
    section = QuantizationSection(method=QuantizationMethod.NF4, double=True)
    gib = estimate_memory(step, section, AdapterDType.FLOAT32).total_bytes / 2**30
    assert 15 < gib < 24
    said("train --explain, on a 30B's shapes", f"{gib:.1f} GiB with NF4: fits 24 GB, not 16")


def test_1_19_a_file_is_as_large_as_its_parameters(runs: SeedRuns, said: Said) -> None:
    _, out = runs.address
    _, half = runs.train("seed1-address", "llama", "train.adapter_dtype=bfloat16", "export.merged=none",
                         "train.eval_steps=null", "selection.keep=last", "train.max_steps=1")  # fmt: skip
    sizes = [
        sum(one.nbytes for one in load_file(place / "adapter" / "adapter_model.safetensors").values())
        for place in (out, half)
    ]
    parameters = document(out / "metrics.json")["trainable_parameters"]
    assert sizes == [4 * parameters, 2 * parameters]
    said(
        "adapter_model.safetensors",
        f"{parameters:,} parameters: {sizes[0]:,} bytes in float32, {sizes[1]:,} in bfloat16",
    )


def test_1_20_the_merged_copy_is_complete(runs: SeedRuns, said: Said) -> None:
    names = {one.name for one in (runs.address[1] / "merged").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    said("export: {merged: original}", "config, weights and tokenizer")


def test_1_21_merging_never_goes_into_a_quantised_base(runs: SeedRuns, said: Said) -> None:
    _, out = runs.train("seed1-address", "llama", "quantization.method=nf4", "export.merged=dequantized",
                        "train.eval_steps=null", "selection.keep=last", "train.max_steps=1")  # fmt: skip
    assert "quantization_config" not in document(out / "merged" / "config.json")
    said("export: {merged: dequantized}", "16-bit weights as the 4 bits decode; `original` is row 1.20")


def test_1_22_the_way_to_gguf_is_handed_over(runs: SeedRuns, said: Said) -> None:
    text = (runs.address[1] / "merged" / "GGUF.md").read_text()
    assert "convert_hf_to_gguf" in text
    said("merged/GGUF.md", "llama.cpp's commands; GPTQ is out of scope")


def test_1_26_the_default_rate_is_lora_s(said: Said) -> None:
    rate = TrainSection.model_fields["learning_rate"].default
    assert rate == 2e-4
    said("train.learning_rate", "2e-4, ten times that of full tuning; 1e-3 in seed1-address.yaml")


def test_1_27_a_run_ends_when_dev_no_longer_gains(runs: SeedRuns, said: Said) -> None:
    patience = ("train.max_steps=6", "train.eval_steps=1", "selection.patience=1", "selection.min_improvement=100")
    done, out = runs.train("seed1-address", "llama", *patience, "export.merged=none")
    figures = document(out / "metrics.json")
    assert (figures["steps"], figures["adapter_step"]) == (2, 1)
    said(done.line, "step 2 brought nothing, so the run ended and step 1 is kept")


def test_1_28_gains_are_served_and_virtual_tokens_refused_by_name(runs: SeedRuns, said: Said) -> None:
    plain = ("lora={}", "train.max_steps=1", "train.eval_steps=null", "selection.keep=last", "export.merged=none")
    done, out = runs.train("seed1-address", "llama", "adapter.kind=ia3", *plain)
    assert config_of(out)["peft_type"] == "IA3"
    virtual = "--set adapter.kind=p-tuning --set lora={} --set export.merged=none --publish demo/virtual"
    refused = runs.switchyard(
        f"train {runs.root}/seed1-address.yaml --base {runs.base('llama')} {virtual} --registry {runs.root}/registry",
        code=2,
    )
    assert "p-tuning" in refused.stderr
    said(done.line, "gains are trained and served; p-tuning is refused by name before it is trained for a server")


def test_1_29_recomputing_needs_less(runs: SeedRuns, said: Said) -> None:
    done, less = runs.explain("seed1-address", "llama")
    _, more = runs.explain("seed1-address", "llama", "train.gradient_checkpointing=false")
    sizes = [one["memory"]["activation_bytes"] for one in (less, more)]  # type: ignore[index]
    assert sizes[0] < sizes[1]
    said(done.line, f"activations {sizes[0]:,} bytes, without gradient checkpointing {sizes[1]:,}")


def test_1_30_a_miss_has_a_class(said: Said) -> None:
    pairs = {"新群3路": "新群三路", "后庄路": "後庄路"}
    found = [
        classify(Question("", json.dumps({"road": right})), Answer(json.dumps({"road": got})))
        for right, got in pairs.items()
    ]
    assert found == ["road: digit form", "road: variant character"]
    said("the report of the gate", "新群三路: digit form; 後庄路: variant character; each miss with expected and got")


def test_1_31_what_is_published_says_its_data(runs: SeedRuns, said: Said) -> None:
    runs.address  # noqa: B018 - the run that is published
    done = runs.switchyard(f"show demo/address@candidate --registry {runs.root}/registry --json")
    assert document(runs.address[1] / "training_manifest.json")["lineage"]["dataset_digest"] in done.stdout
    card = (runs.address[1] / "adapter" / "README.md").read_text()
    assert card.startswith("---\nbase_model:")
    said("switchyard show demo/address@candidate", "data, recipe and card; `export` writes the Hub's layout")
