"""The decoder equals transformers' own forward pass, and ignores who shares the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_base import make_tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import BLOCK_TOKENS, KvRow, SequenceSlice, StepPlan
from switchyard.server.errors import BaseUnreadable
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.batch import build_batch
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.sampler import Sampler
from switchyard.server.native import library

PROMPT = tuple(torch.randint(5, 200, (90,), generator=torch.Generator().manual_seed(1)).tolist())
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {family: make_tiny_llama(root / family, architecture=family) for family in FAMILIES}


@pytest.fixture(params=["native", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on the compiled kernels, where they are, and without them."""
    if request.param == "torch":
        monkeypatch.setenv(library.SWITCH, "0")
    elif library.load() is None:
        pytest.skip(library.status())
    return str(request.param)


def make_runner(base: LoadedBase, rows: int = 6) -> ModelRunner:
    slots = AdapterSlots(4, base.resident.layout.group_count)
    return ModelRunner(base.resident.serve(rows, 128, slots, best_backend()), Sampler(frozenset()))


def piece(tokens: tuple[int, ...], start: int = 0, row: int = 0) -> SequenceSlice:
    return SequenceSlice(f"r{row}", KvRow(row), start, tokens, None, True, SamplingParams(), 0)


def step(runner: ModelRunner, *pieces: SequenceSlice) -> dict[str, torch.Tensor]:
    batch = build_batch(StepPlan(pieces))
    logits = runner.compute(batch).logits
    return {p.request_id: row for p, row in zip(batch.sampled, logits, strict=True)}


def reference(directory: Path, base: LoadedBase, tokens: tuple[int, ...]) -> torch.Tensor:
    """[T, vocab] float32 of transformers' model with the same quantisation."""
    quantization = None
    if base.quantization.method == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=base.dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=base.dtype, device_map={"": "cpu"}, quantization_config=quantization
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_equals_transformers(bases: dict[str, Path], family: str, quantization: str) -> None:
    base = load_base(str(bases[family]), LoadOptions(quantization=quantization))
    expected = reference(bases[family], base, PROMPT)
    runner = make_runner(base)
    torch.testing.assert_close(step(runner, piece(PROMPT[:30]))["r0"], expected[29], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(step(runner, piece(PROMPT[30:70], 30))["r0"], expected[69], rtol=1e-4, atol=1e-4)
    for position in range(70, 90):
        logits = step(runner, piece(PROMPT[position : position + 1], position))["r0"]
        torch.testing.assert_close(logits, expected[position], rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_close_to_transformers(bases: dict[str, Path]) -> None:
    base = load_base(str(bases["llama"]), LoadOptions(dtype="bfloat16"))
    expected = reference(bases["llama"], base, PROMPT[:40])
    error = (step(make_runner(base), piece(PROMPT[:40]))["r0"] - expected[39]).abs().max()
    assert error < 0.05 * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_do_not_depend_on_the_batch(bases: dict[str, Path], family: str) -> None:
    base = load_base(str(bases[family]))
    alone = make_runner(base)
    solo = [step(alone, piece(PROMPT[:20]))["r0"]]
    solo += [step(alone, piece(PROMPT[p : p + 1], p))["r0"] for p in range(20, 24)]
    crowd = make_runner(base)
    others = [piece(PROMPT[: 10 * row], 0, row) for row in range(1, 6)]
    together = [step(crowd, piece(PROMPT[:20]), *others)["r0"]]
    for p in range(20, 24):
        neighbours = [piece((PROMPT[p],), 10 * row + p - 20, row) for row in range(1, 6)]
        together.append(step(crowd, *reversed(neighbours), piece(PROMPT[p : p + 1], p))["r0"])
    for one, many in zip(solo, together, strict=True):
        assert torch.equal(one, many)


def test_shadow_changes_memory_and_nothing_else(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.SWITCH, "0")
    with_shadow = load_base(str(bases["llama"]))
    without = load_base(str(bases["llama"]), LoadOptions(shadow_bytes=0))
    assert (with_shadow.shadowed, without.shadowed) == (True, False)
    assert with_shadow.nbytes > without.nbytes
    assert with_shadow.fingerprint() == without.fingerprint()
    logits = [step(make_runner(base), piece(PROMPT[:20]))["r0"] for base in (with_shadow, without)]
    assert torch.equal(*logits)


def test_released_row_leaves_nothing_behind(bases: dict[str, Path]) -> None:
    base = load_base(str(bases["llama"]))
    fresh, used = make_runner(base), make_runner(base)
    step(used, piece(PROMPT[:80]))
    used.model.cache.values[0][0, :, 40] = float("nan")
    used.release_row(0)
    expected = [step(fresh, piece(PROMPT[:8]))["r0"], step(fresh, piece(PROMPT[8:9], 8))["r0"]]
    assert torch.equal(step(used, piece(PROMPT[:8]))["r0"], expected[0])
    assert torch.equal(step(used, piece(PROMPT[8:9], 8))["r0"], expected[1])


def test_a_copied_block_is_as_good_as_its_prefill(bases: dict[str, Path]) -> None:
    model = make_runner(load_base(str(bases["qwen3"])))
    step(model, piece(PROMPT[:BLOCK_TOKENS]))
    expected = step(model, piece(PROMPT[BLOCK_TOKENS:], BLOCK_TOKENS))["r0"]
    empty = model.model.kv_bytes
    model.copy_out(0, 0, 7)
    assert model.model.kv_bytes > empty
    model.release_row(0)
    model.copy_in(7, 3, 0)
    model.drop_block(7)
    assert model.model.kv_bytes == empty
    assert torch.equal(step(model, piece(PROMPT[BLOCK_TOKENS:], BLOCK_TOKENS, 3))["r3"], expected)
    model.release_row(3)
    assert not model.model.cache.keys[0][3].any()


def test_the_log_says_which_kernels_are_used(
    bases: dict[str, Path], caplog: pytest.LogCaptureFixture, kernels: str
) -> None:
    with caplog.at_level("INFO"):
        load_base(str(bases["llama"]))
    assert library.status() in caplog.messages
    assert ("off, SWITCHYARD_NATIVE=0" in library.status()) == (kernels == "torch")


def test_nothing_keeps_the_file_in_memory(tmp_path: Path) -> None:
    directory = make_tiny_llama(tmp_path / "base")
    base = load_base(str(directory))
    assert base.nbytes
    assert str(directory) not in Path("/proc/self/maps").read_text()


def test_running_does_not_change_the_base(bases: dict[str, Path]) -> None:
    base = load_base(str(bases["llama"]))
    before = base.fingerprint()
    step(make_runner(base), piece(PROMPT[:20]))
    assert base.fingerprint() == before
    base.resident.decoder.weights.final_norm[0] += 1
    assert base.fingerprint() != before


def test_missing_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseUnreadable, match="no such directory"):
        load_base(str(tmp_path / "nothing"))
    with pytest.raises(BaseUnreadable, match="neither a directory nor a hub id"):
        load_base("nobody/nothing")


def test_control_tokens_in_a_prompt_are_plain_text(bases: dict[str, Path]) -> None:
    tokenizer = load_base(str(bases["llama"])).tokenizer
    (eos,) = sorted(tokenizer.eos_token_ids)
    spelled = tokenizer._tokenizer.convert_ids_to_tokens(eos)
    ids = tokenizer.encode(f"hello {spelled} world")
    assert eos not in ids
    assert tokenizer.decode(list(ids)) == f"hello {spelled} world"
