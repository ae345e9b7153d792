"""A transformers model in memory, found exact before it is served.

What a model needs to be served here: every token's keys and values stand on
their own, and a forward pass over the cached part of a sequence gives the
logits of one over the whole. Which models do is not written down in a list but
tried, on the loaded model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from switchyard.server.errors import ArchitectureUnsupported
from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.decoder import SlotTable
from switchyard.server.model.general.model import GeneralModel
from switchyard.server.model.general.rows import RowCache
from switchyard.server.model.general.wrapping import Wrapped, wrap

_TRIAL_TOKENS = 6
_TRIAL_PIECES = ((0, 3), (3, 4), (4, 6))
_TRIAL_TOLERANCE = 1e-3
"""Of a logit, in standard deviations of the trial's logits; float32 rounding stays below a hundredth of it."""

_ROUNDED_TOLERANCE = 0.1
"""The same where activations are rounded to 8 bits on the way; a lost cache is off by more than one."""


@dataclass(frozen=True, slots=True)
class GeneralBase:
    """The weights of any causal language model, run by transformers' own modules.

    Attributes:
        wrapped: the model with our linear layers.
        kv_token_bytes: bytes of the keys and values of one token, over all layers, as the trial wrote them.
        hidden_size: width of the hidden states behind the last norm; 0 where the model does not tell them.
    """

    wrapped: Wrapped
    kv_token_bytes: int
    hidden_size: int

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        return self.wrapped.layout

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory."""
        return self.wrapped.nbytes

    def tensors(self) -> list[torch.Tensor]:
        """All weights as they lie in memory, for fingerprints."""
        return self.wrapped.tensors()

    def weight(self, path: str) -> torch.Tensor:
        """The dequantised weight of one module; see `ResidentModel.weight`."""
        return self.wrapped.modules[path].own_weight().float()

    def bias(self, path: str) -> torch.Tensor | None:
        """The bias of one module, or None."""
        bias = self.wrapped.modules[path].own_bias()
        return None if bias is None else bias.float()

    def serve(self, rows: int, max_context_tokens: int, slots: SlotTable, add_lora: LoraBackend) -> GeneralModel:
        """Puts adapters to the weights; rows are made when sequences start. See `ResidentModel.serve`."""
        return GeneralModel(self.wrapped, self.kv_token_bytes, self.hidden_size, max_context_tokens, slots, add_lora)


def require_causal(config: PreTrainedConfig) -> None:
    """Refuses, before any weights are read, what is no causal language model of transformers.

    Raises:
        ArchitectureUnsupported: its architecture is none.
    """
    architecture = (config.architectures or ["?"])[0]
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ArchitectureUnsupported(
            f"architecture {architecture} is not one of transformers' causal language models, "
            "and nothing else generates text here; give the directory of one, e.g. a LlamaForCausalLM"
        )


def take_model(model: PreTrainedModel, dtype: torch.dtype, *, shadow: bool) -> GeneralBase:
    """Puts our linear layers into a loaded model and tries it.

    Args:
        model: nothing has run through it yet; it is changed in place.
        dtype: dtype in which weights that are not quantised are kept.
        shadow: keep 4-bit weights dequantised as well.

    Raises:
        ArchitectureUnsupported: its cached forward pass is not its forward pass.
    """
    architecture = type(model).__name__
    if getattr(model, "_is_stateful", False):
        raise ArchitectureUnsupported(
            f"architecture {architecture} keeps a running state instead of keys and values of each token; "
            "such a state cannot be cut into blocks or computed again in pieces"
        )
    wrapped = wrap(model.eval().requires_grad_(False), dtype, shadow=shadow)
    cache = _try(wrapped, architecture, _ROUNDED_TOLERANCE if wrapped.has_int8 else _TRIAL_TOLERANCE)
    return GeneralBase(wrapped, cache.nbytes // cache.length, _hidden_size(wrapped))


def _hidden_size(wrapped: Wrapped) -> int:
    inner = wrapped.model.base_model
    if inner is wrapped.model:
        return 0
    with torch.inference_mode():
        states = getattr(
            inner(input_ids=torch.zeros(1, 1, dtype=torch.int64), use_cache=False), "last_hidden_state", None
        )
    return 0 if states is None else int(states.shape[-1])


def _try(wrapped: Wrapped, architecture: str, tolerance: float) -> RowCache:
    tokens = torch.arange(1, 1 + _TRIAL_TOKENS)[None] % wrapped.vocab_size
    try:
        with torch.inference_mode():
            whole = wrapped.model(input_ids=tokens, use_cache=False).logits[0].float()
            cache = RowCache(wrapped.layer_count, _TRIAL_TOKENS)
            parts = [
                wrapped.model(
                    input_ids=tokens[:, begin:end], past_key_values=cache, use_cache=True, logits_to_keep=end - begin
                ).logits[0]
                for begin, end in _TRIAL_PIECES
            ]
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ArchitectureUnsupported(
            f"architecture {architecture} does not run with a cache of keys and values here: {error}"
        ) from error
    difference = float((torch.cat(parts).float() - whole).abs().max() / whole.std())
    if not difference <= tolerance or cache.length != _TRIAL_TOKENS:
        raise ArchitectureUnsupported(
            f"architecture {architecture} gives other logits with cached keys and values than without: they differ "
            f"by {difference:.1e} standard deviations, and {cache.length} of {_TRIAL_TOKENS} tokens were cached"
        )
    return cache
