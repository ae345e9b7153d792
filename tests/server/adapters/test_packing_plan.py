"""A file packed by the plan of another has the bits of a file packed without; what is not only moved has no plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_adapter import ALL_LINEAR, make_adapter
from tiny_base import make_tiny_llama

from switchyard.registry.validation.adapter_config import AdapterConfig, parse_adapter_config
from switchyard.server.adapters.arena import Spare
from switchyard.server.adapters.packing import HostAdapter, pack, pack_and_learn, repack
from switchyard.server.adapters.packing_plan import PackingPlan
from switchyard.server.adapters.reading import HostModule, host_modules, tensors_of
from switchyard.server.adapters.recent import Recent
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.native import library

native = pytest.mark.skipif(library.load() is None, reason=library.status())


@dataclass(frozen=True)
class File:
    """One adapter's weights and configuration in memory."""

    content: torch.Tensor
    config: AdapterConfig

    @classmethod
    def read(cls, directory: Path) -> File:
        content = bytearray((directory / "adapter_model.safetensors").read_bytes())
        config = parse_adapter_config((directory / "adapter_config.json").read_bytes())
        return cls(torch.frombuffer(content, dtype=torch.uint8), config)

    def modules(self, base: LoadedBase) -> list[HostModule]:
        return list(host_modules(tensors_of(self.content), base.resident.layout, self.config, 1.0))

    def packed(self, base: LoadedBase) -> HostAdapter:
        return pack(self.modules(base), base.resident.layout, base.resident)

    def learned(self, base: LoadedBase) -> tuple[HostAdapter, PackingPlan | None]:
        layout = base.resident.layout
        return pack_and_learn(self.modules(base), layout, base.resident, Spare(), self.content)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("plan") / "base")


@pytest.fixture(scope="module")
def base(base_dir: Path) -> LoadedBase:
    return load_base(str(base_dir))


def assert_same(found: HostAdapter, expected: HostAdapter) -> None:
    """Same tensors, same places in the groups, and the same for the native kernel."""
    assert found.groups.keys() == expected.groups.keys()
    for index, group in expected.groups.items():
        mine = found.groups[index]
        for one, other in zip(mine.tensors(), group.tensors(), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
            assert one.is_contiguous()
        assert mine.factors is not None
        assert group.factors is not None
        places = [
            [(p.rank_start, p.rank_stop, p.out_start, p.out_stop, p.scale) for p in one.factors.parts]
            for one in (mine, group)
            if one.factors is not None
        ]
        assert places[0] == places[1]
        assert mine.record.a == mine.factors.a.data_ptr()
        assert [mine.record.parts[i].b_t for i in range(len(places[0]))] == [
            part.b_t.data_ptr() for part in mine.factors.parts
        ]


@native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2, "down_proj": 5}, "alpha_pattern": {"o_proj": 3}},
        {"layers_to_transform": [1]},
    ],
    ids=["plain", "patterns", "one layer"],
)
def test_a_plan_gives_the_bits_of_packing(
    dtype: torch.dtype, options: dict[str, object], base: LoadedBase, base_dir: Path, tmp_path: Path
) -> None:
    files = [
        File.read(make_adapter(base_dir, tmp_path / f"a{seed}", seed=seed, dtype=dtype, options=options))
        for seed in range(3)
    ]
    adapter, plan = files[0].learned(base)
    assert plan is not None
    assert_same(adapter, files[0].packed(base))
    spare, made = Spare(), []
    for file in files[1:]:
        made.append(repack(plan, file.content, spare))
        spare.restock()
    for file, found in zip(files[1:], made, strict=True):
        assert_same(found, file.packed(base))
    assert_same(adapter, files[0].packed(base))


@native
def test_embeddings_have_plans_too(base: LoadedBase, base_dir: Path, tmp_path: Path) -> None:
    first, second = (
        File.read(make_adapter(base_dir, tmp_path / f"e{seed}", seed=seed, targets=(*ALL_LINEAR, "embed_tokens")))
        for seed in range(2)
    )
    plan = first.learned(base)[1]
    assert plan is not None
    assert_same(repack(plan, second.content, Spare()), second.packed(base))


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["dora", "modules_to_save"],
)
def test_what_depends_on_the_numbers_has_no_plan(
    options: dict[str, object], base: LoadedBase, base_dir: Path, tmp_path: Path
) -> None:
    file = File.read(make_adapter(base_dir, tmp_path / "a", options=options))
    assert file.learned(base)[1] is None


def test_a_conversion_has_no_plan(base: LoadedBase, base_dir: Path, tmp_path: Path) -> None:
    file = File.read(make_adapter(base_dir, tmp_path / "a"))
    modules = file.modules(base)
    first = modules[0]
    assert first.a is not None
    narrow = HostModule(first.path, first.place, first.a.bfloat16(), first.b, first.scaling)
    layout = base.resident.layout
    assert pack_and_learn([narrow, *modules[1:]], layout, base.resident, Spare(), file.content)[1] is None


def test_what_is_used_is_kept_and_the_rest_goes() -> None:
    recent = Recent[str, int](2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.put("a", 4)
    assert recent.get("a") == 4
