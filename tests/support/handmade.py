"""Base models and adapters written byte by byte, without torch, PEFT or safetensors.

Hostile files cannot be made with the libraries that refuse to write them, and a test of the registry
should not wait for torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HIDDEN = 64
INNER = 128
LAYERS = 2
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8, "I64": 8}
_FEATURES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN // 2),
    "self_attn.v_proj": (HIDDEN, HIDDEN // 2),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INNER),
    "mlp.up_proj": (HIDDEN, INNER),
    "mlp.down_proj": (INNER, HIDDEN),
}
MODULES = {f"model.layers.{n}.{path}": features for n in range(LAYERS) for path, features in _FEATURES.items()}
"""Linear layers of the handmade base, path to (in_features, out_features)."""

TENSORS = {"model.embed_tokens.weight": (96, HIDDEN), "lm_head.weight": (96, HIDDEN)}
"""Embedding and head of the handmade base, parameter name to shape."""

Tensor = tuple[str, tuple[int, ...], bytes]
"""dtype, shape, bytes."""


def tensor(array: npt.NDArray[Any]) -> Tensor:
    """A float32 or float16 array as a tensor."""
    return ({"f4": "F32", "f2": "F16"}[array.dtype.str[1:]], array.shape, array.tobytes())


def bfloat16(array: npt.NDArray[np.float32]) -> Tensor:
    """A float32 array cut to bfloat16."""
    return ("BF16", array.shape, (array.view("<u4") >> 16).astype("<u2").tobytes())


def safetensors_file(tensors: Mapping[str, Tensor], metadata: Any = None) -> bytes:
    """A file in the safetensors format, whatever the tensors hold."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += content
    return raw_file(json.dumps(header), data)


def raw_file(header: str | bytes, data: bytes = b"") -> bytes:
    """Header length, header, data: exactly as given."""
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + data


def zeros(dtype: str, *shape: int) -> Tensor:
    """A tensor of zero bytes."""
    return (dtype, shape, bytes(int(np.prod(shape)) * _SIZES[dtype]))


def lora_tensors(
    *, rank: int = 8, targets: tuple[str, ...] = ("q_proj", "v_proj"), seed: int = 0, scale: float = 0.1
) -> dict[str, Tensor]:
    """Random factors for every module of the handmade base whose name ends with a target."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for module, (inputs, outputs) in MODULES.items():
        if module.rpartition(".")[2] in targets:
            for factor, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                values = random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
                tensors[f"base_model.model.{module}.lora_{factor}.weight"] = tensor(values)
    return tensors


def lora_config(**changes: Any) -> dict[str, Any]:
    """`adapter_config.json` as PEFT writes it for `lora_tensors()`, with some fields changed."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "somewhere",
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "megatron_core": "megatron.core",
        "r": 8,
        "target_modules": ["q_proj", "v_proj"],
    } | changes


def write_adapter(
    directory: Path,
    *,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
    config: Mapping[str, Any] | str | None = None,
) -> Path:
    """A directory in PEFT's layout; distinct seeds give distinct content."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = safetensors_file(lora_tensors(seed=seed) if tensors is None else tensors, {"format": "pt"})
    (directory / "adapter_model.safetensors").write_bytes(weights)
    text = config if isinstance(config, str) else json.dumps(lora_config() if config is None else config)
    (directory / "adapter_config.json").write_text(text)
    (directory / "README.md").write_text(f"adapter {seed}\n")
    return directory


def write_base(directory: Path, *, seed: int = 0, config: Mapping[str, Any] | None = None) -> Path:
    """A directory that describes a two-layer Llama."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shapes = {f"{module}.weight": (outputs, inputs) for module, (inputs, outputs) in MODULES.items()}
    shapes |= TENSORS
    tensors = {
        name: tensor(random.standard_normal(shape, dtype=np.float32)) for name, shape in sorted(shapes.items())
    }
    tensors["model.norm.weight"] = tensor(np.ones(HIDDEN, dtype=np.float32))
    (directory / "model.safetensors").write_bytes(safetensors_file(tensors, {"format": "pt"}))
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "rope_theta": 10000.0,
        "vocab_size": 96,
        "transformers_version": "5.0.0",
    }
    (directory / "config.json").write_text(json.dumps(fields | dict(config or {})))
    (directory / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    (directory / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "eos_token": "</s>"}')
    return directory


class ManualClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s
