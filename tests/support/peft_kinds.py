"""Every kind of adapter that PEFT saves and the gate admits, on tiny bases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model


def saved(base: Path, config: PeftConfig, directory: Path) -> Path:
    """What PEFT writes for an adapter with random values; the embedding's own weights are left out."""
    from transformers import AutoModelForCausalLM

    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(0)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    wrapped.save_pretrained(str(directory), save_embedding_layers=False)
    return directory


def lora(*targets: str, **options: Any) -> LoraConfig:
    return LoraConfig(target_modules=list(targets), task_type="CAUSAL_LM", **options)


def ia3(*targets: str, feedforward: tuple[str, ...] = (), **options: Any) -> IA3Config:
    return IA3Config(
        target_modules=list(targets), feedforward_modules=list(feedforward), task_type="CAUSAL_LM", **options
    )


ADMITTED: list[tuple[str, Callable[[], PeftConfig], tuple[str, ...]]] = [
    ("llama", lambda: lora("q_proj", "down_proj", use_dora=True), ("dora",)),
    ("llama", lambda: lora("q_proj", "lm_head", use_dora=True), ("dora", "head")),
    ("llama", lambda: lora("q_proj", "embed_tokens", "lm_head"), ("embedding", "head")),
    ("llama", lambda: LoraConfig(target_modules=".*(q_proj|embed_tokens)", task_type="CAUSAL_LM"), ("embedding",)),
    ("llama", lambda: LoraConfig(target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM"), ("dora",)),
    ("llama", lambda: lora("q_proj", modules_to_save=["embed_tokens", "lm_head"]), ("modules_to_save",)),
    ("llama", lambda: lora("q_proj", "lm_head", modules_to_save=["lm_head"]), ("modules_to_save",)),
    ("llama", lambda: lora("q_proj", bias="lora_only"), ("bias",)),
    ("llama", lambda: lora("v_proj", use_rslora=True, layers_to_transform=[1]), ("rslora",)),
    (
        "llama",
        lambda: lora("q_proj", "embed_tokens", rank_pattern={"embed_tokens": 4}, alpha_pattern={"q_proj": 3}),
        ("alpha_pattern", "embedding", "rank_pattern"),
    ),
    ("qwen2", lambda: lora("q_proj", "o_proj", bias="lora_only"), ("bias",)),
    ("qwen2", lambda: lora("q_proj", "o_proj", bias="all", use_dora=True), ("bias", "dora")),
    ("bloom", lambda: lora("query_key_value", "word_embeddings", bias="lora_only"), ("bias", "embedding")),
    ("bloom", lambda: lora("query_key_value", bias="all"), ("bias",)),
    ("opt", lambda: lora("q_proj", "fc1", bias="all"), ("bias",)),
    ("gpt2", lambda: lora("c_attn", "wte", fan_in_fan_out=True, use_dora=False), ("embedding",)),
    ("gpt2", lambda: lora("c_attn", "mlp.c_proj", bias="lora_only", use_dora=True), ("bias", "dora")),
    ("gpt_neox", lambda: lora("query_key_value", modules_to_save=["lm_head", "embed_in"]), ("modules_to_save",)),
    ("phi", lambda: lora("q_proj", modules_to_save=["lm_head"]), ("modules_to_save",)),
    ("phi", lambda: lora("q_proj", "lm_head", bias="lora_only"), ("bias", "head")),
    ("opt", lambda: lora("q_proj", modules_to_save=["lm_head", "embed_tokens"]), ("modules_to_save",)),
    ("gemma", lambda: lora("q_proj", modules_to_save=["embed_tokens"]), ("modules_to_save",)),
    ("llama", lambda: ia3("k_proj", "v_proj", "down_proj", feedforward=("down_proj",)), ("ia3",)),
    ("llama", lambda: IA3Config(task_type="CAUSAL_LM", modules_to_save=["lm_head"]), ("ia3", "modules_to_save")),
    (
        "llama",
        lambda: IA3Config(target_modules="all-linear", feedforward_modules=[], task_type="CAUSAL_LM"),
        ("ia3",),
    ),
    (
        "llama",
        lambda: IA3Config(target_modules=".*(v|down)_proj", feedforward_modules=".*down_proj", task_type="CAUSAL_LM"),
        ("ia3",),
    ),
    ("bloom", lambda: IA3Config(task_type="CAUSAL_LM"), ("ia3",)),
    ("gpt2", lambda: IA3Config(task_type="CAUSAL_LM"), ("ia3",)),
]
"""Architecture, configuration, features that the gate records."""
