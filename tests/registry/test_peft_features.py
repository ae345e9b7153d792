"""What `save_pretrained` of PEFT writes for every feature: admitted with its name, or refused by it.

The slow twin of the gate's rules: PEFT saves, the gate reads, nothing is assumed about names or shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model
from peft_kinds import ADMITTED, ia3, lora, saved
from safetensors.torch import load_file, save_file
from tiny_base import make_tiny_llama

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest, validate_files
from switchyard.registry.verdicts import Findings, Reason


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a tiny base of some architecture, made once."""
    root = tmp_path_factory.mktemp("bases")

    def make(architecture: str) -> Path:
        directory = root / architecture
        return directory if directory.exists() else make_tiny_llama(directory, architecture=architecture)

    return make


def validated(base: Path, adapter: Path) -> ValidationOutcome:
    spec: BaseModelSpec = describe_base(base)
    files = tuple((entry, adapter / entry.path) for entry in collect_files(adapter, Findings()).files)
    return validate_files(ValidationRequest.of(spec, files))


@pytest.mark.parametrize(("architecture", "config", "features"), ADMITTED, ids=[str(n) for n in range(len(ADMITTED))])
def test_admitted_with_its_features(
    architecture: str,
    config: Callable[[], PeftConfig],
    features: tuple[str, ...],
    base_of: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    base = base_of(architecture)
    adapter = saved(base, config(), tmp_path / "a")
    outcome = validated(base, adapter)
    assert outcome.faults == ()
    assert outcome.shape is not None
    assert outcome.shape.features == features
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert outcome.shape.parameter_count == sum(tensor.numel() for tensor in tensors.values())
    assert outcome.shape.weights_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert outcome.shape.rank == (0 if "ia3" in features else 8)


REFUSED: list[tuple[str, Callable[[], PeftConfig]]] = [
    ("llama", lambda: lora("q_proj", lora_bias=True)),
    ("llama", lambda: lora("q_proj", trainable_token_indices=[1, 2])),
    ("llama", lambda: lora("q_proj", "embed_tokens", use_dora=True)),
    ("llama", lambda: lora("q_proj", modules_to_save=["norm"])),
    ("llama", lambda: lora("q_proj", modules_to_save=["up_proj"])),
    ("phi", lambda: lora("q_proj", bias="all", modules_to_save=["lm_head"])),
    ("llama", lambda: ia3("gate_proj", feedforward=("gate_proj",))),
    ("llama", lambda: ia3("q_proj", "k_proj", "v_proj", feedforward=("q_proj", "k_proj", "v_proj"))),
]


@pytest.mark.parametrize(("architecture", "config"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_the_rest_is_refused_by_name(
    architecture: str, config: Callable[[], PeftConfig], base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    base = base_of(architecture)
    outcome = validated(base, saved(base, config(), tmp_path / "a"))
    assert Reason.FEATURE_UNSUPPORTED in {verdict.reason for verdict in outcome.faults}


def test_gains_of_one_input_are_admitted_where_they_agree(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    base = base_of("llama")
    config = ia3("gate_proj", "up_proj", feedforward=("gate_proj", "up_proj"))
    adapter = saved(base, config, tmp_path / "a")
    (fault, _) = validated(base, adapter).faults
    assert (
        "gains the input of gate_proj, up_proj, but servers compute gate_proj, up_proj from one input"
        in fault.message
    )
    weights = adapter / "adapter_model.safetensors"
    tensors = {name: torch.ones_like(tensor) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    assert validated(base, adapter).faults == ()
    other = base_of("opt")
    assert validated(other, saved(other, ia3("q_proj", feedforward=("q_proj",)), tmp_path / "b")).faults == ()


def test_a_copy_of_the_bases_own_embedding_is_refused_with_the_way_out(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    base = base_of("llama")
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora("q_proj", "embed_tokens"))
    wrapped.save_pretrained(str(tmp_path))
    faults = validated(base, tmp_path).faults
    assert [fault.reason for fault in faults] == [Reason.TENSOR_NAME]
    assert "save_embedding_layers=False" in faults[0].message


Edit = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]
_P = "base_model.model."
_Q, _EMBED = f"{_P}model.layers.0.self_attn.q_proj", f"{_P}model.embed_tokens"

SPOILED: dict[str, tuple[Callable[[], PeftConfig], Edit, set[Reason]]] = {
    "a magnitude is missing": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: t.pop(f"{_Q}.lora_magnitude_vector"),
        {Reason.TENSORS_MISSING},
    ),
    "magnitudes without use_dora": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: c.update(use_dora=False),
        {Reason.TENSOR_NAME},
    ),
    "a magnitude of another width": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: t.update({f"{_Q}.lora_magnitude_vector": torch.ones(32)}),
        {Reason.BASE_MISMATCH},
    ),
    "a magnitude that is a matrix": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: t.update({f"{_Q}.lora_magnitude_vector": torch.ones(64, 1)}),
        {Reason.SHAPE},
    ),
    "a magnitude that overflows": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: t.update({f"{_Q}.lora_magnitude_vector": torch.full((64,), 1e30)}),
        {Reason.SCALE_RANGE},
    ),
    "a magnitude that is no number": (
        lambda: lora("q_proj", use_dora=True),
        lambda t, c: t.update({f"{_Q}.lora_magnitude_vector": torch.full((64,), torch.nan)}),
        {Reason.NON_FINITE},
    ),
    "a bias that the base does not have": (
        lambda: lora("q_proj", bias="lora_only"),
        lambda t, c: t.update({f"{_Q}.base_layer.bias": torch.ones(64)}),
        {Reason.TENSOR_NAME},
    ),
    "a copy that the configuration does not name": (
        lambda: lora("q_proj", modules_to_save=["embed_tokens", "lm_head"]),
        lambda t, c: c.update(modules_to_save=["embed_tokens"]),
        {Reason.TENSOR_NAME},
    ),
    "a copy that is missing": (
        lambda: lora("q_proj", modules_to_save=["embed_tokens", "lm_head"]),
        lambda t, c: t.pop(f"{_P}lm_head.weight"),
        {Reason.TENSORS_MISSING},
    ),
    "a head with one more token": (
        lambda: lora("q_proj", modules_to_save=["lm_head"]),
        lambda t, c: t.update({f"{_P}lm_head.weight": torch.ones(289, 64)}),
        {Reason.BASE_MISMATCH},
    ),
    "a bias of the head that the base does not have": (
        lambda: lora("q_proj", modules_to_save=["lm_head"]),
        lambda t, c: t.update({f"{_P}lm_head.bias": torch.ones(288)}),
        {Reason.TENSOR_NAME},
    ),
    "a copy of a linear layer": (
        lambda: lora("q_proj"),
        lambda t, c: t.update({f"{_P}model.layers.0.mlp.up_proj.weight": torch.ones(128, 64)}),
        {Reason.TENSOR_NAME},
    ),
    "an embedding the wrong way round": (
        lambda: lora("embed_tokens"),
        lambda t, c: t.update(
            {f"{_EMBED}.lora_embedding_A": torch.ones(8, 64), f"{_EMBED}.lora_embedding_B": torch.ones(288, 8)}
        ),
        {Reason.BASE_MISMATCH},
    ),
    "factors of a linear layer on the embedding": (
        lambda: lora("embed_tokens"),
        lambda t, c: (
            t.clear(),
            t.update({f"{_EMBED}.lora_A.weight": torch.ones(8, 288), f"{_EMBED}.lora_B.weight": torch.ones(64, 8)}),
        ),
        {Reason.TENSOR_NAME},
    ),
    "gains under a LoRA configuration": (
        lambda: ia3("v_proj"),
        lambda t, c: (c.clear(), c.update(json.loads(json.dumps(lora("v_proj").to_dict(), default=list)))),
        {Reason.TENSOR_NAME},
    ),
    "factors under an (IA)^3 configuration": (
        lambda: ia3("v_proj"),
        lambda t, c: t.update({f"{_Q}.lora_A.weight": torch.ones(8, 64), f"{_Q}.lora_B.weight": torch.ones(64, 8)}),
        {Reason.TENSOR_NAME},
    ),
    "gains on the wrong side": (
        lambda: ia3("v_proj", "down_proj"),
        lambda t, c: c.update(feedforward_modules=["down_proj"]),
        {Reason.SHAPE},
    ),
    "gains of another width": (
        lambda: ia3("q_proj"),
        lambda t, c: t.update({f"{_Q}.ia3_l": torch.ones(65, 1)}),
        {Reason.BASE_MISMATCH},
    ),
    "a field of LoRA in an (IA)^3 configuration": (
        lambda: ia3("q_proj"),
        lambda t, c: c.update(lora_alpha=3),
        {Reason.FEATURE_UNSUPPORTED},
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_features_are_refused(case: str, base_of: Callable[[str], Path], tmp_path: Path) -> None:
    make, edit, expected = SPOILED[case]
    base = base_of("llama")
    adapter = saved(base, make(), tmp_path / "a")
    weights, config_path = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    tensors, config = load_file(weights), json.loads(config_path.read_text())
    edit(tensors, config)
    save_file(tensors, weights)
    config_path.write_text(json.dumps(config))
    assert {verdict.reason for verdict in validated(base, adapter).faults} == expected
