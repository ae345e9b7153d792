"""The adapter as PEFT describes it, made from a recipe.

Owns the way from the recipe's words to PEFT's configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from switchyard.registry.base_model import BaseModelSpec
from switchyard.trainer.recipe import LoraInit, Recipe
from switchyard.trainer.targets import adapted_layers

if TYPE_CHECKING:
    from peft import LoraConfig


def adapter_shape(recipe: Recipe, spec: BaseModelSpec) -> LoraConfig:
    """Returns the adapter of a recipe as PEFT describes it.

    Raises:
        TargetsUnknown: If `lora` names layers that the base does not have.
    """
    from peft import LoraConfig
    from peft.tuners.lora.config import EvaConfig

    lora = recipe.lora
    layers = adapted_layers(lora, spec)
    inits = {LoraInit.DEFAULT: True, LoraInit.LOFTQ: True}
    return LoraConfig(
        r=lora.r,
        lora_alpha=_plain(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=layers.targets,
        rank_pattern=layers.ranks,
        alpha_pattern={name: _plain(alpha) for name, alpha in layers.alphas.items()},
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias=str(lora.bias),
        init_lora_weights=inits.get(lora.init, str(lora.init)),
        # Ranks that move between layers would not be those of the recipe.
        eva_config=EvaConfig(rho=1.0) if lora.init is LoraInit.EVA else None,
        task_type="CAUSAL_LM",
    )


def _plain(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
