"""The model card: README.md of an adapter, for people.

Owns its words and layout. It says what the training manifest says, holds no path and no time, and is the
same text for equal runs.
"""

from __future__ import annotations

import json

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.lineage import Lineage
from switchyard.trainer.recipe import AdapterKind, Bias, LoraInit, LoraSection, Recipe


def model_card(recipe: Recipe, base: BaseModelSpec, lineage: Lineage, trainable_parameters: int) -> str:
    """Returns the card as Markdown with the front matter that the Hub reads."""
    train, quantization = recipe.train, lineage.training_quantization
    length = f"{train.epochs:g} epochs" if train.epochs is not None else f"{train.max_steps} steps"
    rows = {
        "Base model": f"{base.name} (`{base.digest}`)",
        "Quantisation while training": quantization.label() if quantization is not None else "unknown",
        "Shape": _shape(recipe),
        "Trainable parameters": f"{trainable_parameters:,}",
        "Training": f"{length}, batch {train.batch_size} x {train.gradient_accumulation}, "
        f"learning rate {train.learning_rate:g} {train.schedule}, seed {train.seed}",
        "Training data": f"`{lineage.dataset_digest}`",
        "Recipe": f"`{lineage.recipe_digest}`",
    }
    if lineage.parents:
        rows["Continued from"] = ", ".join(f"`{parent}`" for parent in lineage.parents)
    if lineage.code_commit:
        rows["Code"] = f"`{lineage.code_commit}`"
    scores = [f"| {metric.name} | {metric.value:.4f} | `{metric.dataset_digest}` |" for metric in lineage.metrics]
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base.name, ensure_ascii=False)}",
            "library_name: peft",
            "pipeline_tag: text-generation",
            f"tags: [{recipe.adapter.kind}, switchyard]",
            "---",
            "",
            f"# {recipe.name}",
            "",
            f"{_named(recipe.adapter.kind)} adapter. It belongs to one base model in one quantisation; on another it "
            "answers differently.",
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


def _named(kind: AdapterKind) -> str:
    return "A LoRA" if kind is AdapterKind.LORA else f"A {kind}" if kind.is_prompt else "An (IA)3"


def _shape(recipe: Recipe) -> str:
    lora, kind = recipe.lora, recipe.adapter.kind
    if kind is AdapterKind.IA3:
        return "a gain per channel, (IA)3"
    if kind.is_prompt:
        return f"{recipe.adapter.virtual_tokens} virtual tokens, {kind}"
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    return f"rank {lora.r}, alpha {lora.alpha:g}, {targets}{_features(lora)}"


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
