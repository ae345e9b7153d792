"""Loading the base model once: a local directory or a hub id, in NF4 or as it is.

transformers reads and quantises the weights, exactly as the trainer does; then
they are taken out of its modules into the decoder's own structures, and the
modules are dropped before anything has run through them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils.logging import disable_progress_bar

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.lineage import QuantizationSpec
from switchyard.server.errors import ArchitectureUnsupported, BaseUnreadable
from switchyard.server.model.decoder import Decoder, DecoderShape, DecoderWeights, LayerWeights
from switchyard.server.model.fingerprint import fingerprint
from switchyard.server.model.linears import BaseLinear, fuse_linears
from switchyard.server.model.tokenizer import BaseTokenizer

_log = logging.getLogger(__name__)

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""What `Decoder` computes exactly; tests hold each to transformers' own forward pass."""

_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotations whose frequencies do not depend on the length of the context."""

_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")

DEFAULT_SHADOW_BYTES = 256 << 20
"""Dequantised copies of the 4-bit weights are kept while they fit in this many bytes."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load the base.

    Attributes:
        quantization: `nf4` (with double quantisation) or `none`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for what the files hold.
        revision: branch, tag or commit of a hub id; None for its default branch.
        max_context_tokens: longest context to serve; None for what the model allows.
        shadow_bytes: most bytes for dequantised copies; see `DEFAULT_SHADOW_BYTES`.
    """

    quantization: str = "nf4"
    dtype: str = "auto"
    revision: str | None = None
    max_context_tokens: int | None = None
    shadow_bytes: int = DEFAULT_SHADOW_BYTES


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """The resident base model and what the server says about it.

    Attributes:
        spec: identity and module table, as registered.
        quantization: how the weights are held.
        decoder: the forward pass.
        tokenizer: its tokenizer.
        max_context_tokens: longest context served.
        dtype: dtype of activations, KV cache and unquantised weights.
        shadowed: whether dequantised copies are kept.
    """

    spec: BaseModelSpec
    quantization: QuantizationSpec
    decoder: Decoder
    tokenizer: BaseTokenizer
    max_context_tokens: int
    dtype: torch.dtype
    shadowed: bool

    @property
    def quantization_label(self) -> str:
        """The quantisation in one word, e.g. `nf4+double/float32`."""
        return self.quantization.label()

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.eos_token_ids

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory."""
        weights = self.decoder.weights
        own = {id(t): t.nbytes for t in (weights.embedding, weights.head, weights.final_norm)}
        return sum(own.values()) + sum(linear.nbytes for linear in _linears(self.decoder))

    def fingerprint(self) -> str:
        """Digest over the resident weights as they are in memory now."""
        weights = self.decoder.weights
        norms = [t for layer in weights.layers for t in (layer.attention_norm, layer.mlp_norm)]
        linears = [t for linear in _linears(self.decoder) for t in linear.tensors()]
        return fingerprint([weights.embedding, weights.head, weights.final_norm, *norms, *linears])


def load_base(source: str, options: LoadOptions | None = None) -> LoadedBase:
    """Loads a base model.

    Args:
        source: a directory with config.json, safetensors and a tokenizer; or a hub id.
        options: how to load it.

    Raises:
        BaseUnreadable: it cannot be found or read.
        ArchitectureUnsupported: the decoder does not compute this model exactly.
    """
    options = options or LoadOptions()
    directory = _local_directory(source, options.revision)
    spec = describe_base(directory, None if Path(source).is_dir() else source)
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    _require_supported(config)
    dtype = _dtype(options.dtype, config)
    quantization = QuantizationSpec(
        method=options.quantization,
        double_quantization=options.quantization == "nf4",
        compute_dtype=str(dtype).removeprefix("torch."),
    )
    shadow = options.quantization == "nf4" and _linear_bytes(spec, dtype) <= options.shadow_bytes
    decoder = _decoder(directory, config, dtype, options.quantization, shadow=shadow)
    return LoadedBase(
        spec=spec,
        quantization=quantization,
        decoder=decoder,
        tokenizer=BaseTokenizer.load(directory, _eos_token_ids(config)),
        max_context_tokens=_context(config, options.max_context_tokens),
        dtype=dtype,
        shadowed=shadow,
    )


def _local_directory(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_absolute() or source.startswith("."):
        raise BaseUnreadable(f"base model {source!r}: no such directory; give one, or a hub id like `org/name`")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseUnreadable(
            f"base model {source!r} is neither a directory nor a hub id that can be had: {error}"
        ) from error


def _require_supported(config: PreTrainedConfig) -> None:
    architecture = (config.architectures or ["?"])[0]
    if architecture not in ARCHITECTURES:
        raise ArchitectureUnsupported(
            f"architecture {architecture} has no exact forward pass here; supported: {', '.join(ARCHITECTURES)}"
        )
    rope_type = (config.rope_parameters or {}).get("rope_type", "default")
    if rope_type not in _STATIC_ROPE:
        raise ArchitectureUnsupported(f"rotary type {rope_type!r} is not supported, only {sorted(_STATIC_ROPE)}")


def _dtype(name: str, config: PreTrainedConfig) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    if name not in known:
        raise BaseUnreadable(f"dtype {name!r} is unknown; use auto or one of {sorted(known)}")
    return known[name]


def _linear_bytes(spec: BaseModelSpec, dtype: torch.dtype) -> int:
    return sum(columns * rows for columns, rows in spec.modules.values()) * dtype.itemsize


def _context(config: PreTrainedConfig, wanted: int | None) -> int:
    limits = [int(config.max_position_embeddings)]
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        # Up to the window, sliding-window attention is plain causal attention.
        limits.append(int(window))
    return min([*limits, *([wanted] if wanted is not None else [])])


def _eos_token_ids(config: PreTrainedConfig) -> frozenset[int]:
    eos = config.eos_token_id
    return frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)


def _decoder(
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype, quantization: str, *, shadow: bool
) -> Decoder:
    if not sys.stderr.isatty():
        disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        device_map={"": "cpu"},
        quantization_config=_quantization_config(quantization, dtype),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
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
    weights = DecoderWeights(
        embedding=body.embed_tokens.weight.detach().to(dtype),
        layers=tuple(_layer(layer, dtype, shadow=shadow) for layer in body.layers),
        final_norm=body.norm.weight.detach().to(dtype),
        head=model.lm_head.weight.detach().to(dtype),
        inverse_frequencies=body.rotary_emb.inv_freq.detach().float(),
        activation=ACT2FN[config.hidden_act],
    )
    return Decoder(shape, weights)


def _quantization_config(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantization == "none":
        return None
    if quantization != "nf4":
        raise BaseUnreadable(f"quantisation {quantization!r} is not supported; use nf4 or none")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _layer(layer: nn.Module, dtype: torch.dtype, *, shadow: bool) -> LayerWeights:
    def vector(path: str) -> torch.Tensor:
        return layer.get_parameter(path).detach().to(dtype)

    def optional_vector(path: str) -> torch.Tensor | None:
        return vector(path) if path in dict(layer.named_parameters()) else None

    def fused(*paths: str) -> BaseLinear:
        return fuse_linears([layer.get_submodule(path) for path in paths], dtype, shadow=shadow)

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


def _linears(decoder: Decoder) -> list[BaseLinear]:
    return [
        linear for layer in decoder.weights.layers for linear in (layer.qkv, layer.out, layer.gate_up, layer.down)
    ]
