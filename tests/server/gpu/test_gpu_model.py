"""The model on KV pages and Triton kernels gives the logits of the CPU's, eager and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_cases import make_adapter
from tiny_base import make_tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from switchyard.server.adapters.packing import HostAdapter
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import BLOCK_TOKENS, KvRow, SequenceSlice, StepPlan
from switchyard.server.gpu.dispatch import Choice, DispatchTable, Shape, Tile, Way
from switchyard.server.gpu.graphs import NoCapture, Work
from switchyard.server.lora.by_segment import add_by_segment
from switchyard.server.lora.factors import GroupAdapter
from switchyard.server.lora.on_gpu import LoraBounds
from switchyard.server.model.batch import build_batch
from switchyard.server.model.decoder import GROUPS_PER_LAYER
from switchyard.server.model.fast_model import FastModel
from switchyard.server.model.gpu_linear import GpuNf4Linear
from switchyard.server.model.gpu_model import GpuModel, GpuOptions
from switchyard.server.model.llama_family import LlamaFamily, take_weights
from switchyard.server.model.paged_kv import PagedKv

CONTEXT, ROWS = 192, 4
TOKENS = torch.randint(5, 200, (3, CONTEXT), generator=torch.Generator().manual_seed(2)).tolist()
BOUNDS = LoraBounds(rows=300, stacked_rank=32, parts=3, widest_input=256)
WIDE = Tile(128, 128, 128)


class CountedReplays(NoCapture):
    """Captures nothing, and counts what would be replayed."""

    def __init__(self, bytes_each: int = 0) -> None:
        self.replays = 0
        self._bytes_each, self._spent_bytes = bytes_each, 0

    def __call__(self, work: Work) -> Work:
        work()
        self._spent_bytes += self._bytes_each

        def again() -> None:
            self.replays += 1
            work()

        return again

    def spent_bytes(self) -> int:
        return self._spent_bytes


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaFamily, LlamaFamily]:
    """One base, as the CPU holds it and with its weights in bitsandbytes' memory."""
    directory = make_tiny_llama(tmp_path_factory.mktemp("base") / "qwen3", architecture="qwen3")
    return take(directory), take(directory, on_gpu=True)


def take(directory: Path, *, on_gpu: bool = False) -> LlamaFamily:
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=quantization
    )
    if not on_gpu:
        return take_weights(model, torch.float32, shadow=False)
    table = DispatchTable(measured={shape: [(512, Choice(Way.TRITON, WIDE))] for shape in SHAPES})
    return take_weights(model, torch.float32, shadow=False, fuse=lambda layers: GpuNf4Linear(layers, None, table))


SHAPES = [Shape(128, 64), Shape(64, 64), Shape(256, 64), Shape(64, 128)]


def slots_with_adapters() -> AdapterSlots:
    """Two adapters of plain factors, and one with gains that no graph can hold."""
    slots = AdapterSlots(3, 2 * GROUPS_PER_LAYER + 2)
    widths = {0: (64, 32, 32), 1: (64,), 2: (128, 128), 3: (64,)}
    for slot in range(3):
        groups: dict[int, GroupAdapter] = {}
        for group in range(2 * GROUPS_PER_LAYER):
            own = widths[group % GROUPS_PER_LAYER]
            inputs = 128 if group % GROUPS_PER_LAYER == 3 else 64
            ranks = tuple((slot + 2 + place) for place in range(len(own)))
            adapter = make_adapter(
                31 * slot + group, ranks, widths=own, in_features=inputs, gained=slot == 2 and group == 0
            )
            groups[group] = shrunk(adapter)
        slots.write(slot, HostAdapter(groups))
    return slots


def shrunk(adapter: GroupAdapter) -> GroupAdapter:
    """The same with small factors, so that logits stay in reach of a tolerance."""
    for tensor in adapter.tensors():
        tensor.mul_(0.1)
    return adapter


def models(
    families: tuple[LlamaFamily, LlamaFamily], buckets: tuple[int, ...] = (), capture: CountedReplays | None = None
) -> tuple[FastModel, GpuModel]:
    slots = slots_with_adapters()
    exact = families[0].serve(ROWS, CONTEXT, slots, add_by_segment)
    shape = families[1].decoder.shape
    sizes = (2, ROWS, shape.kv_heads, CONTEXT, shape.head_dim)
    kv = PagedKv(*sizes, page_count=12, dtype=torch.float32, device=torch.device("cpu"), poison=True)
    options = GpuOptions(torch.float32, BOUNDS, buckets, graph_bytes=100)
    return exact, GpuModel(families[1].decoder, kv, slots, options, capture or CountedReplays())


def piece(row: int, start: int, stop: int, slot: int | None) -> SequenceSlice:
    tokens = tuple(TOKENS[row][start:stop])
    return SequenceSlice(f"r{row}", KvRow(row), start, tokens, slot, True, SamplingParams(), 0)


def both(found: tuple[FastModel, GpuModel], *pieces: SequenceSlice) -> torch.Tensor:
    """Runs a step on both; they must agree."""
    batch = build_batch(StepPlan(pieces))
    exact, logits = (model.compute(batch).logits for model in found)
    torch.testing.assert_close(logits, exact, rtol=1e-4, atol=1e-3)
    return logits


@pytest.mark.slow
def test_prompts_in_chunks_and_mixed_decode_steps_equal_the_cpu(
    families: tuple[LlamaFamily, LlamaFamily],
) -> None:
    capture = CountedReplays()
    pair = models(families, (1, 4), capture)
    both(pair, piece(0, 0, 70, 0), piece(1, 0, 3, None))
    both(pair, piece(0, 70, 72, 0), piece(1, 3, 4, None), piece(2, 0, 5, 1))
    assert capture.replays == 0
    both(pair, piece(0, 72, 73, 0), piece(1, 4, 5, None), piece(2, 5, 6, 1))
    both(pair, piece(1, 5, 6, None))
    assert capture.replays == 2
    # Input gains are not for the kernels.
    both(pair, piece(1, 6, 7, 2), piece(0, 73, 74, 0))
    assert capture.replays == 2


def test_a_shared_prefix_gives_the_logits_of_its_own_prompt(families: tuple[LlamaFamily, LlamaFamily]) -> None:
    _, model = models(families)
    whole = model.compute(build_batch(StepPlan((piece(0, 0, 66, 1),)))).logits
    model.copy_out(0, 0, 5)
    model.release_row(0)
    model.copy_in(5, 0, 0)
    again = model.compute(build_batch(StepPlan((piece(0, BLOCK_TOKENS, 66, 1),)))).logits
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-4)
    model.release_row(0)
    model.drop_block(5)
    assert model.kv.free_pages == model.kv.page_count


def test_captures_stop_where_their_memory_ends(families: tuple[LlamaFamily, LlamaFamily]) -> None:
    capture = CountedReplays(bytes_each=50)
    pair = models(families, (1, 2), capture)
    assert pair[1].graphs.captured == ((1, False), (1, True))
    assert pair[1].graphs.left_out == [(2, False), (2, True)]
    both(pair, piece(0, 0, 1, 0), piece(1, 0, 1, None))
    assert capture.replays == 0
    both(pair, piece(0, 1, 2, 0))
    assert capture.replays == 1
