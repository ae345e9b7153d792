"""The recipe's quantisation: how the frozen base is stored and computed with."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class QuantizationMethod(StrEnum):
    """How the base's linear layers are stored while training."""

    NF4 = "nf4"
    FP4 = "fp4"
    NONE = "none"


class DType(StrEnum):
    """A floating-point type; the value is torch's name for it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class QuantizationSection(Section):
    """How the base is stored while training; an adapter belongs to the quantisation that it was trained on."""

    method: Annotated[QuantizationMethod, Field(strict=False)] = QuantizationMethod.NF4
    """`nf4` and `fp4` are bitsandbytes' 4-bit types; `none` keeps `compute_dtype`."""

    double: bool = True
    """Quantise the blocks' constants too: 4.127 bits per weight instead of 4.5."""

    compute_dtype: Annotated[DType, Field(strict=False)] = DType.FLOAT32
    """Type of the arithmetic, and of everything that is not quantised: `float32`, `bfloat16` or `float16`."""

    @property
    def is_quantized(self) -> bool:
        """Whether the linear layers are stored in 4 bits."""
        return self.method is not QuantizationMethod.NONE
