"""The registry's table of linear layers is the one PEFT makes of the configuration alone.

The registry may import neither PEFT nor transformers, so it reads the table from the headers of the base's
weights, once, when the base is registered. PEFT builds the model on the meta device, without any weights,
and wraps every linear layer. Both must name the same modules with the same widths: then whatever PEFT can
save for a base passes the registry's check, and nothing else does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_base import make_tiny_llama

from switchyard.registry.base_model import describe_base
from switchyard.registry.validation import shared_inputs
from switchyard.server.model import llama_family
from switchyard.server.model.loading import load_base

_WIDTH: dict[str, Any] = {"vocab_size": 96, "hidden_size": 64}
_LLAMA_LIKE = _WIDTH | {
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE | {"sliding_window": None},
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE | {"head_dim": 32},
    "gemma2": _LLAMA_LIKE | {"head_dim": 16, "tie_word_embeddings": True},
    "phi3": _LLAMA_LIKE | {"pad_token_id": 0},
    "bloom": _WIDTH | {"n_layer": 2, "n_head": 4},
    "gpt2": {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4},
    "gpt_neox": _WIDTH | {"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def expected_by_peft(model_type: str) -> dict[str, tuple[int, int]]:
    """Module path to (in_features, out_features), from the configuration and no weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **CONFIGS[model_type]))
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        wrapped = get_peft_model(model, lora, low_cpu_mem_usage=True)
    shapes = {name: tuple(value.shape) for name, value in wrapped.state_dict().items() if ".lora_" in name}
    modules: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        module = name.removeprefix("base_model.model.")
        if module.endswith(".lora_A.default.weight"):
            module = module.removesuffix(".lora_A.default.weight")
            modules[module] = (shape[1], shapes[name.replace(".lora_A.", ".lora_B.")][0])
    return modules


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_table_is_what_peft_expects(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **CONFIGS[model_type]))
    model.save_pretrained(tmp_path / "base")
    expected = expected_by_peft(model_type)
    assert len(expected) >= 8
    assert dict(describe_base(tmp_path / "base").modules) == expected


def test_the_gate_knows_what_is_computed_together(tmp_path: Path) -> None:
    for architecture in ("llama", "mistral", "qwen2", "qwen3"):
        base = load_base(str(make_tiny_llama(tmp_path / architecture, architecture=architecture)))
        members = base.resident.layout.members().values()
        together = {tuple(path.rpartition(".")[2] for path in paths) for paths in members if len(paths) > 1}
        assert together == set(shared_inputs.GROUPS)
        assert base.spec.architecture in shared_inputs.ARCHITECTURES
    assert set(llama_family.ARCHITECTURES) == shared_inputs.ARCHITECTURES


@pytest.mark.parametrize("model_type", ["bloom", "gpt2"])
def test_a_checkpoint_of_the_body_alone_has_the_same_table(model_type: str, tmp_path: Path) -> None:
    """As the hub has `gpt2` and `bigscience/bloom-560m`: no `transformer.` in front of any name."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **CONFIGS[model_type]))
    model.save_pretrained(tmp_path)
    whole = describe_base(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(name.startswith("transformer.") for name in tensors)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    body = describe_base(tmp_path)
    assert (dict(body.modules), dict(body.tensors)) == (dict(whole.modules), dict(whole.tensors))
    assert body.digest != whole.digest
