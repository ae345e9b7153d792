"""Where each projection of the model sits in the fused groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """The place of one projection.

    Attributes:
        group: index of its fused group, counted over the whole model.
        in_features: columns of the projection's weight.
        out_start: its first output column in the group.
        out_stop: column after its last.
    """

    group: int
    in_features: int
    out_start: int
    out_stop: int


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """All projections that adapters can change.

    Attributes:
        places: by module path as the base model names it, e.g. `model.layers.0.self_attn.q_proj`.
        group_count: number of fused groups.
    """

    places: Mapping[str, ModulePlace]
    group_count: int
