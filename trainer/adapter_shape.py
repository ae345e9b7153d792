"""The adapter as PEFT describes it, made from a recipe.

Owns the way from the recipe's words to PEFT's configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.registry.base_model import BaseModelSpec
from switchyard.trainer.errors import TargetsUnknown
from switchyard.trainer.recipe import AdapterKind, AdapterSection, LoraInit, LoraSection, Recipe
from switchyard.trainer.targets import adapted_layers

if TYPE_CHECKING:
    from peft import IA3Config, LoraConfig, PeftConfig, PromptEncoderConfig, PromptTuningConfig


def adapter_shape(recipe: Recipe, spec: BaseModelSpec, directory: Path | None = None) -> PeftConfig:
    """Returns the adapter of a recipe as PEFT describes it.

    Args:
        recipe: What to do.
        spec: The base.
        directory: Of the base's tokenizer, where an initial text is to be read; None leaves the text out.

    Raises:
        TargetsUnknown: If the recipe names layers that the base does not have.
    """
    match recipe.adapter.kind:
        case AdapterKind.LORA:
            return _lora(recipe.lora, spec)
        case AdapterKind.IA3:
            return _ia3(recipe.adapter, spec)
        case AdapterKind.PROMPT:
            return _prompt(recipe.adapter, directory)
        case AdapterKind.P_TUNING:
            return _p_tuning(recipe.adapter)


def _lora(lora: LoraSection, spec: BaseModelSpec) -> LoraConfig:
    from peft import LoraConfig
    from peft.tuners.lora.config import EvaConfig

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


def _ia3(section: AdapterSection, spec: BaseModelSpec) -> IA3Config:
    from peft import IA3Config

    if section.targets is None:
        targets, feedforward = _usual_gains(spec)
    else:
        targets, feedforward = section.targets, section.feedforward or ()
    found = adapted_layers(LoraSection(targets=targets), spec).targets
    inputs = adapted_layers(LoraSection(targets=feedforward), spec).targets if feedforward else []
    outside = sorted(set(inputs) - set(found))
    if outside:
        raise TargetsUnknown(f"adapter.feedforward has {', '.join(outside)}, which adapter.targets does not name")
    return IA3Config(target_modules=found, feedforward_modules=inputs, task_type="CAUSAL_LM")


def _usual_gains(spec: BaseModelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns PEFT's choice of layers, and of those whose gains act on inputs."""
    from peft.utils.constants import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    )

    # Its keys are model types, such as `llama` of `LlamaForCausalLM`.
    kind = spec.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel").lower()
    names = {key.replace("_", ""): key for key in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING}
    if kind not in names:
        raise TargetsUnknown(
            f"PEFT has no usual layers of {spec.architecture} for (IA)3; give adapter.targets and adapter.feedforward"
        )
    targets = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[names[kind]]
    return tuple(targets), tuple(TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[names[kind]])


def _prompt(section: AdapterSection, directory: Path | None) -> PromptTuningConfig:
    from peft import PromptTuningConfig

    text = section.initial_text if directory is not None else None
    return PromptTuningConfig(
        num_virtual_tokens=section.virtual_tokens,
        prompt_tuning_init="RANDOM" if text is None else "TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=None if text is None else str(directory),
        task_type="CAUSAL_LM",
    )


def _p_tuning(section: AdapterSection) -> PromptEncoderConfig:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        num_virtual_tokens=section.virtual_tokens, encoder_hidden_size=section.encoder_hidden, task_type="CAUSAL_LM"
    )


def _plain(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
