"""A registry of one tiny base, and adapters that PEFT saves for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry


@dataclass(frozen=True)
class Shelf:
    """A registry of one base, and where it lies."""

    registry: Registry
    root: Path
    base: Path
    spec: BaseModelSpec

    def publish(self, name: str, directory: Path) -> str:
        """Publishes what PEFT has saved; returns the ref."""
        self.registry.publish(AdapterName("team", name), directory, base_digest=self.spec.digest, publisher="ann")
        return f"team/{name}:1"


def save_random(base: Path, config: Any, directory: Path, *, seed: int = 0) -> Path:
    """What PEFT writes for an adapter that changes every answer."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + 0.1 * noise if "lora_A" not in name else 0.1 * noise
    wrapped.save_pretrained(str(directory), save_embedding_layers=False)
    return directory
