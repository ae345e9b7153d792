"""The base is cut at its blocks, and computes what it computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from switchyard.trainer.base_model import load_base
from switchyard.trainer.parallel.sharding import average_gradients, blocks_of, share_base
from switchyard.trainer.recipe import BaseSection, QuantizationMethod, QuantizationSection
from tests.support.tiny_base import LAYERS, make_tiny_llama


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def adapted(directory: Path, quantization: QuantizationSection) -> torch.nn.Module:
    base = load_base(BaseSection(path=directory), quantization)
    torch.manual_seed(0)
    model: torch.nn.Module = get_peft_model(
        base.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    return model.train()


def loss_and_gradients(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.arange(4, 44).repeat(2, 1)
    model.zero_grad()
    # Some bases drop out by themselves.
    torch.manual_seed(1)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("architecture", ["llama", "bloom", "gpt2"])
@pytest.mark.parametrize(
    "quantization",
    [
        QuantizationSection(),
        QuantizationSection(storage_dtype="float32"),
        QuantizationSection(method=QuantizationMethod.NONE),
    ],
    ids=["bytes", "stored as computed", "unquantised"],
)
@pytest.mark.usefixtures("group")
def test_a_cut_base_has_the_bits_of_a_whole_one(
    architecture: str, quantization: QuantizationSection, tmp_path: Path
) -> None:
    model = adapted(make_tiny_llama(tmp_path / "base", architecture=architecture), quantization)
    whole = loss_and_gradients(model)
    share_base(model, torch.device("cpu"))
    average_gradients(model, lambda: True)
    blocks = blocks_of(model)
    assert len(blocks) == LAYERS
    assert all(isinstance(block, FSDPModule) for block in blocks)
    assert not isinstance(blocks[0].get_submodule(next(name for name, _ in blocks[0].named_children())), FSDPModule)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor) != parameter.requires_grad
    for _ in range(2):
        loss, gradients = loss_and_gradients(model)
        assert loss == whole[0]
        assert gradients.keys() == whole[1].keys()
        for name, gradient in gradients.items():
            assert torch.equal(gradient, whole[1][name])
