"""Loads, copies and evictions carried out for real, on a tiny base."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine, output

from switchyard.server.adapters.tiers import AdapterState
from switchyard.server.engine.ports import AdapterTier
from switchyard.server.engine.recipe import Recipe
from switchyard.server.engine.types import ErrorEvent, FinishedEvent
from switchyard.server.errors import AdapterInUse, AdapterUnavailable, Draining
from switchyard.server.model.loading import LoadedBase, load_base

PROMPT = tuple(range(10, 40))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def base_dir(root: Path) -> Path:
    return make_tiny_llama(root / "base")


@pytest.fixture(scope="module")
def base(base_dir: Path) -> LoadedBase:
    return load_base(str(base_dir))


@pytest.fixture(scope="module")
def adapters(root: Path, base_dir: Path) -> list[Path]:
    return [make_adapter(base_dir, root / f"adapter-{seed}", seed=seed) for seed in range(5)]


def test_more_adapters_than_slots_are_served_in_turn_and_right(base: LoadedBase, adapters: list[Path]) -> None:
    expected = []
    for directory in adapters:
        engine = TinyEngine(base)
        expected.append(engine.tokens(PROMPT, engine.adapter(directory)))
    assert len(set(expected)) == len(adapters), "random adapters must answer differently"
    crowded = TinyEngine(base, slots=2)
    sinks = [crowded.submit(PROMPT, crowded.adapter(directory)) for directory in adapters * 2]
    crowded.run()
    assert [output(sink) for sink in sinks] == expected * 2
    crowded.host.check_integrity()
    resident = [s for s in crowded.host.statuses() if s.state is AdapterState.RESIDENT]
    assert len(resident) == 2
    assert all(status.pins == 0 for status in crowded.host.statuses())


def test_room_for_one_adapter_serves_them_all_and_right(base: LoadedBase, adapters: list[Path]) -> None:
    size = (adapters[0] / "adapter_model.safetensors").stat().st_size
    expected = []
    for directory in adapters:
        engine = TinyEngine(base)
        expected.append(engine.tokens(PROMPT, engine.adapter(directory)))
    crowded = TinyEngine(base, host_bytes=size, adapter_bytes=size)
    sinks = [crowded.submit(PROMPT, crowded.adapter(directory)) for directory in adapters]
    crowded.run()
    assert [output(sink) for sink in sinks] == expected
    reads = Counter(crowded.source.reads)
    assert len(reads) == len(adapters) + 1, "each weights file, and the configuration that they share"
    assert set(reads.values()) == {1}, "none is evicted before it was used"
    crowded.host.check_integrity()


def test_an_adapter_larger_than_all_slots_is_refused_by_name(base: LoadedBase, adapters: list[Path]) -> None:
    size = (adapters[0] / "adapter_model.safetensors").stat().st_size
    engine = TinyEngine(base, adapter_bytes=size - 1)
    sink = engine.submit(PROMPT, engine.adapter(adapters[0]))
    engine.run()
    end = sink.events[-1]
    assert isinstance(end, ErrorEvent)
    assert end.error.reason == "ADAPTER_TOO_LARGE"
    assert f"{size} bytes" in str(end.error)
    assert engine.source.reads == []
    assert engine.host.statuses() == []
    engine.host.check_integrity()


def test_what_nobody_waits_for_any_more_takes_no_slot(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    selection = engine.adapter(adapters[0])
    engine.host.prefetch(selection, 0.0)
    while engine.host.tier(selection.key) is not AdapterTier.MEMORY:
        engine.engine.step()
    status = engine.host.status(selection.key)
    assert status is not None
    assert (status.state, status.device_bytes) == (AdapterState.HOST, 0)
    assert not engine.slots.taken


def test_an_adapter_is_read_once_however_many_ask(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    selection = engine.adapter(adapters[0])
    for _ in range(6):
        engine.submit(PROMPT, selection)
    engine.run()
    assert len(engine.source.reads) == 2, "one configuration and one weights file"


def test_merges_hold_up_no_other_load(
    base: LoadedBase, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TinyEngine(base)
    slow, go_on, read = engine.part(adapters[0]).weights_digest, Event(), engine.source.read_ahead

    def held(digest: str, buffer: memoryview) -> AbstractContextManager[None]:
        assert digest != slow or go_on.wait(60)
        return read(digest, buffer)

    monkeypatch.setattr(engine.source, "read_ahead", held)
    merges = [
        engine.submit(PROMPT, engine.composition((adapters[0], 1.0), (other, 0.5), recipe=Recipe("linear")))
        for other in adapters[1:4]
    ]
    plain = engine.submit(PROMPT, engine.adapter(adapters[4]))
    while not plain.events or not isinstance(plain.events[-1], FinishedEvent):
        engine.engine.step()
    assert not any(sink.events for sink in merges)
    go_on.set()
    engine.run()
    assert all(isinstance(sink.events[-1], FinishedEvent) for sink in merges)


def test_a_host_that_closes_ends_merges_before_their_next_module(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    merged = engine.composition((adapters[0], 1.0), (adapters[1], 0.5), recipe=Recipe("linear"))
    engine.loader.load(merged, lambda phase, seconds: None)
    engine.host.close()
    with pytest.raises(Draining):
        engine.loader.load(merged, lambda phase, seconds: None)


def test_host_budget_drops_the_least_recently_used(base: LoadedBase, adapters: list[Path]) -> None:
    size = (adapters[0] / "adapter_model.safetensors").stat().st_size
    engine = TinyEngine(base, slots=1, host_bytes=2 * size)
    for directory in adapters:
        engine.tokens(PROMPT, engine.adapter(directory))
    assert len(engine.host.statuses()) <= 3
    engine.host.check_integrity()


def test_bytes_are_those_of_the_true_rank(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    engine.tokens(PROMPT, engine.adapter(adapters[0]))
    (status,) = engine.host.statuses()
    file_bytes = (adapters[0] / "adapter_model.safetensors").stat().st_size
    assert status.device_bytes <= file_bytes
    assert status.host_bytes <= file_bytes


def test_failed_load_ends_its_requests_and_leaves_nothing(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    bad, good = engine.adapter(adapters[0]), engine.adapter(adapters[1])
    engine.source.broken = {bad.parts[0].weights_digest}
    sinks = [engine.submit(PROMPT, bad), engine.submit(PROMPT, good), engine.submit(PROMPT)]
    engine.run()
    end = sinks[0].events[-1]
    assert isinstance(end, ErrorEvent)
    assert isinstance(end.error, AdapterUnavailable)
    assert (end.error.reason, end.error.cause_reason) == ("ADAPTER_UNAVAILABLE", "BLOB_CORRUPT")
    assert "disk on fire" in str(end.error)
    assert all(isinstance(sink.events[-1], FinishedEvent) for sink in sinks[1:])
    status = engine.host.status(bad.key)
    assert status is not None
    assert (status.state, status.host_bytes, status.device_bytes) == (AdapterState.FAILED, 0, 0)
    assert status.error_reason == "BLOB_CORRUPT"


@pytest.mark.parametrize("name", ["base_model.model.lm_head.weight", "base_model.model.model.norm.lora_A.weight"])
def test_tensor_without_a_place_is_an_error_and_the_base_keeps_its_bytes(
    base: LoadedBase, adapters: list[Path], tmp_path: Path, name: str
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "adapter_config.json").write_bytes((adapters[0] / "adapter_config.json").read_bytes())
    tensors = load_file(adapters[0] / "adapter_model.safetensors")
    save_file({**tensors, name: torch.full((8, 64), float("nan"))}, hostile / "adapter_model.safetensors")
    before = base.fingerprint()
    engine = TinyEngine(base)
    expected = engine.tokens(PROMPT)
    sink = engine.submit(PROMPT, engine.adapter(hostile))
    engine.run()
    end = sink.events[-1]
    assert isinstance(end, ErrorEvent)
    assert "ADAPTER_UNPACKABLE" in str(end.error) or end.error.reason == "ADAPTER_UNPACKABLE"
    assert base.fingerprint() == before
    assert engine.tokens(PROMPT) == expected


def test_unload_frees_every_tier_and_refuses_while_in_use(base: LoadedBase, adapters: list[Path]) -> None:
    engine = TinyEngine(base)
    selection = engine.adapter(adapters[0])
    engine.submit(PROMPT, selection, max_tokens=40)
    while not engine.engine.step().slices:
        pass
    with pytest.raises(AdapterInUse):
        engine.host.unload(selection.key)
    engine.run()
    engine.host.unload(selection.key)
    assert engine.host.statuses() == []
    assert all(not engine.slots.group(index) for index in range(base.resident.layout.group_count))
