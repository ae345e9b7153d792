"""What is measured on: a random base, and adapters of random numbers in PEFT's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from switchyard.server.measure.shapes import Shape

_FACTOR_SCALE = 0.02
_CONTEXT_TOKENS = 2048
_NAMES_OF_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_base(directory: Path, shape: Shape) -> Path:
    """Writes a base of random bfloat16 weights, with a tokenizer whose words are numbers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=_CONTEXT_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({str(n): n for n in range(shape.vocab)}, unk_token="3"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", bos_token="1", eos_token="2").save_pretrained(  # noqa: S106
        directory
    )
    return directory


def make_adapters(
    directory: Path,
    modules: Mapping[str, tuple[int, int]],
    *,
    ranks: Sequence[int],
    first_seed: int = 0,
    limit_modules: int | None = None,
    scale: float = _FACTOR_SCALE,
) -> list[Path]:
    """Writes adapters on the linear layers of a base, bfloat16.

    Args:
        directory: gets one directory per adapter, `a<seed>`.
        modules: in_features and out_features by module path.
        ranks: rank of each adapter; as many are written.
        first_seed: seed and number of the first.
        limit_modules: adapt only so many modules; None adapts every linear layer.
        scale: standard deviation of the factors.
    """
    targets = {path: sizes for path, sizes in modules.items() if path.rpartition(".")[2] in _NAMES_OF_LINEARS}
    targets = dict(list((targets or modules).items())[:limit_modules])
    return [
        _write(directory / f"a{first_seed + index}", targets, rank, first_seed + index, scale)
        for index, rank in enumerate(ranks)
    ]


def _write(directory: Path, targets: Mapping[str, tuple[int, int]], rank: int, seed: int, scale: float) -> Path:
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for path, (inputs, outputs) in targets.items():
        for factor, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            values = torch.randn(shape, generator=generator) * scale
            tensors[f"base_model.model.{path}.lora_{factor}.weight"] = values.to(torch.bfloat16)
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "random",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "r": rank,
        "target_modules": sorted(targets),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
