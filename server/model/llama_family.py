"""From transformers' modules of the Llama family to the decoder's own structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from switchyard.server.lora.layout import GroupLayout, ModulePlace
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.decoder import Decoder, DecoderShape, DecoderWeights, LayerWeights, SlotTable
from switchyard.server.model.fast_model import FastModel
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.model.linears import BaseLinear, fuse_linears
from switchyard.server.model.quantization import Quantization

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""What `Decoder` computes exactly; tests hold each to transformers' own forward pass."""

_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotations whose frequencies do not depend on the length of the context."""


@dataclass(frozen=True, slots=True)
class LlamaFamily:
    """The weights of a Llama-like base, held by our own decoder.

    Attributes:
        decoder: the forward pass.
        dtype: dtype of the embedding, the head and weights that are not quantised.
    """

    decoder: Decoder
    dtype: torch.dtype

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        return self.decoder.layout

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states behind the last norm."""
        return self.decoder.shape.hidden_size

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory, shadows included."""
        own = {id(tensor): tensor.nbytes for tensor in self._outside_linears()}
        return sum(own.values()) + sum(linear.nbytes for linear in self._linears())

    def tensors(self) -> list[torch.Tensor]:
        """All weights as they lie in memory, for fingerprints."""
        return [*self._outside_linears(), *(t for linear in self._linears() for t in linear.tensors())]

    def _outside_linears(self) -> list[torch.Tensor]:
        """Embedding, head and every norm; a tied head is there twice."""
        weights = self.decoder.weights
        norms = [
            tensor
            for layer in weights.layers
            for tensor in (layer.attention_norm, layer.mlp_norm, layer.query_norm, layer.key_norm)
            if tensor is not None
        ]
        return [weights.embedding, weights.head, weights.final_norm, *norms]

    def weight(self, path: str) -> torch.Tensor:
        """The dequantised weight of one module; see `ResidentModel.weight`."""
        place = self.layout.places[path]
        linear = self._linear(place)
        if linear is not None:
            return linear.dequantized()[place.out_start : place.out_stop].float()
        weights = self.decoder.weights
        return (weights.embedding if place.embeds else weights.head).float()

    def bias(self, path: str) -> torch.Tensor | None:
        """The bias of one module, or None."""
        place = self.layout.places[path]
        linear = self._linear(place)
        bias = None if linear is None else linear.bias
        return None if bias is None else bias[place.out_start : place.out_stop].float()

    def serve(self, rows: int, max_context_tokens: int, slots: SlotTable, add_lora: LoraBackend) -> FastModel:
        """Puts KV rows and adapters to the weights; see `ResidentModel.serve`."""
        shape = self.decoder.shape
        layers = len(self.decoder.weights.layers)
        tiled = self.decoder.attention.tiled
        cache = KvCache(layers, rows, shape.kv_heads, max_context_tokens, shape.head_dim, tiled=tiled)
        return FastModel(self.decoder, cache, slots, add_lora)

    def _linear(self, place: ModulePlace) -> BaseLinear | None:
        """The fused projections that hold a place; None for the embedding and the head."""
        linears = self._linears()
        return linears[place.group] if place.group < len(linears) else None

    def _linears(self) -> list[BaseLinear]:
        return [linear for layer in self.decoder.weights.layers for linear in layer.linears]


def why_not_fast(config: PreTrainedConfig, quantization: Quantization) -> str:
    """What keeps the decoder from computing a base exactly; empty when nothing does."""
    architecture = (config.architectures or ["?"])[0]
    if architecture not in ARCHITECTURES:
        return f"architecture {architecture} is none of {', '.join(ARCHITECTURES)}"
    rope_type = (config.rope_parameters or {}).get("rope_type", "default")
    if rope_type not in _STATIC_ROPE:
        return f"rotary type {rope_type!r} is none of {', '.join(sorted(_STATIC_ROPE))}"
    if quantization.method == "int8":
        # LLM.int8 picks the columns that it keeps in 16 bits by looking at all rows of a product.
        return "a row's product in int8 depends on the other rows of its batch"
    return ""


Fuse = Callable[[Sequence[nn.Module]], BaseLinear]
"""Makes one linear map of projections that read the same input."""


def take_weights(
    model: PreTrainedModel, dtype: torch.dtype, *, shadow: bool, fuse: Fuse | None = None
) -> LlamaFamily:
    """Takes the weights out of a loaded model that nothing has run through.

    Args:
        model: transformers' model of one of `ARCHITECTURES`; it is not needed afterwards.
        dtype: dtype in which the embedding, the head and weights that are not quantised are kept.
        shadow: keep 4-bit weights dequantised as well.
        fuse: how projections are held; None for `fuse_linears`.
    """
    config = model.config
    body = model.model
    shape = DecoderShape(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        norm_eps=config.rms_norm_eps,
        rope_scaling=float(body.rotary_emb.attention_scaling),
    )
    # Copies: one view of a file that is mapped would keep all its pages in memory.
    embedding = body.embed_tokens.weight.detach().to(dtype, copy=True)
    tied = model.lm_head.weight is body.embed_tokens.weight
    weights = DecoderWeights(
        embedding=embedding,
        layers=tuple(
            _layer(layer, fuse or partial(fuse_linears, dtype=dtype, shadow=shadow)) for layer in body.layers
        ),
        final_norm=body.norm.weight.detach().to(torch.float32, copy=True),
        head=embedding if tied else model.lm_head.weight.detach().to(dtype, copy=True),
        inverse_frequencies=body.rotary_emb.inv_freq.detach().float(),
        activation=ACT2FN[config.hidden_act],
    )
    return LlamaFamily(Decoder(shape, weights), dtype)


def _layer(layer: nn.Module, fuse: Fuse) -> LayerWeights:
    def vector(path: str) -> torch.Tensor:
        return layer.get_parameter(path).detach().to(torch.float32, copy=True)

    def optional_vector(path: str) -> torch.Tensor | None:
        return vector(path) if path in dict(layer.named_parameters()) else None

    def fused(*paths: str) -> BaseLinear:
        return fuse([layer.get_submodule(path) for path in paths])

    return LayerWeights(
        attention_norm=vector("input_layernorm.weight"),
        mlp_norm=vector("post_attention_layernorm.weight"),
        query_norm=optional_vector("self_attn.q_norm.weight"),
        key_norm=optional_vector("self_attn.k_norm.weight"),
        qkv=fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=fused("self_attn.o_proj"),
        gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
        down=fused("mlp.down_proj"),
    )
