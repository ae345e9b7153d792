"""A merged copy computes what PEFT computes on the 16-bit base, in every architecture and for every feature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shelf import Shelf, save_random

from switchyard.registry.errors import ArgumentInvalid, DestinationExists
from switchyard.registry.refs import AdapterName
from switchyard.server.errors import BaseMismatch, CompositionInvalid
from switchyard.server.offline.ingredients import gather
from switchyard.server.offline.merged_base import export_merged

TOKENS = torch.tensor([[1, 50, 120, 7, 250, 33, 96, 4]])
# Logits are up to about 20; weights keep 8 bits of bfloat16, and both sides round them once.
TOLERANCE = 0.02


def lora(*targets: str, **options: Any) -> LoraConfig:
    return LoraConfig(target_modules=list(targets), task_type="CAUSAL_LM", r=4, lora_alpha=8, **options)


def bases(root: Path) -> dict[str, Path]:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"vocab_size": 288, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1}
    small = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
    shapes: dict[str, dict[str, Any]] = {
        "qwen2": {**small, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "gpt2": {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64},
        "gpt_neox": small,
    }
    for name, shape in shapes.items():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **tokens, **shape)).save_pretrained(root / name)
    return {name: root / name for name in shapes}


@pytest.fixture(scope="module")
def base_of(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"llama": llama, **bases(tmp_path_factory.mktemp("bases"))}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TOKENS).logits[0].float()
    return found


def loaded(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)


def oracle(base: Path, adapter: Path) -> torch.Tensor:
    """Logits of PEFT's own merge, with every weight rounded to bfloat16 after it, in float32 arithmetic.

    Into a head that shares the embedding's weight PEFT would merge both updates; unmerged it does not.
    """
    model = loaded(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    for parameter in merged.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return logits(merged)


CASES: list[tuple[str, Callable[[], Any]]] = [
    ("llama", lambda: lora("q_proj", "v_proj", "down_proj", "gate_proj")),
    ("llama", lambda: lora("q_proj", "up_proj", use_dora=True, use_rslora=True)),
    ("llama", lambda: lora("q_proj", modules_to_save=["embed_tokens", "lm_head"])),
    ("llama", lambda: lora("v_proj", "lm_head")),
    ("llama", lambda: lora("v_proj", "embed_tokens")),
    ("llama", lambda: IA3Config(task_type="CAUSAL_LM")),
    ("qwen2", lambda: lora("q_proj", "k_proj", bias="all", use_dora=True)),
    ("qwen2", lambda: IA3Config(task_type="CAUSAL_LM")),
    ("gpt2", lambda: lora("c_attn", "c_proj", bias="lora_only", fan_in_fan_out=True)),
    ("gpt2", lambda: lora("attn.c_proj", "c_fc", use_dora=True, fan_in_fan_out=True)),
    ("gpt2", lambda: IA3Config(task_type="CAUSAL_LM")),
    ("gpt_neox", lambda: lora("query_key_value", "lm_head", modules_to_save=["embed_in"])),
]


@pytest.mark.parametrize(("architecture", "config"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)])
def test_logits_are_those_of_pefts_merge(
    architecture: str,
    config: Callable[[], Any],
    base_of: dict[str, Path],
    shelf_of: Callable[[Path], Shelf],
    tmp_path: Path,
) -> None:
    base = base_of[architecture]
    shelf = shelf_of(base)
    adapter = save_random(base, config(), tmp_path / "adapter")
    ref = shelf.publish("one", adapter)
    told: list[tuple[int, int]] = []
    export_merged(
        shelf.registry,
        gather(shelf.registry, [(ref, 1.0)]),
        base,
        tmp_path / "out",
        progress=lambda *at: told.append(at),
    )
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert told[-1][0] == told[-1][1] == len(told)
    plain = logits(loaded(base))
    expected = oracle(base, adapter)
    assert (expected - plain).abs().max() > 10 * TOLERANCE
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=0, atol=TOLERANCE)
    loaded(tmp_path / "out", torch.bfloat16)


def test_a_checkpoint_of_the_body_alone(
    base_of: dict[str, Path], shelf_of: Callable[[Path], Shelf], tmp_path: Path
) -> None:
    base = tmp_path / "body"
    base.mkdir()
    (base / "config.json").write_bytes((base_of["gpt2"] / "config.json").read_bytes())
    tensors = load_file(base_of["gpt2"] / "model.safetensors")
    body = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(body, base / "model.safetensors", {"format": "pt"})
    shelf = shelf_of(base)
    adapter = save_random(base, lora("c_attn", "wte", fan_in_fan_out=True), tmp_path / "adapter")
    ref = shelf.publish("one", adapter)
    export_merged(shelf.registry, gather(shelf.registry, [(ref, 1.0)]), base, tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), oracle(base, adapter), rtol=0, atol=TOLERANCE)


def test_several_with_factors_in_shards(llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.save_pretrained(base, max_shard_size="150KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((llama / name).read_bytes())
    (base / "LICENSE").write_text("as you like")
    shelf = shelf_of(base)
    first = save_random(base, lora("q_proj", "embed_tokens"), tmp_path / "first", seed=1)
    second = save_random(base, lora("q_proj", "o_proj"), tmp_path / "second", seed=2)
    wanted = [(shelf.publish("first", first), 0.75), (shelf.publish("second", second), -0.5)]
    parts = gather(shelf.registry, wanted)
    out = tmp_path / "out"
    spec = export_merged(shelf.registry, parts, base, out, dtype="float16")
    # Not merged by PEFT: only 11 bits of float16 are between the two.
    peft = PeftModel.from_pretrained(loaded(base), str(first), adapter_name="first")
    peft.load_adapter(str(second), adapter_name="second")
    peft.add_weighted_adapter(["first", "second"], [0.75, -0.5], "both", combination_type="cat")
    peft.set_adapter("both")
    torch.testing.assert_close(logits(loaded(out)), logits(peft), rtol=0, atol=TOLERANCE)
    assert len(list(out.glob("*.safetensors"))) == len(list(base.glob("*.safetensors"))) > 1
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in sorted(out.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            assert {index[name] for name in tuple(file.keys())} == {shard.name}
    assert (out / "LICENSE").read_text() == "as you like"
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    provenance = json.loads((out / "switchyard.json").read_text())
    assert provenance["base"]["digest"] == spec.digest
    assert provenance["adapters"] == [
        {"ref": one.ref, "digest": one.version.digest, "weight": one.weight} for one in parts
    ]
    assert all(one.version.digest in (out / "README.md").read_text() for one in parts)


def test_a_part_that_does_more_than_add_is_merged_alone_only(
    llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path
) -> None:
    shelf = shelf_of(llama)
    dora = shelf.publish("dora", save_random(llama, lora("q_proj", use_dora=True), tmp_path / "dora"))
    plain = shelf.publish("plain", save_random(llama, lora("q_proj"), tmp_path / "plain"))
    for wanted in ([(dora, 1.0), (plain, 1.0)], [(dora, 0.5)]):
        with pytest.raises(CompositionInvalid, match="team/dora:1 uses dora, which can only be merged alone"):
            export_merged(shelf.registry, gather(shelf.registry, wanted), llama, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_leave_nothing(llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path) -> None:
    shelf = shelf_of(llama)
    ref = shelf.publish("plain", save_random(llama, lora("q_proj"), tmp_path / "plain"))
    parts = gather(shelf.registry, [(ref, 1.0)])
    quantised = tmp_path / "quantised"
    quantised.mkdir()
    config = json.loads((llama / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "bitsandbytes"}
    }
    (quantised / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArgumentInvalid, match=r"stored quantised \(bitsandbytes\): a merged weight would be rounded"):
        export_merged(shelf.registry, parts, quantised, tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    for path in llama.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseMismatch, match="name its directory"):
        export_merged(shelf.registry, parts, other, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(DestinationExists):
        export_merged(shelf.registry, parts, llama, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine"]
    with pytest.raises(ArgumentInvalid, match="named twice"):
        gather(shelf.registry, [(ref, 1.0), (ref, 0.5)])
    with pytest.raises(ArgumentInvalid, match="no version is named"):
        gather(shelf.registry, [])


def test_what_float16_cannot_hold_is_refused(llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path) -> None:
    base = tmp_path / "large"
    base.mkdir()
    for path in llama.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] *= 1e6
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    shelf = shelf_of(base)
    ref = shelf.publish("plain", save_random(llama, lora("q_proj"), tmp_path / "plain"))
    parts = gather(shelf.registry, [(ref, 1.0)])
    with pytest.raises(ArgumentInvalid, match=r"model.norm.weight has values that torch.float16 cannot hold"):
        export_merged(shelf.registry, parts, base, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
    export_merged(shelf.registry, parts, base, tmp_path / "out")


def test_versions_of_two_bases_are_refused(
    llama: Path, base_of: dict[str, Path], shelf_of: Callable[[Path], Shelf], tmp_path: Path
) -> None:
    refs = []
    for name, target in (("llama", "q_proj"), ("gpt2", "c_attn")):
        shelf = shelf_of(base_of[name])
        adapter = save_random(base_of[name], lora(target, fan_in_fan_out=name == "gpt2"), tmp_path / name)
        refs.append((shelf.publish(name, adapter), 1.0))
    with pytest.raises(BaseMismatch, match="versions of several base models"):
        gather(shelf.registry, refs)
    assert AdapterName("team", "gpt2")
