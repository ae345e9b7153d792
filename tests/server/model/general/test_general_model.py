"""The general path equals transformers' own forward pass, and ignores who shares the step and how it was cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_base import make_tiny_llama
from transformers import AutoModelForCausalLM

from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.engine.types import BLOCK_TOKENS, KvRow, SamplingParams, SequenceSlice, StepPlan
from switchyard.server.errors import ArchitectureUnsupported, BaseUnreadable
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.batch import build_batch
from switchyard.server.model.general.model import GeneralModel, pieces
from switchyard.server.model.loading import LoadedBase, LoadOptions, ModelPath, load_base
from switchyard.server.model.quantization import Quantization

PROMPT = tuple(torch.randint(5, 200, (150,), generator=torch.Generator().manual_seed(1)).tolist())
FAMILIES = ("bloom", "gpt2", "gpt_neox", "opt", "gemma", "gemma2", "phi", "phi3", "mixtral")
WINDOWED = {"gemma2", "phi3"}


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("general")

    def make(family: str) -> Path:
        return root / family if (root / family).is_dir() else make_tiny_llama(root / family, architecture=family)

    return make


def serve(base: LoadedBase) -> GeneralModel:
    slots = AdapterSlots(2, base.resident.layout.group_count)
    model = base.step_model(6, slots, best_backend())
    assert isinstance(model, GeneralModel)
    return model


def piece(stop: int, start: int = 0, row: int = 0, prompt: tuple[int, ...] = PROMPT[:100]) -> SequenceSlice:
    tokens = PROMPT[start:stop]
    return SequenceSlice(f"r{row}", KvRow(row), start, tokens, None, True, SamplingParams(), 0, prompt)


def step(model: GeneralModel, *slices: SequenceSlice) -> dict[str, torch.Tensor]:
    batch = build_batch(StepPlan(slices))
    logits = model.compute(batch).logits
    assert logits.dtype == torch.float32
    return {s.request_id: row for s, row in zip(batch.sampled, logits, strict=True)}


def reference(directory: Path, base: LoadedBase) -> torch.Tensor:
    """[150, vocab] float32 of transformers' untouched model, no cache, with the same quantisation."""
    quantization = Quantization(base.quantization, stored=False).transformers_config(base.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=base.dtype, device_map={"": "cpu"}, quantization_config=quantization
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(torch.tensor([PROMPT]), use_cache=False).logits[0].float()
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_equals_transformers(base_dir: Callable[[str], Path], family: str, quantization: str) -> None:
    base = load_base(str(base_dir(family)), LoadOptions(quantization=quantization))
    expected = reference(base_dir(family), base)
    model = serve(base)
    # Beyond the window of those that have one, and across the border of a block.
    served = [step(model, piece(100))["r0"], step(model, piece(140, 100))["r0"], step(model, piece(141, 140))["r0"]]
    torch.testing.assert_close(torch.stack(served), expected[[99, 139, 140]], rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.3


def test_the_fast_path_and_the_general_path_are_one_model(base_dir: Callable[[str], Path]) -> None:
    general = load_base(str(base_dir("qwen3")), LoadOptions(path=ModelPath.GENERAL))
    fast = load_base(str(base_dir("qwen3")), LoadOptions(path=ModelPath.FAST))
    assert general.quantization_label == fast.quantization_label
    assert set(fast.resident.layout.places) <= set(general.resident.layout.places)
    batch = build_batch(StepPlan((piece(100),)))
    slots = AdapterSlots(2, fast.resident.layout.group_count)
    served = fast.step_model(6, slots, best_backend()).compute(batch).logits
    torch.testing.assert_close(serve(general).compute(batch).logits, served, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bloom", "gemma2"])
def test_bits_depend_on_nothing_but_the_sequence(base_dir: Callable[[str], Path], family: str) -> None:
    base = load_base(str(base_dir(family)))
    alone = serve(base)
    expected = [step(alone, piece(100))["r0"], *(step(alone, piece(p + 1, p))["r0"] for p in range(100, 104))]
    crowd = serve(base)
    step(crowd, piece(70, 0, 3), piece(BLOCK_TOKENS, 0), piece(5, 0, 1))
    together = [step(crowd, piece(71, 70, 3), piece(100, BLOCK_TOKENS), piece(9, 5, 1))["r0"]]
    together += [step(crowd, piece(p - 28, p - 29, 3), piece(p + 1, p))["r0"] for p in range(100, 104)]
    assert all(torch.equal(a, b) for a, b in zip(expected, together, strict=True))
    # After preemption: everything again, prompt and answer in one slice.
    crowd.release_row(0)
    assert torch.equal(step(crowd, piece(104))["r0"], expected[-1])


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_a_copied_block_is_as_good_as_its_prefill(base_dir: Callable[[str], Path], family: str) -> None:
    model = serve(load_base(str(base_dir(family))))
    expected = step(model, piece(100))["r0"]
    before = model.kv_bytes
    model.copy_out(0, 0, 7)
    assert model.kv_bytes > before
    model.release_row(0)
    model.copy_in(7, 3, 0)
    assert torch.equal(step(model, piece(100, BLOCK_TOKENS, 3))["r3"], expected)
    model.drop_block(7)
    model.release_row(3)
    assert model.kv_bytes == 0


def test_a_row_that_holds_something_else_is_a_bug(base_dir: Callable[[str], Path]) -> None:
    model = serve(load_base(str(base_dir("gpt2"))))
    step(model, piece(10))
    with pytest.raises(RuntimeError, match="holds 10 tokens, and the step begins at 20"):
        step(model, piece(30, 20))


def test_slices_are_cut_where_it_does_not_matter_who_cut_them_before() -> None:
    assert list(pieces(0, 150, 150)) == [(0, 64), (64, 128), (128, 150)]
    assert list(pieces(64, 86, 150)) == [(0, 64), (64, 86)]
    assert list(pieces(0, 67, 65)) == [(0, 64), (64, 65), (65, 66), (66, 67)]
    assert list(pieces(70, 2, 30)) == [(0, 1), (1, 2)]


def test_int8_is_what_transformers_computes(base_dir: Callable[[str], Path]) -> None:
    """In one piece; the columns that stay in 16 bits are chosen by the rows of a call, so pieces round elsewhere."""
    base = load_base(str(base_dir("llama")), LoadOptions(quantization="int8"))
    assert base.quantization_label == "int8/float32"
    expected = reference(base_dir("llama"), base)
    model = serve(base)
    whole = step(model, piece(60, 0, 0, PROMPT[:60]))["r0"]
    model._wrapped.current.choose(None)
    with torch.inference_mode():
        again = model._wrapped.model(torch.tensor([PROMPT]), use_cache=False).logits[0]
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)
    assert (whole - expected[59]).abs().max() < 0.05 * expected.std()
    with pytest.raises(ArchitectureUnsupported, match="a row's product in int8"):
        load_base(str(base_dir("llama")), LoadOptions(quantization="int8", path=ModelPath.FAST))


def test_bytes_and_fingerprint_count_shared_weights_once(base_dir: Callable[[str], Path]) -> None:
    base = load_base(str(base_dir("bloom")), LoadOptions(quantization="none"))
    file_bytes = (base_dir("bloom") / "model.safetensors").stat().st_size
    assert abs(base.nbytes - file_bytes) < 0.02 * file_bytes
    before = base.fingerprint()
    step(serve(base), piece(20))
    assert base.fingerprint() == before
    base.resident.wrapped.model.transformer.ln_f.base.weight[0] += 1
    assert base.fingerprint() != before


@pytest.mark.parametrize(
    ("family", "reason"),
    [("mamba", "MambaForCausalLM keeps a running state"), ("openai-gpt", "0 of 6 tokens were cached")],
)
def test_what_cannot_be_exact_is_refused_by_name(base_dir: Callable[[str], Path], family: str, reason: str) -> None:
    with pytest.raises(ArchitectureUnsupported, match=reason):
        load_base(str(base_dir(family)))


def test_other_architectures_and_false_labels_are_refused(base_dir: Callable[[str], Path], tmp_path: Path) -> None:
    for file in base_dir("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("LlamaForCausalLM", "LlamaForSequenceClassification"))
    with pytest.raises(ArchitectureUnsupported, match="LlamaForSequenceClassification is not one"):
        load_base(str(tmp_path))
    with pytest.raises(ArchitectureUnsupported, match="BloomForCausalLM is none of Llama"):
        load_base(str(base_dir("bloom")), LoadOptions(path=ModelPath.FAST))
    # transformers does not quantise Falcon's own kind of linear layer, and says so in a warning only.
    with pytest.raises(BaseUnreadable, match="0 layers of FalconForCausalLM"):
        load_base(str(base_dir("falcon")))
    assert (
        "transformer.h.0.mlp.dense_h_to_4h"
        in load_base(str(base_dir("falcon")), LoadOptions(quantization="none")).resident.layout.places
    )
