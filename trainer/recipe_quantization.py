"""The recipe's quantisation: how the frozen base is stored and computed with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import LATER, Section


class QuantizationMethod(StrEnum):
    """How the base's linear layers are stored while training."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"
    NONE = "none"


class DType(StrEnum):
    """A floating-point type; the value is torch's name for it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class QuantizationSection(Section):
    """How the base is stored while training; an adapter belongs to the quantisation that it was trained on."""

    method: Annotated[QuantizationMethod, Field(strict=False)] = QuantizationMethod.NF4
    """`nf4` and `fp4` are bitsandbytes' 4-bit types, `int8` is its 8-bit type; `none` keeps `compute_dtype`."""

    double: bool = True
    """Quantise the blocks' constants of 4-bit types too: 4.127 bits per weight instead of 4.5."""

    compute_dtype: Annotated[DType, Field(strict=False)] = DType.FLOAT32
    """Type of the arithmetic, and of everything that is not quantised: `float32`, `bfloat16` or `float16`."""

    storage_dtype: Annotated[DType | None, Field(strict=False), LATER] = None
    """Type that 4-bit weights are packed into; bytes by default. It changes no number. With `parallel.strategy: fsdp`
    it must be `compute_dtype` where it is given."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Only 4-bit weights are packed."""
        method = given.get("method", QuantizationMethod.NF4)
        is_packed = method in {QuantizationMethod.NF4, QuantizationMethod.FP4}
        if given.get("storage_dtype") is not None and not is_packed:
            return ["`storage_dtype` is for `nf4` and `fp4`: nothing else is packed"]
        return []

    @property
    def is_quantized(self) -> bool:
        """Whether the linear layers are stored in 4 or 8 bits."""
        return self.method is not QuantizationMethod.NONE

    @property
    def is_4bit(self) -> bool:
        """Whether the linear layers are stored in 4 bits."""
        return self.method in {QuantizationMethod.NF4, QuantizationMethod.FP4}
