"""Bases and adapters of any size, made without weights of the base: the registry needs only its table of layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest

RANK = 64
_FEATURES = {"small": 64, "large": 4096}
_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "bench",
    "bias": "none",
    "inference_mode": True,
    "lora_alpha": 16,
    "target_modules": ["q_proj"],
}


def base_model(size: str, layers: int) -> BaseModelSpec:
    """A base of `layers` square layers of 64 (`small`) or 4096 (`large`) features."""
    digest = sha256_digest(f"{size} {layers}".encode())
    features = (_FEATURES[size], _FEATURES[size])
    modules = {f"model.layers.{layer}.self_attn.q_proj": features for layer in range(layers)}
    return BaseModelSpec(f"bench-{size}", digest, digest, digest, digest, "", "LlamaForCausalLM", 96, modules)


def write_adapter(directory: Path, base: BaseModelSpec, seed: int, rank: int) -> Path:
    """An adapter for every layer of a base; the same seed gives the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors = {}
    for module, (inputs, outputs) in base.modules.items():
        for factor, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.01)
            tensors[f"base_model.model.{module}.lora_{factor}.weight"] = values
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(_CONFIG | {"r": rank}))
    (directory / "README.md").write_text(f"adapter {seed}\n")
    return directory
