"""The modules that stand in a transformers model where adapters can reach.

Each has a group of its own in the layout, and does to its output what the
current adapter says about that group; see `GroupAdapter`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from switchyard.server.lora.embedding import embed
from switchyard.server.lora.layout import ModulePlace
from switchyard.server.lora.ops import LoraBackend, project
from switchyard.server.lora.segments import Segments
from switchyard.server.lora.table import GroupTable
from switchyard.server.model.decoder import SlotTable
from switchyard.server.model.linears import BaseLinear


class CurrentAdapter:
    """Whose rows run through the modules now; one sequence at a time.

    Bound to slots when the model is put to work, set before each forward pass.
    """

    def __init__(self) -> None:
        self._bound: tuple[SlotTable, LoraBackend] | None = None
        self._slot: int | None = None
        self._segments: dict[int, Segments] = {}

    def bind(self, slots: SlotTable, add_lora: LoraBackend) -> None:
        """Names where adapters are and how they are applied."""
        self._bound = (slots, add_lora)

    def choose(self, slot: int | None) -> None:
        """Names the slot of the next forward pass; None for the base alone."""
        self._slot = slot
        self._segments = {}

    def of(self, group: int, rows: int) -> tuple[GroupTable, Segments, LoraBackend] | None:
        """What the current adapter does to a group of `rows` rows; None when it does nothing."""
        if self._bound is None or self._slot is None:
            return None
        slots, add_lora = self._bound
        table = slots.group(group)
        if self._slot not in table:
            return None
        if rows not in self._segments:
            self._segments[rows] = Segments.of([self._slot] * rows)
        return table, self._segments[rows], add_lora


class Adapted(Protocol):
    """A module of the base that adapters can reach."""

    place: ModulePlace

    def own_weight(self) -> torch.Tensor:
        """Its weight as the base has it, [out_features, in_features], dequantised."""
        ...

    def own_bias(self) -> torch.Tensor | None:
        """Its bias as the base has it, [out_features], or None."""
        ...


class AdaptedLinear(nn.Module):
    """A linear layer."""

    def __init__(self, base: BaseLinear, place: ModulePlace, current: CurrentAdapter) -> None:
        super().__init__()
        self.base = base
        self.place = place
        self._current = current

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features] float32."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        applied = self._current.of(self.place.group, rows.shape[0])
        if applied is None:
            y = self.base(rows)
        else:
            table, segments, add_lora = applied
            y = project(self.base, rows, segments, table, add_lora)
        return y.view(*x.shape[:-1], -1)

    def own_weight(self) -> torch.Tensor:
        """[out_features, in_features]."""
        return self.base.dequantized()

    def own_bias(self) -> torch.Tensor | None:
        """[out_features], or None."""
        return self.base.bias


class AdaptedEmbedding(nn.Module):
    """A table of tokens, in the dtype of the files.

    Some models multiply what they look up by a constant; what an adapter adds is multiplied too, as PEFT does.
    """

    def __init__(self, weight: torch.Tensor, scale: float, place: ModulePlace, current: CurrentAdapter) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.place = place
        self._current = current

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """[...] int64 to [..., width] float32."""
        tokens = token_ids.reshape(-1)
        applied = self._current.of(self.place.group, tokens.shape[0])
        if applied is None:
            x = nn.functional.embedding(tokens, self.weight).float()
        else:
            table, segments, _ = applied
            x = embed(tokens, self.weight, segments, table)
        return (x if self.scale == 1.0 else x * self.scale).view(*token_ids.shape, -1)

    def own_weight(self) -> torch.Tensor:
        """[tokens, width]."""
        return self.weight

    def own_bias(self) -> torch.Tensor | None:
        """None; tables have none."""
        return None


class AdaptedNorm(nn.Module):
    """A layer norm whose bias adapters may replace."""

    def __init__(self, base: nn.LayerNorm, place: ModulePlace, current: CurrentAdapter) -> None:
        super().__init__()
        self.base = base
        self.place = place
        self._current = current

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] to [..., width]."""
        y: torch.Tensor = self.base(x)
        rows = y.view(-1, y.shape[-1])
        applied = self._current.of(self.place.group, rows.shape[0])
        if applied is not None:
            table, segments, add_lora = applied
            add_lora(rows, rows, segments, table)
        return y

    def own_weight(self) -> torch.Tensor:
        """[width]."""
        return self.base.weight

    def own_bias(self) -> torch.Tensor | None:
        """[width]."""
        return self.base.bias
