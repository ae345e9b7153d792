"""The recipe's method: from what rows of which kind the adapter learns."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from switchyard.trainer.recipe_section import Section
from switchyard.trainer.row_formats import DataFormat


class Method(StrEnum):
    """How the adapter learns."""

    SFT = "sft"
    DPO = "dpo"
    ORPO = "orpo"
    KTO = "kto"

    @property
    def has_reference(self) -> bool:
        """Whether the base without the adapter is asked in every step."""
        return self in {Method.DPO, Method.KTO}


ROWS_OF: Final[Mapping[Method, frozenset[DataFormat]]] = {
    Method.SFT: frozenset(DataFormat) - {DataFormat.PREFERENCE, DataFormat.FEEDBACK},
    Method.DPO: frozenset({DataFormat.PREFERENCE}),
    Method.ORPO: frozenset({DataFormat.PREFERENCE}),
    Method.KTO: frozenset({DataFormat.FEEDBACK}),
}
"""What rows each method learns from."""

_KEYS: Final[Mapping[Method, frozenset[str]]] = {
    Method.SFT: frozenset(),
    Method.DPO: frozenset({"beta", "label_smoothing"}),
    Method.ORPO: frozenset({"beta"}),
    Method.KTO: frozenset({"beta", "desirable_weight", "undesirable_weight"}),
}


class MethodSection(Section):
    """How the adapter learns: from answers, or from which of two answers is better."""

    name: Annotated[Method, Field(strict=False)] = Method.SFT
    """`sft` (the completion's tokens); `dpo` and `orpo` (rows of `preference`); `kto` (rows of `feedback`, in the
    order of the file, which should mix good and bad ones)."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """`dpo`, `kto`: what leaving the base costs; `orpo`: how much the preference counts beside the answer itself."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """`dpo`: share of the preferences that are taken to be the wrong way round."""

    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """`kto`: weight of good answers; with fewer good ones than bad ones, raise it."""

    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """`kto`: weight of bad answers."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Keys of another method."""
        name = str(given.get("name", Method.SFT))
        if name not in set(Method):
            return []
        known = frozenset().union(*_KEYS.values())
        foreign = sorted((known - _KEYS[Method(name)]) & cls.changed(given))
        return [f"`name: {name}` has no {', '.join(f'`{key}`' for key in foreign)}"] if foreign else []
