"""What PEFT can save is served in one batch as PEFT computes it, on the same quantised base.

Tolerance: logits within 2e-3 of PEFT's, whose spread is about 1, in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_adapter import ALL_LINEAR, make_adapter, make_ia3, peft_logits
from tiny_base import make_tiny_llama

from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.server.adapters.packing import HostAdapter, pack
from switchyard.server.adapters.reading import host_modules
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import AdapterSlot, KvRow, SequenceSlice, StepPlan
from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.batch import build_batch
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.sampler import Sampler

TOLERANCE = 2e-3
PROMPT = tuple(torch.randint(5, 200, (24,), generator=torch.Generator().manual_seed(3)).tolist())
CONFIG = AdapterConfig(rank=8, alpha=16.0)

FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "head": {"targets": ("q_proj", "lm_head")},
    "embedding": {"targets": ("embed_tokens", "down_proj")},
    "embedding and head in bfloat16": {"targets": ("embed_tokens", "lm_head"), "dtype": torch.bfloat16},
    "dora": {"options": {"use_dora": True}},
    "dora in some projections of a group": {"targets": ("k_proj", "up_proj"), "options": {"use_dora": True}},
    "dora on the head": {"targets": ("lm_head",), "options": {"use_dora": True}},
    "bias of adapted layers": {"targets": ("q_proj", "v_proj"), "options": {"bias": "lora_only"}},
    "every bias": {"targets": ("v_proj",), "options": {"bias": "all"}},
    "dora and bias": {"targets": ("q_proj", "o_proj"), "options": {"use_dora": True, "bias": "lora_only"}},
    "own head and embedding": {
        "targets": ("q_proj",),
        "options": {"modules_to_save": ["lm_head", "embed_tokens"]},
    },
    "own head": {"targets": ("embed_tokens",), "options": {"modules_to_save": ["lm_head"]}},
}
IA3: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gains": (("k_proj", "v_proj", "down_proj"), ("down_proj",)),
    "gains on outputs": (("q_proj", "up_proj", "lm_head"), ()),
}
FAMILIES = ("llama", "qwen2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module", params=FAMILIES)
def base_dir(request: pytest.FixtureRequest, root: Path) -> Path:
    return make_tiny_llama(root / request.param, architecture=request.param)


@pytest.fixture(scope="module")
def base(base_dir: Path) -> LoadedBase:
    return load_base(str(base_dir))


@pytest.fixture(scope="module")
def files(base_dir: Path, root: Path) -> dict[str, Path]:
    """One adapter per feature."""
    made = {
        name: make_adapter(base_dir, root / f"{base_dir.name}-{index}", seed=index, **options)
        for index, (name, options) in enumerate(FEATURES.items())
    }
    for name, (targets, feedforward) in IA3.items():
        directory = root / f"{base_dir.name}-ia3-{len(made)}"
        made[name] = make_ia3(base_dir, directory, targets=targets, feedforward=feedforward, seed=len(made))
    return made


def packed(base: LoadedBase, directory: Path, config: AdapterConfig = CONFIG) -> HostAdapter:
    tensors = load_file(directory / "adapter_model.safetensors")
    layout = base.resident.layout
    return pack(host_modules(tensors, layout, config, 1.0), layout, base.resident)


def serve(base: LoadedBase, adapters: list[HostAdapter | None]) -> list[torch.Tensor]:
    """Last logits of the same prompt for each adapter, all in one batch, in two steps."""
    slots = AdapterSlots(len(adapters), base.resident.layout.group_count)
    for slot, adapter in enumerate(adapters):
        if adapter is not None:
            slots.write(slot, adapter)
    runner = ModelRunner(base.resident.serve(len(adapters), 64, slots, best_backend()), Sampler(frozenset()))
    half = len(PROMPT) // 2
    logits = torch.empty(0)
    for start, stop in ((0, half), (half, len(PROMPT))):
        pieces = [
            SequenceSlice(
                request_id=f"r{row}",
                kv_row=KvRow(row),
                start=start,
                tokens=PROMPT[start:stop],
                adapter_slot=None if adapter is None else AdapterSlot(row),
                sample=True,
                sampling=SamplingParams(),
                sample_index=0,
            )
            for row, adapter in enumerate(adapters)
        ]
        logits = runner.compute(build_batch(StepPlan(tuple(pieces)))).logits
    return list(logits)


def test_every_feature_in_one_batch_equals_peft(base_dir: Path, base: LoadedBase, files: dict[str, Path]) -> None:
    adapters: list[HostAdapter | None] = [None, *(packed(base, directory) for directory in files.values())]
    together = serve(base, adapters)
    plain = peft_logits(base_dir, None, PROMPT)[-1]
    torch.testing.assert_close(together[0], plain, rtol=0, atol=TOLERANCE)
    for (name, directory), served in zip(files.items(), together[1:], strict=True):
        expected = peft_logits(base_dir, directory, PROMPT)[-1]
        if base_dir.name != "llama" or "bias" not in name or "dora" in name:
            assert (expected - plain).abs().max() > 20 * TOLERANCE, f"{name} must change answers"
        torch.testing.assert_close(served, expected, rtol=0, atol=TOLERANCE, msg=lambda m, name=name: f"{name}: {m}")


def test_bits_are_those_of_the_adapter_alone(base: LoadedBase, files: dict[str, Path]) -> None:
    adapters = [packed(base, directory) for directory in files.values()]
    together = serve(base, [*adapters])
    for adapter, logits in zip(adapters, together, strict=True):
        assert torch.equal(serve(base, [adapter])[0], logits)


def test_bytes_are_those_of_the_file(base: LoadedBase, files: dict[str, Path]) -> None:
    # Gains and offsets cover their whole group; only in a model this small do those vectors count.
    for name in ("plain", "head", "embedding", "embedding and head in bfloat16", "own head and embedding"):
        file_bytes = (files[name] / "adapter_model.safetensors").stat().st_size
        assert packed(base, files[name]).nbytes <= file_bytes, name


@pytest.mark.parametrize(("targets", "what"), [(("gate_proj",), "mlp.up_proj"), (("gate_proj", "up_proj"), "equal")])
def test_gains_on_a_shared_input_are_refused_by_name(
    base_dir: Path, base: LoadedBase, tmp_path: Path, targets: tuple[str, ...], what: str
) -> None:
    directory = make_ia3(base_dir, tmp_path, targets=targets, feedforward=targets)
    with pytest.raises(AdapterUnpackable, match=what) as caught:
        packed(base, directory)
    assert "(IA)3" in str(caught.value)


def test_equal_gains_on_a_shared_input_are_served(base_dir: Path, base: LoadedBase, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    targets = ("gate_proj", "up_proj")
    directory = make_ia3(base_dir, tmp_path, targets=targets, feedforward=targets)
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: tensors[n.replace("up_proj", "gate_proj")].clone() for n in tensors}, file, {"format": "pt"})
    expected = peft_logits(base_dir, directory, PROMPT)[-1]
    (served,) = serve(base, [packed(base, directory)])
    torch.testing.assert_close(served, expected, rtol=0, atol=TOLERANCE)


def test_dora_on_the_embedding_is_refused_by_name(base_dir: Path, base: LoadedBase, tmp_path: Path) -> None:
    directory = make_adapter(base_dir, tmp_path, targets=("embed_tokens",), options={"use_dora": True})
    with pytest.raises(AdapterUnpackable, match="DoRA on an embedding"):
        packed(base, directory)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.gate_proj.lora_A.bias", "model.norm.weight", "model.embed_tokens.base_layer.weight"],
)
def test_what_has_no_place_is_an_error(base: LoadedBase, files: dict[str, Path], name: str) -> None:
    tensors = load_file(files["plain"] / "adapter_model.safetensors")
    tensors[f"base_model.model.{name}"] = torch.zeros(64)
    layout = base.resident.layout
    with pytest.raises(AdapterUnpackable):
        pack(host_modules(tensors, layout, CONFIG, 1.0), layout, base.resident)


def test_all_linear_means_all(base: LoadedBase, files: dict[str, Path]) -> None:
    groups = packed(base, files["plain"]).groups
    parts = sum(len(group.factors.parts) for group in groups.values() if group.factors is not None)
    assert parts == len(ALL_LINEAR) * 2
