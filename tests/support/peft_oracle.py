"""The other side of the parity matrix: plain PEFT on the quantised base, in a process of its own.

    python peft_oracle.py ROOT ARCHITECTURE...

writes to ROOT/ARCHITECTURE the base, to ROOT/ARCHITECTURE-FEATURE an adapter per feature as PEFT saves it, and to
ROOT/ARCHITECTURE.safetensors what plain PEFT computes with each: logits along a prompt, and greedy tokens with their
margins. Imports nothing of the server.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROMPT = tuple(torch.randint(5, 200, (80,), generator=torch.Generator().manual_seed(3)).tolist())
NEW_TOKENS = 8
BASE = "base"

_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_SEPARATE = ("q_proj", "k_proj", "v_proj", "fc1", "fc2")
LINEARS: dict[str, tuple[str, ...]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "bloom": _FUSED,
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": _FUSED,
    "opt": (*_SEPARATE, "out_proj"),
    "gemma": _LLAMA,
    "phi": (*_SEPARATE, "dense"),
}
"""Linear layers of a block by architecture, attention first."""

_IA3 = {
    "bloom": ("query_key_value", "dense_4h_to_h"),
    "gpt2": ("c_attn", "mlp.c_proj"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "opt": ("k_proj", "v_proj", "fc2"),
    "phi": ("k_proj", "v_proj", "fc2"),
}
"""What (IA)3 gains, the last by its input; PEFT's own choice for those that are not named here."""


def lora(**options: Any) -> Callable[[str, Any], Any]:
    """A recipe: from architecture and base model to PEFT's configuration."""

    def config(architecture: str, model: Any) -> Any:
        from peft import LoraConfig

        asked = {name: value(architecture, model) if callable(value) else value for name, value in options.items()}
        defaults = {"r": 8, "lora_alpha": 16, "target_modules": list(LINEARS[architecture])}
        return LoraConfig(task_type="CAUSAL_LM", **(defaults | asked))

    return config


def _ia3(architecture: str, _: Any) -> Any:
    from peft import IA3Config

    targets = _IA3.get(architecture, ("k_proj", "v_proj", "down_proj"))
    return IA3Config(task_type="CAUSAL_LM", target_modules=list(targets), feedforward_modules=[targets[-1]])


def _path(model: Any, module: Any) -> str:
    return next(path for path, own in model.named_modules() if own is module)


def _embedding(_: str, model: Any) -> list[str]:
    return [_path(model, model.get_input_embeddings()).rpartition(".")[2]]


def _head(_: str, model: Any) -> list[str]:
    return [_path(model, model.get_output_embeddings())]


FEATURES: dict[str, Callable[[str, Any], Any]] = {
    "LoRA r=8": lora(),
    "rank and alpha patterns": lora(
        rank_pattern=lambda a, _: {LINEARS[a][0]: 4, LINEARS[a][-1]: 16},
        alpha_pattern=lambda a, _: {LINEARS[a][1]: 3},
    ),
    "rsLoRA": lora(use_rslora=True, r=16),
    "some layers": lora(layers_to_transform=[1]),
    "lm_head": lora(target_modules=lambda a, m: [LINEARS[a][0], *_head(a, m)]),
    "embedding": lora(target_modules=lambda a, m: [LINEARS[a][0], *_embedding(a, m)]),
    "bias of adapted layers": lora(bias="lora_only"),
    "bias of all layers": lora(bias="all"),
    "DoRA": lora(use_dora=True),
    "copy of lm_head": lora(modules_to_save=_head),
    "copy of the embedding": lora(modules_to_save=_embedding),
    "(IA)3": _ia3,
}
"""Every kind of adapter in the matrix."""


def adapter_directory(root: Path, architecture: str, feature: str) -> Path:
    """Where the adapter with a feature lies."""
    return root / f"{architecture}-{''.join(c if c.isalnum() else '-' for c in feature)}"


def make_references(root: Path, architecture: str) -> dict[str, torch.Tensor]:
    """Writes base and adapters of one architecture; returns what PEFT computes with them."""
    from peft import PeftModel, get_peft_model
    from tiny_adapter import load_nf4
    from tiny_base import make_tiny_llama

    base = load_nf4(make_tiny_llama(root / architecture, architecture=architecture))
    found = _answers(BASE, base)
    for seed, (feature, recipe) in enumerate(FEATURES.items()):
        directory = adapter_directory(root, architecture, feature)
        trained = get_peft_model(copy.deepcopy(base), recipe(architecture, base))
        _randomise(trained, seed)
        trained.save_pretrained(str(directory), save_embedding_layers=False)
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), str(directory)).eval()
        found |= _answers(feature, loaded)
    return found


def _randomise(model: Any, seed: int) -> None:
    """Moves everything that is trained away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator) * 0.1
        starts_at_zero = "lora_A" in name or "lora_B" in name or "lora_embedding" in name
        parameter.data = noise if starts_at_zero else parameter.data * (1 + noise) + noise


def _answers(feature: str, model: Any) -> dict[str, torch.Tensor]:
    tokens, margins = list(PROMPT), []
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float()
        last = logits[-1]
        for _ in range(NEW_TOKENS):
            top = last.topk(2)
            tokens.append(int(top.indices[0]))
            margins.append(float(top.values[0] - top.values[1]))
            last = model(torch.tensor([tokens])).logits[0, -1].float()
    return {
        f"{feature}/logits": logits.contiguous(),
        f"{feature}/tokens": torch.tensor(tokens[len(PROMPT) :]),
        f"{feature}/margins": torch.tensor(margins),
    }


def main() -> None:
    """Writes the references of the architectures on the command line."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    root = Path(sys.argv[1])
    for architecture in sys.argv[2:]:
        save_file(make_references(root, architecture), root / f"{architecture}.safetensors")


if __name__ == "__main__":
    main()
