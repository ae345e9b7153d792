"""The recipe's adapter: which layers it changes, by how much, and where it begins."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from switchyard.trainer.recipe_section import LATER, Section

RANK_LIMIT = 256
"""What the registry takes."""

Rank = Annotated[int, Field(ge=1, le=RANK_LIMIT)]
Alpha = Annotated[float, Field(gt=0, le=65536)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Bias(StrEnum):
    """Which biases are trained and become part of the adapter."""

    NONE = "none"
    LORA_ONLY = "lora_only"
    ALL = "all"


class LoraInit(StrEnum):
    """Where the factors begin."""

    DEFAULT = "default"
    GAUSSIAN = "gaussian"
    PISSA = "pissa"
    OLORA = "olora"
    LOFTQ = "loftq"
    EVA = "eva"

    @property
    def changes_base(self) -> bool:
        """Whether a part of the base's weights moves into the factors, and is taken out again at the end."""
        return self in {LoraInit.PISSA, LoraInit.OLORA}


class LoraSection(Section):
    """The adapter's shape, as PEFT's LoraConfig defines it."""

    r: Rank = 16
    """Rank."""

    alpha: Alpha = 32
    """The update is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped while training."""

    targets: Literal["all-linear"] | Names = "all-linear"
    """`all-linear` (every linear layer but the output head), or a list of module names such as `q_proj`, and of
    patterns of whole paths such as `model.layers.1?.mlp.*`, where `*` is anything and `?` any one character."""

    rslora: bool = False
    """Rank-stabilised scaling."""

    exclude: Annotated[tuple[str, ...], Field(strict=False), LATER] = ()
    """Names or patterns, as in `targets`, of layers that are not adapted after all."""

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, Field(strict=False, min_length=1), LATER] = None
    """Numbers of the only decoder layers that are adapted, the first being 0; all by default."""

    rank_pattern: Annotated[dict[str, Rank], LATER] = Field(default_factory=dict)
    """Names or patterns, as in `targets`, of layers with another rank; the first that matches a layer counts."""

    alpha_pattern: Annotated[dict[str, Alpha], LATER] = Field(default_factory=dict)
    """The same for another alpha."""

    bias: Annotated[Bias, Field(strict=False), LATER] = Bias.NONE
    """Biases that are trained too: `none`, `lora_only` (those of adapted layers) or `all` of the base."""

    dora: Annotated[bool, LATER] = False
    """Train lengths and directions of the weights apart (DoRA)."""

    init: Annotated[LoraInit, Field(strict=False), LATER] = LoraInit.DEFAULT
    """Where the factors begin: `default` and `gaussian` (one of both is zero); `loftq` (they make up for the error of
    4 bits); `eva` (the main directions of what the layers are given); `pissa` and `olora` (the main part of the
    weights, taken out again at the end, so that the adapter has twice the rank and serves on the unchanged base)."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """What the initialisations cannot be combined with."""
        init = given.get("init")
        found = []
        if init in {LoraInit.PISSA, LoraInit.OLORA}:
            if given.get("dora"):
                found.append(f"`init: {init}` cannot be taken out of a DoRA adapter again: its lengths are of both")
            patterns = given.get("rank_pattern")
            ranks = [given.get("r", 16), *(patterns.values() if isinstance(patterns, Mapping) else ())]
            if any(isinstance(rank, int) and rank > RANK_LIMIT // 2 for rank in ranks):
                found.append(f"`init: {init}` doubles ranks, and a rank is at most {RANK_LIMIT}: give half of it")
        if init == LoraInit.LOFTQ and given.get("dora"):
            found.append("`init: loftq` belongs to plain LoRA; give `dora` or `init: loftq`")
        return found
