from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, modules

from switchyard.trainer.base_model import LoadedBase, keep_unpacked, load_base, locate_base
from switchyard.trainer.errors import BaseUnusable
from switchyard.trainer.recipe import BaseSection, DType, QuantizationMethod, QuantizationSection
from tests.support.tiny_base import make_tiny_llama


def load(directory: Path, **quantization: object) -> LoadedBase:
    return load_base(BaseSection(path=directory), QuantizationSection(**quantization))  # type: ignore[arg-type]


def linear4bit(base: LoadedBase) -> list[Linear4bit]:
    return [module for module in base.model.modules() if isinstance(module, Linear4bit)]


@pytest.mark.parametrize(
    ("method", "double"),
    [(QuantizationMethod.NF4, True), (QuantizationMethod.NF4, False), (QuantizationMethod.FP4, True)],
)
def test_every_linear_layer_is_quantised_as_asked(tiny_base: Path, method: QuantizationMethod, double: bool) -> None:
    base = load(tiny_base, method=method, double=double)
    layers = linear4bit(base)
    assert len(layers) == len(base.spec.modules)
    assert {layer.weight.quant_type for layer in layers} == {method}
    assert {layer.weight.quant_state.nested for layer in layers} == {double}
    assert {layer.compute_dtype for layer in layers} == {torch.float32}


def test_without_quantisation_nothing_is_quantised(tiny_base: Path) -> None:
    base = load(tiny_base, method=QuantizationMethod.NONE, compute_dtype=DType.BFLOAT16)
    assert linear4bit(base) == []
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


def test_evaluating_never_repacks_a_weight(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repacked = []

    def repack(data: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        repacked.append(data)
        return data, state

    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", repack)
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    base = load(tiny_base)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        base.model.eval()(ids)
    assert repacked == []

    for layer in linear4bit(base):
        layer.support_avx512bf16_for_cpu = True
    with torch.no_grad():
        base.model(ids)
    assert len(repacked) == len(linear4bit(base))


def test_the_guard_counts_what_it_guards(tiny_base: Path) -> None:
    assert keep_unpacked(load(tiny_base).model) == 14
    assert keep_unpacked(torch.nn.Linear(2, 2)) == 0


@pytest.mark.parametrize("architecture", ["mistral", "qwen2", "bloom"])
def test_other_architectures_load(tmp_path: Path, architecture: str) -> None:
    base = load(make_tiny_llama(tmp_path / "base", architecture=architecture))
    assert len(linear4bit(base)) == len(base.spec.modules) > 0


def copy_with(tiny_base: Path, target: Path, name: str, changes: dict[str, object]) -> Path:
    shutil.copytree(tiny_base, target)
    document = json.loads((target / name).read_text()) | changes
    (target / name).write_text(json.dumps(document))
    return target


def test_a_base_that_is_stored_quantised_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    directory = copy_with(tiny_base, tmp_path / "b", "config.json", {"quantization_config": {"load_in_4bit": True}})
    with pytest.raises(BaseUnusable, match="stored quantised"):
        load(directory)


def test_a_base_with_code_of_its_own_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    changes = {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    directory = copy_with(tiny_base, tmp_path / "b", "config.json", changes)
    (directory / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(BaseUnusable, match="auto_map"):
        load(directory)


def test_a_tokenizer_without_an_end_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    directory = copy_with(tiny_base, tmp_path / "b", "tokenizer_config.json", {"eos_token": None})
    with pytest.raises(BaseUnusable, match="end-of-sequence"):
        load(directory)


def test_pickled_weights_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "pytorch_model.bin")
    with pytest.raises(BaseUnusable, match="safetensors"):
        load(tmp_path / "b")


def test_a_hub_model_that_is_not_cached_is_refused_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseUnusable, match="HF_HUB_OFFLINE"):
        locate_base(BaseSection(hub="nobody/nothing"))
