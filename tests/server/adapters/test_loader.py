"""Bytes are packed while they are verified: the result is that of verified bytes, or there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama
from tiny_engine import SystemClock

from switchyard.registry.base_model import describe_base
from switchyard.registry.errors import BlobCorrupt
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_config import parse_adapter_config
from switchyard.server.adapters.arena import Arena, Scratch, Spare, room_of
from switchyard.server.adapters.composition import composed, single
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.packing import HostAdapter, pack
from switchyard.server.adapters.reading import host_modules
from switchyard.server.engine.types import AdapterPart, Digest
from switchyard.server.model.loading import LoadedBase, load_base

RANKS = (8, 2, 16, 8)


class Shelf:
    """Adapters of several sizes in a registry, and a loader on it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        base_dir = make_tiny_llama(root / "base")
        self.base: LoadedBase = load_base(str(base_dir))
        self.registry = Registry.open(root / "registry")
        spec = self.registry.register_base(describe_base(base_dir))
        self.directories = [
            make_adapter(base_dir, root / f"a{seed}", seed=seed, rank=rank, dtype=torch.bfloat16)
            for seed, rank in enumerate(RANKS)
        ]
        self.parts = [self._published(directory, spec.digest) for directory in self.directories]

    def _published(self, directory: Path, base_digest: str) -> AdapterPart:
        name = AdapterName.parse(directory.name)
        version = self.registry.publish(name, directory, base_digest=base_digest, publisher="ann").version
        weights, config = version.file("adapter_model.safetensors"), version.file("adapter_config.json")
        return AdapterPart(
            "default", directory.name, 1, Digest(version.digest), "", 0, 1.0, 8, weights.digest, config.digest,
            weights.size_bytes,
        )  # fmt: skip

    def loader(self) -> AdapterLoader:
        return AdapterLoader(self.registry, self.base.resident.layout, self.base.resident, SystemClock())

    def oracle(self, index: int) -> HostAdapter:
        """The same through safetensors' own reader, in memory of its own."""
        config = parse_adapter_config((self.directories[index] / "adapter_config.json").read_bytes())
        tensors = load_file(self.directories[index] / "adapter_model.safetensors")
        layout = self.base.resident.layout
        return pack(host_modules(tensors, layout, config, 1.0), layout, self.base.resident)

    def blob(self, index: int) -> Path:
        return self._root / "registry" / "blobs" / "sha256" / self.parts[index].weights_digest[7:]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("loader"))


def ignore(phase: str, seconds: float) -> None:
    del phase, seconds


def assert_same_bits(found: HostAdapter, expected: HostAdapter) -> None:
    assert found.groups.keys() == expected.groups.keys()
    for index, group in expected.groups.items():
        pairs = list(zip(found.groups[index].tensors(), group.tensors(), strict=True))
        assert pairs
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def test_memory_that_is_used_again_leaves_what_was_loaded_alone(shelf: Shelf) -> None:
    loader = shelf.loader()
    loaded = []
    for index in (0, 1, 2, 3, 0, 1):
        loaded.append((index, loader.load(single(shelf.parts[index]), ignore)))
        loader.restock()
    for index, adapter in loaded:
        assert_same_bits(adapter, shelf.oracle(index))


def test_threads_have_memory_of_their_own(shelf: Shelf) -> None:
    loader = shelf.loader()

    def load(index: int) -> HostAdapter:
        adapter = loader.load(single(shelf.parts[index]), ignore)
        loader.restock()
        return adapter

    order = list(range(len(RANKS))) * 4
    with ThreadPoolExecutor(3) as threads:
        for index, adapter in zip(order, threads.map(load, order), strict=True):
            assert_same_bits(adapter, shelf.oracle(index))


def test_an_adapter_takes_the_bytes_of_its_file(shelf: Shelf) -> None:
    for index, part in enumerate(shelf.parts):
        adapter = shelf.loader().load(single(part), ignore)
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for group in adapter.groups.values()
            for tensor in group.tensors()
        }
        assert len(storages) == 1, "one piece of memory"
        assert sum(storages.values()) <= 1.05 * part.weights_bytes
        assert adapter.nbytes == sum(
            t.nbytes for t in load_file(shelf.directories[index] / "adapter_model.safetensors").values()
        )


@pytest.mark.parametrize("spoil", ["header", "values", "names", "cut", "longer"])
def test_bytes_that_changed_give_no_adapter(spoil: str, shelf: Shelf) -> None:
    loader, path = shelf.loader(), shelf.blob(2)
    content = path.read_bytes()
    spoiled = {
        "header": bytes([content[0] ^ 255]) + content[1:],
        "values": content[:-1] + bytes([content[-1] ^ 1]),
        "names": content.replace(b"layers.0.", b"layers.7.", 1),
        "cut": content[:-4],
        "longer": content + b"tail",
    }[spoil]
    assert spoiled != content
    path.chmod(0o644)
    path.write_bytes(spoiled)
    try:
        with pytest.raises(BlobCorrupt, match="publish the same bytes again"):
            loader.load(single(shelf.parts[2]), ignore)
        with pytest.raises(BlobCorrupt, match="publish the same bytes again"):
            loader.load(composed([shelf.parts[0], shelf.parts[2]]), ignore)
    finally:
        path.write_bytes(content)
    assert_same_bits(loader.load(single(shelf.parts[2]), ignore), shelf.oracle(2))


def test_tensors_of_an_arena_do_not_overlap() -> None:
    shapes = [(3, 5), (1, 1), (7,), (64, 2)]
    arena = Arena(torch.empty(sum(room_of(2 * torch.Size(shape).numel()) for shape in shapes), dtype=torch.uint8))
    tensors = [arena.empty(shape, torch.bfloat16).fill_(index) for index, shape in enumerate(shapes)]
    assert all(torch.equal(t, torch.full_like(t, index)) for index, t in enumerate(tensors))
    with pytest.raises(RuntimeError):
        arena.empty((1,), torch.float32)


def test_a_spare_is_given_once_and_only_to_its_size() -> None:
    spare = Spare()
    first = spare.take(6400).empty((6400,), torch.uint8)
    spare.restock()
    smaller = spare.take(6000).empty((6000,), torch.uint8)
    assert smaller.untyped_storage().nbytes() == 6000
    close = spare.take(6350).empty((6350,), torch.uint8)
    assert close.untyped_storage().nbytes() == 6400
    again = spare.take(6350).empty((6350,), torch.uint8)
    assert len({t.untyped_storage().data_ptr() for t in (first, smaller, close, again)}) == 4


def test_scratch_is_kept_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.server.adapters.arena._KEPT_BYTES", 100)
    scratch = Scratch()
    kept = scratch.take(100)
    assert scratch.take(50).data_ptr() == kept.data_ptr()
    assert len(scratch.take(1000)) == 1000
    assert scratch.take(100).data_ptr() == kept.data_ptr()
