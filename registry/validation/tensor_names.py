"""What a tensor of an adapter file is, told by its name.

The names are those that `save_pretrained` of PEFT 0.21 writes. A name that is
none of them could reach another part of the base model, or another adapter,
once it is loaded; it is refused, with the feature it belongs to where that is
known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a tensor does in its module."""

    A = "lora_A.weight"
    B = "lora_B.weight"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    MAGNITUDE = "lora_magnitude_vector"
    GAIN = "ia3_l"
    ADAPTED_BIAS = "base_layer.bias"
    WEIGHT = "weight"
    BIAS = "bias"


AXES: dict[Role, tuple[int, ...]] = {
    Role.A: (2,),
    Role.B: (2,),
    Role.EMBEDDING_A: (2,),
    Role.EMBEDDING_B: (2,),
    Role.MAGNITUDE: (1,),
    Role.GAIN: (2,),
    Role.ADAPTED_BIAS: (1,),
    # A norm has one, and is refused later by what it is.
    Role.WEIGHT: (1, 2),
    Role.BIAS: (1,),
}
"""Numbers of axes that a tensor of each role may have."""

_NAME = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,220})\Z")
# No part of a path in a model: such a key would be read as something else.
_RESERVED = re.compile(
    r"(?:^|\.)(?:lora_[A-Za-z_]*|ia3_l|base_layer|modules_to_save|original_module|token_adapter)(?:\.|\Z)"
)
# Parts of keys that belong to what is not served, with what to do instead.
_REFUSED_PARTS = {
    "lora_A.bias": "bias on LoRA is not served; train without it",
    "lora_B.bias": "bias on LoRA is not served; train without it",
    "lora_magnitude_vector.": "not how PEFT names DoRA's magnitudes; save with PEFT's save_pretrained",
    "modules_to_save": "modules_to_save together with bias is not served; train with bias none",
    "original_module": "modules_to_save together with bias is not served; train with bias none",
    "token_adapter": "trainable_token_indices is not served; train without it",
}


@dataclass(frozen=True, slots=True)
class TensorName:
    """A name taken apart.

    Attributes:
        module: path in the base model.
        role: what the tensor does there.
    """

    module: str
    role: Role


def parse_tensor_name(name: str) -> TensorName | None:
    """Takes a name apart; None when it is none that an adapter may have."""
    match = _NAME.match(name)
    if match is None:
        return None
    for role in Role:
        module = match[1].removesuffix(f".{role}")
        if module != match[1]:
            return None if _RESERVED.search(module) else TensorName(module, role)
    return None


def refused_feature(name: str) -> str | None:
    """Says what a refused name belongs to, when that is known."""
    return next((hint for part, hint in _REFUSED_PARTS.items() if f".{part}" in name), None)
