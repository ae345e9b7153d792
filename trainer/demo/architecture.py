"""The architecture of the demo base and its first weights.

Owns the shape of the model and the one thing that its initialisation decides by hand: a head that looks at
the token before. All linear layers have out_features a multiple of 32 and in_features a multiple of 64,
the shapes that the packed 4-bit CPU kernels of bitsandbytes accept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from switchyard.trainer.demo import tokenizer

_ROPE_THETA = 100.0
_SHARED_COMPONENT = 0.4
_LOOK_BACK_WEIGHT = 1.0
_FAST_FREQUENCIES = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the base.

    Attributes:
        hidden: Width of the residual stream; a multiple of 64.
        mlp: Width inside the feed-forward block; a multiple of 64.
        layers: Number of blocks.
        heads: Attention heads; query and key/value heads are equal in number.
        context_tokens: Longest sequence the base accepts, in tokens.
    """

    hidden: int = 64
    mlp: int = 128
    layers: int = 3
    heads: int = 2
    context_tokens: int = 512


def build_model(shape: Shape, seed: int) -> LlamaForCausalLM:
    """Returns the untrained float32 model of `shape`; the weights depend on `seed` alone."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer.VOCABULARY),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context_tokens,
        bos_token_id=tokenizer.BOS_ID,
        eos_token_id=tokenizer.EOS_ID,
        pad_token_id=tokenizer.PAD_ID,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        initializer_range=0.05,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    _look_back(model)
    return model


@torch.no_grad()
def _look_back(model: LlamaForCausalLM) -> None:
    """Makes the first head of the first block attend to the token before, whatever the tokens are.

    Every embedding gets the same first component, and the head's query and key read only that one, rotated
    against each other by one position at the fast frequencies. Rotary attention then peaks one step back.
    Copying is built upon such a head, and waiting for it to appear by itself would take most of the run.
    """
    config = model.config
    half = config.hidden_size // config.num_attention_heads // 2
    model.model.embed_tokens.weight[:, 0] += _SHARED_COMPONENT
    attention = model.model.layers[0].self_attn
    for index in range(_FAST_FREQUENCIES):
        angle = _ROPE_THETA ** (-index / half)
        attention.q_proj.weight[index, 0] = _LOOK_BACK_WEIGHT
        attention.q_proj.weight[index + half, 0] = 0.0
        attention.k_proj.weight[index, 0] = _LOOK_BACK_WEIGHT * math.cos(angle)
        attention.k_proj.weight[index + half, 0] = _LOOK_BACK_WEIGHT * math.sin(angle)
