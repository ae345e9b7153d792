"""The recipe's kind of adapter, and the keys of the kinds that are not LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from switchyard.trainer.recipe_lora import Names
from switchyard.trainer.recipe_section import Section


class AdapterKind(StrEnum):
    """What is trained beside the frozen base."""

    LORA = "lora"
    IA3 = "ia3"
    PROMPT = "prompt"
    P_TUNING = "p-tuning"

    @property
    def is_prompt(self) -> bool:
        """Whether virtual tokens before the prompt are learnt, and no layer is changed."""
        return self in {AdapterKind.PROMPT, AdapterKind.P_TUNING}


_KEYS: Final[Mapping[AdapterKind, tuple[str, ...]]] = {
    AdapterKind.LORA: (),
    AdapterKind.IA3: ("targets", "feedforward"),
    AdapterKind.PROMPT: ("virtual_tokens", "initial_text"),
    AdapterKind.P_TUNING: ("virtual_tokens", "encoder_hidden"),
}


class AdapterSection(Section):
    """The kind of adapter; the shape of `lora` is in the section of that name."""

    kind: Annotated[AdapterKind, Field(strict=False)] = AdapterKind.LORA
    """`lora`; `ia3` (a gain per channel); `prompt` and `p-tuning` (virtual tokens, learnt directly or through a small
    network), which no server answers with: they can be trained and written, not published."""

    targets: Names | None = None
    """`ia3`: names or patterns, as in `lora.targets`, of layers that get gains; PEFT's choice by default."""

    feedforward: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """`ia3`: those among them whose gains act on inputs instead of outputs; given together with `targets`."""

    virtual_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    """`prompt` and `p-tuning`: tokens before every prompt."""

    initial_text: Annotated[str | None, Field(min_length=1)] = None
    """`prompt`: text whose tokens the virtual ones begin as, repeated or cut to their number; drawn by default."""

    encoder_hidden: Annotated[int, Field(ge=1, le=65536)] = 128
    """`p-tuning`: width of the network that makes the virtual tokens; it is not part of the file."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Keys of another kind, and half of a choice of layers."""
        kind = given.get("kind", AdapterKind.LORA)
        if kind not in set(AdapterKind):
            return []
        known = {key for keys in _KEYS.values() for key in keys}
        foreign = sorted((known - set(_KEYS[AdapterKind(str(kind))])) & cls.changed(given))
        found = [f"`kind: {kind}` has no {', '.join(f'`{key}`' for key in foreign)}"] if foreign else []
        if kind == AdapterKind.IA3 and (given.get("targets") is None) != (given.get("feedforward") is None):
            found.append("give `targets` and `feedforward` together, or none of them")
        return found
