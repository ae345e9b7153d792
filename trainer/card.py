"""The model card: README.md of an adapter, for people.

Owns its words and layout. It says what the training manifest says, holds no path and no time, and is the
same text for equal runs.
"""

from __future__ import annotations

import json

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.lineage import Lineage
from switchyard.trainer.recipe import Bias, LoraInit, LoraSection, Recipe


def model_card(recipe: Recipe, base: BaseModelSpec, lineage: Lineage, trainable_parameters: int) -> str:
    """Returns the card as Markdown with the front matter that the Hub reads."""
    lora, train, quantization = recipe.lora, recipe.train, lineage.training_quantization
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    length = f"{train.epochs:g} epochs" if train.epochs is not None else f"{train.max_steps} steps"
    rows = {
        "Base model": f"{base.name} (`{base.digest}`)",
        "Quantisation while training": quantization.label() if quantization is not None else "unknown",
        "Shape": f"rank {lora.r}, alpha {lora.alpha:g}, {targets}{_features(lora)}",
        "Trainable parameters": f"{trainable_parameters:,}",
        "Training": f"{length}, batch {train.batch_size} x {train.gradient_accumulation}, "
        f"learning rate {train.learning_rate:g} {train.schedule}, seed {train.seed}",
        "Training data": f"`{lineage.dataset_digest}`",
        "Recipe": f"`{lineage.recipe_digest}`",
    }
    if lineage.code_commit:
        rows["Code"] = f"`{lineage.code_commit}`"
    scores = [f"| {metric.name} | {metric.value:.4f} | `{metric.dataset_digest}` |" for metric in lineage.metrics]
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base.name, ensure_ascii=False)}",
            "library_name: peft",
            "pipeline_tag: text-generation",
            "tags: [lora, switchyard]",
            "---",
            "",
            f"# {recipe.name}",
            "",
            "A LoRA adapter. It belongs to one base model in one quantisation; on another it answers differently.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in rows.items()),
            "",
            "| Score | Value | Measured on |",
            "|---|---|---|",
            *scores,
            "",
        ]
    )


def _features(lora: LoraSection) -> str:
    said = {
        "rank-stabilised": lora.rslora,
        "DoRA": lora.dora,
        f"layers {', '.join(map(str, lora.layers or ()))}": lora.layers is not None,
        "ranks and alphas by layer": bool(lora.rank_pattern or lora.alpha_pattern),
        f"bias {lora.bias}": lora.bias is not Bias.NONE,
        f"begun with {lora.init}": lora.init is not LoraInit.DEFAULT,
    }
    return "".join(f", {name}" for name, is_so in said.items() if is_so)
