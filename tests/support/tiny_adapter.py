"""Random adapters for the tiny base, made by PEFT and saved as PEFT saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load_nf4(base: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The base through transformers in NF4 with double quantisation, as the trainer loads it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype,
        device_map={"": "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )
    for module in model.modules():
        # On some processors the packed kernel rounds block constants; the oracle must not.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def make_adapter(
    base: Path,
    directory: Path,
    *,
    seed: int = 0,
    rank: int = 8,
    targets: tuple[str, ...] = ALL_LINEAR,
    magnitude: float = 0.1,
    dtype: torch.dtype = torch.float32,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Saves an adapter in which everything that can be trained is random, so that it changes every answer.

    Args:
        base: directory of the tiny base.
        directory: where to save.
        seed: seed of the weights.
        rank: `r`.
        targets: `target_modules`.
        magnitude: standard deviation of the weights.
        dtype: dtype of the file.
        options: further fields of `peft.LoraConfig`.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM", **dict(options or {})
    )
    return _save(base, directory, config, seed, magnitude, dtype)


def make_ia3(
    base: Path, directory: Path, *, targets: tuple[str, ...], feedforward: tuple[str, ...], seed: int = 0
) -> Path:
    """Saves an (IA)3 adapter with random gains."""
    from peft import IA3Config

    config = IA3Config(target_modules=list(targets), feedforward_modules=list(feedforward), task_type="CAUSAL_LM")
    return _save(base, directory, config, seed, 0.3, torch.float32)


def _save(base: Path, directory: Path, config: Any, seed: int, magnitude: float, dtype: torch.dtype) -> Path:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * magnitude
        if "lora_A" in name or "lora_B" in name or "lora_embedding" in name:
            parameter.data = noise.to(dtype)
        elif parameter.requires_grad:
            # Magnitudes, gains, biases and whole copies stay near what they were, as training leaves them.
            parameter.data = (parameter.data + noise * parameter.data.abs().mean().clamp(min=0.5)).to(dtype)
    model.save_pretrained(str(directory), save_embedding_layers=False)
    return directory


def peft_logits(base: Path, adapter: Path | None, tokens: tuple[int, ...]) -> torch.Tensor:
    """[T, vocab] float32: plain PEFT on the same NF4 base; None for the base alone."""
    with torch.no_grad():
        logits: torch.Tensor = _peft_model(base, adapter)(torch.tensor([tokens])).logits[0].float()
    return logits


def peft_hidden_states(base: Path, adapter: Path | None, tokens: tuple[int, ...]) -> torch.Tensor:
    """[T, hidden_size] float32 behind the last norm: plain PEFT on the same NF4 base; None for the base alone."""
    with torch.no_grad():
        output = _peft_model(base, adapter)(torch.tensor([tokens]), output_hidden_states=True)
    states: torch.Tensor = output.hidden_states[-1][0].float()
    return states


def _peft_model(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel

    model = load_nf4(base)
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter)).eval()
