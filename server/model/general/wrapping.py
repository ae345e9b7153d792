"""Putting our own modules into a transformers model where adapters can reach.

Done once, after loading and before anything has run: on some processors
bitsandbytes rewrites a module's weights in place on its first use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from switchyard.server.lora.layout import GroupLayout, ModulePlace
from switchyard.server.model.general.adapted import (
    Adapted,
    AdaptedEmbedding,
    AdaptedLinear,
    AdaptedNorm,
    CurrentAdapter,
)
from switchyard.server.model.general.int8 import Int8Linear
from switchyard.server.model.linears import BaseLinear, dense_linear, fuse_linears


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A model whose linear layers, embeddings and layer norms are ours.

    Attributes:
        model: transformers' model, changed in place.
        current: whose rows run through it.
        modules: ours by path.
    """

    model: PreTrainedModel
    current: CurrentAdapter
    modules: dict[str, Adapted]

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach; every module is a group of its own."""
        return GroupLayout({path: module.place for path, module in self.modules.items()}, len(self.modules))

    @property
    def layer_count(self) -> int:
        """Layers that may keep keys and values."""
        return int(self.model.config.get_text_config(decoder=True).num_hidden_layers)

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(self.model.config.get_text_config(decoder=True).vocab_size)

    @property
    def has_int8(self) -> bool:
        """Whether activations are rounded to 8 bits on the way."""
        return any(isinstance(linear, Int8Linear) for linear in self._linears())

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory, those that are shared once."""
        held = {tensor.data_ptr() for linear in self._linears() for tensor in linear.tensors()}
        others = sum(tensor.nbytes for tensor in self.tensors() if tensor.data_ptr() not in held)
        return others + sum(linear.nbytes for linear in self._linears())

    def tensors(self) -> list[torch.Tensor]:
        """All weights as they lie in memory, those that are shared once."""
        own = [*self.model.parameters(), *self.model.buffers()]
        held = [tensor for linear in self._linears() for tensor in linear.tensors()]
        return list({tensor.data_ptr(): tensor for tensor in [*own, *held]}.values())

    def _linears(self) -> list[BaseLinear]:
        return [module.base for module in self.modules.values() if isinstance(module, AdaptedLinear)]


def wrap(model: PreTrainedModel, dtype: torch.dtype, *, shadow: bool) -> Wrapped:
    """Replaces the modules of a loaded model that adapters can reach; what is left computes in float32.

    Args:
        model: nothing has run through it yet.
        dtype: dtype in which weights that are not quantised are kept.
        shadow: keep 4-bit weights dequantised as well.
    """
    current = CurrentAdapter()
    modules: dict[str, Adapted] = {}
    for path, module in list(model.named_modules()):
        ours = _ours(module, len(modules), current, dtype, shadow=shadow)
        if ours is not None:
            modules[path] = ours
            model.set_submodule(path, ours)
    tables = {id(module.weight) for module in modules.values() if isinstance(module, AdaptedEmbedding)}
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and id(tensor) not in tables:
            tensor.data = tensor.data.float()
    return Wrapped(model, current, modules)


def _ours(
    module: nn.Module, group: int, current: CurrentAdapter, dtype: torch.dtype, *, shadow: bool
) -> AdaptedLinear | AdaptedEmbedding | AdaptedNorm | None:
    scale = _embedding_scale(module) if isinstance(module, nn.Embedding) else None
    if isinstance(module, nn.Embedding) and scale is not None:
        place = ModulePlace(group, module.num_embeddings, 0, module.embedding_dim, embeds=True)
        return AdaptedEmbedding(module.weight.detach().to(dtype), scale, place, current)
    if isinstance(module, nn.LayerNorm) and module.bias is not None:
        width = module.bias.shape[0]
        return AdaptedNorm(module, ModulePlace(group, width, 0, width), current)
    linear = _base_linear(module, dtype, shadow=shadow)
    if linear is None:
        return None
    return AdaptedLinear(linear, ModulePlace(group, _in_features(module), 0, linear.out_features), current)


def _embedding_scale(module: nn.Embedding) -> float | None:
    """The constant that a table's entries are multiplied by; None when it computes something else."""
    if module.max_norm is not None:
        return None
    if type(module) is nn.Embedding:
        return 1.0
    named: object = getattr(module, "embed_scale", None)
    if not isinstance(named, (float, torch.Tensor)):
        return None
    scale = float(named)
    tokens = torch.arange(min(8, module.num_embeddings))
    with torch.inference_mode():
        found, expected = module(tokens), module.weight[tokens] * scale
    return scale if torch.allclose(found, expected, rtol=1e-2, atol=1e-6) else None


def _in_features(module: nn.Module) -> int:
    return int(module.nx if isinstance(module, Conv1D) else module.in_features)  # type: ignore[arg-type]


def _base_linear(module: nn.Module, dtype: torch.dtype, *, shadow: bool) -> BaseLinear | None:
    """Our linear map for a module; None when it is not a plain product."""
    if isinstance(module, Linear4bit):
        return fuse_linears([module], dtype, shadow=shadow)
    if isinstance(module, Linear8bitLt):
        return Int8Linear(module)
    if not isinstance(module, (nn.Linear, Conv1D)) or not _is_plain(module):
        return None
    # Not through `fuse_linears`, which copies: a head may share its weight with the embedding.
    bias = None if module.bias is None else module.bias.detach().float()
    return dense_linear(_weight(module).to(dtype), bias)


def _weight(module: nn.Linear | Conv1D) -> torch.Tensor:
    """[out_features, in_features], contiguous."""
    weight: torch.Tensor = module.weight.detach()
    return weight.t().contiguous() if isinstance(module, Conv1D) else weight


def _is_plain(module: nn.Linear | Conv1D) -> bool:
    """Whether it computes a plain product; other classes are tried, as their code may say it in other words."""
    if type(module) in {nn.Linear, Conv1D}:
        return True
    weight = _weight(module)
    x = torch.linspace(-1, 1, weight.shape[1], dtype=weight.dtype)[None]
    with torch.inference_mode():
        return torch.allclose(module(x), nn.functional.linear(x, weight, module.bias), rtol=1e-2, atol=1e-3)
