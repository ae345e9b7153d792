"""Directories that PEFT itself has saved: the kinds of LoRA that are served pass, through the whole protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.records import PublishResult
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

LINEAR = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def spec(tiny: Path, registry: Registry) -> BaseModelSpec:
    return registry.register_base(describe_base(tiny))


def published(registry: Registry, spec: BaseModelSpec, source: Path) -> PublishResult:
    return registry.publish(AdapterName("team", "peft"), source, base_digest=spec.digest, publisher="ann")


@pytest.mark.parametrize(
    ("options", "features"),
    [
        ({}, ()),
        ({"use_rslora": True}, ("rslora",)),
        (
            {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}},
            ("alpha_pattern", "rank_pattern"),
        ),
        ({"layers_to_transform": [1]}, ()),
        ({"layers_to_transform": 0, "layers_pattern": "layers"}, ()),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, ()),
        ({"init_lora_weights": "gaussian"}, ()),
        ({"lora_dropout": 0.1}, ()),
    ],
    ids=str,
)
def test_served_kinds_pass(
    options: dict[str, Any],
    features: tuple[str, ...],
    registry: Registry,
    spec: BaseModelSpec,
    tiny: Path,
    tmp_path: Path,
) -> None:
    done = published(registry, spec, make_adapter(tiny, tmp_path / "a", targets=LINEAR, options=options))
    assert done.version is not None
    assert done.version.shape.features == features
    assert done.version.shape.target_modules == LINEAR
    assert done.warnings == ()


def test_all_linear_layers_in_bfloat16_pass(
    registry: Registry, spec: BaseModelSpec, tiny: Path, tmp_path: Path
) -> None:
    import torch

    done = published(registry, spec, make_adapter(tiny, tmp_path / "a", dtype=torch.bfloat16))
    assert done.version is not None
    assert done.version.shape.dtype == "bfloat16"
    assert len(done.version.shape.target_modules) == 7


def test_a_pattern_passes_with_a_warning(registry: Registry, spec: BaseModelSpec, tiny: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny),
        LoraConfig(target_modules=r".*layers\.1.*q_proj", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path / "a")
    done = published(registry, spec, tmp_path / "a")
    assert done.version is not None
    assert [warning.split()[0] for warning in done.warnings] == ["TARGETS_FROM_TENSORS"]
