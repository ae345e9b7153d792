"""Where each projection of the model sits in the fused groups."""

from __future__ import annotations

from collections import defaultdict
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
        embeds: whether it is an embedding: `in_features` are tokens, and its weight lies transposed.
    """

    group: int
    in_features: int
    out_start: int
    out_stop: int
    embeds: bool = False

    @property
    def out_features(self) -> int:
        """Rows of the projection's weight."""
        return self.out_stop - self.out_start


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """All projections that adapters can change.

    Attributes:
        places: by module path as the base model names it, e.g. `model.layers.0.self_attn.q_proj`; the embedding
            and the output head have groups of their own.
        group_count: number of fused groups.
    """

    places: Mapping[str, ModulePlace]
    group_count: int

    def members(self) -> dict[int, tuple[str, ...]]:
        """Paths of the modules of each group, in the order of their outputs."""
        members: dict[int, list[str]] = defaultdict(list)
        for path, place in sorted(self.places.items(), key=lambda item: item[1].out_start):
            members[place.group].append(path)
        return {group: tuple(paths) for group, paths in members.items()}
