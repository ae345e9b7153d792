"""The order in which a model has its modules, without its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def module_order(base: Path) -> tuple[str, ...]:
    """Paths of all modules of the model in a directory, in the order of `named_modules`."""
    config = AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return tuple(name for name, _ in model.named_modules())
