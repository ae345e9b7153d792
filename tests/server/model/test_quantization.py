"""Weights are held as asked, or as a quantised checkpoint already has them; conflicts are errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_base import make_byte_tokenizer, make_tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig

from switchyard.registry.base_model import describe_base
from switchyard.registry.errors import BaseRefused
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import KvRow, SequenceSlice, StepPlan
from switchyard.server.errors import BaseUnreadable
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.batch import build_batch
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.quantization import choose_quantization

PROMPT = tuple(range(5, 45))


def store(base: Path, directory: Path, *, double: bool, kind: str = "nf4") -> Path:
    """A checkpoint in 4 bits, as transformers saves it."""
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(base, device_map={"": "cpu"}, quantization_config=config)
    model.save_pretrained(directory)
    make_byte_tokenizer().save_pretrained(directory)
    return directory


def logits(base: LoadedBase) -> torch.Tensor:
    slots = AdapterSlots(1, base.resident.layout.group_count)
    piece = SequenceSlice("r", KvRow(0), 0, PROMPT, None, True, SamplingParams(), 0, PROMPT)
    return base.step_model(1, slots, best_backend()).compute(build_batch(StepPlan((piece,)))).logits


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_stored_base_is_the_base_that_was_stored(family: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base", architecture=family)
    double = store(base, tmp_path / "double", double=True)
    assert dict(describe_base(double).modules) == dict(describe_base(base).modules)
    assert describe_base(double).digest != describe_base(base).digest
    loaded = load_base(str(double))
    assert loaded.quantization_label == "nf4+double/float32"
    assert torch.equal(logits(loaded), logits(load_base(str(base))))
    single = load_base(str(store(base, tmp_path / "single", double=False)))
    assert single.quantization_label == "nf4/float32"
    assert not torch.equal(logits(single), logits(loaded))
    with pytest.raises(BaseUnreadable, match="hold the weights as nf4, and int8 was asked for"):
        load_base(str(double), LoadOptions(quantization="int8"))


def test_fp4_is_refused_by_name(tmp_path: Path) -> None:
    stored = store(make_tiny_llama(tmp_path / "base"), tmp_path / "fp4", double=True, kind="fp4")
    assert json.loads((stored / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"] == "fp4"
    with pytest.raises(BaseRefused, match="not by bitsandbytes in nf4"):
        load_base(str(stored))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"quant_method": "gptq"}, "as gptq, which is not served"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "as fp4, which is not served"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "as int8, which is not served"),
    ],
)
def test_other_methods_are_refused_by_name(stored: dict[str, object], message: str) -> None:
    with pytest.raises(BaseUnreadable, match=message):
        choose_quantization(PreTrainedConfig(quantization_config=stored), "auto")
    with pytest.raises(BaseUnreadable, match="'int4' is not supported; use one of auto, nf4, int8, none"):
        choose_quantization(PreTrainedConfig(), "int4")
