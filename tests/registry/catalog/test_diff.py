"""What a comparison of two versions says, against the products that it never multiplies out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from handmade import MODULES, ManualClock, Tensor, bfloat16, lora_config, lora_tensors, tensor, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.diff import FieldChange, ModuleDiff, changes
from switchyard.registry.catalog.weight_delta import Factors, cosine, effective_rank, norm_of
from switchyard.registry.errors import VersionDeleted, VersionNotFound
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage, Metric, QuantizationSpec
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

Array = npt.NDArray[np.float64]
KEY = "base_model.model.{}.lora_{}.weight"


def delta(tensors: Mapping[str, Tensor], module: str, scaling: float) -> Array:
    """The update, multiplied out."""
    a, b = (read(tensors[KEY.format(module, factor)]) for factor in "AB")
    return scaling * (b @ a)


def read(content: Tensor) -> Array:
    dtype, shape, data = content
    if dtype == "BF16":
        wide = np.zeros((len(data) // 2, 2), dtype="<u2")
        wide[:, 1] = np.frombuffer(data, "<u2")
        return wide.reshape(-1).view("<f4").astype(np.float64).reshape(shape)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64).reshape(shape)


def oracle(one: Array, other: Array) -> tuple[float, float, float, float, float]:
    def rank(matrix: Array) -> float:
        values = np.linalg.svd(matrix, compute_uv=False)
        shares = values / values.sum()
        return math.exp(-sum(share * math.log(share) for share in shares if share > 0))

    norms = float(np.sqrt((one**2).sum())), float(np.sqrt((other**2).sum()))
    return (*norms, rank(one), rank(other), float((one * other).sum()) / norms[0] / norms[1])


def figures(module: ModuleDiff) -> tuple[float, float, float, float, float]:
    return (module.norm_a, module.norm_b, module.rank_a, module.rank_b, module.cosine)


@pytest.fixture
def publish(registry: Registry, base: BaseModelSpec, name: AdapterName, tmp_path: Path) -> Callable[..., AdapterRef]:
    def call(tensors: Mapping[str, Tensor], lineage: Lineage | None = None, **config: Any) -> AdapterRef:
        source = write_adapter(tmp_path / "adapter", tensors=tensors, config=lora_config(**config))
        done = registry.publish(name, source, base_digest=base.digest, publisher="ann", lineage=lineage)
        assert done.version is not None
        return AdapterRef(name.namespace, name.adapter, version=done.version.version)

    return call


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_modules_are_as_the_products_say(dtype: str, registry: Registry, publish: Callable[..., AdapterRef]) -> None:
    first, second = lora_tensors(rank=8, seed=1), lora_tensors(rank=4, seed=2)
    if dtype != "F32":
        cut = {"F16": lambda array: tensor(array.astype(np.float16)), "BF16": bfloat16}[dtype]
        second = {name: cut(read(content).astype(np.float32)) for name, content in second.items()}
    a = publish(first, r=8, lora_alpha=16)
    b = publish(second, r=4, lora_alpha=32, use_rslora=True)
    found = registry.diff.compare(a, b)
    assert [module.module for module in found.modules] == sorted(
        module for module in MODULES if module.endswith(("q_proj", "v_proj"))
    )
    for module in found.modules:
        expected = oracle(delta(first, module.module, 16 / 8), delta(second, module.module, 32 / math.sqrt(4)))
        assert figures(module) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_version_and_itself(registry: Registry, publish: Callable[..., AdapterRef]) -> None:
    ref = publish(lora_tensors(seed=1))
    found = registry.diff.compare(ref, ref)
    assert (found.config, found.lineage) == ((), ())
    for module in found.modules:
        assert module.cosine == pytest.approx(1)
        assert (module.norm_a, module.rank_a) == (module.norm_b, module.rank_b)
        assert 1 < module.rank_a <= 8


def test_modules_of_one_version_only(registry: Registry, publish: Callable[..., AdapterRef]) -> None:
    a = publish(lora_tensors(targets=("q_proj",)), target_modules=["q_proj"])
    b = publish(lora_tensors(targets=("o_proj",)), target_modules=["o_proj"])
    found = {module.module.rpartition(".")[2]: module for module in registry.diff.compare(a, b).modules}
    assert (found["q_proj"].norm_b, found["q_proj"].rank_b, found["q_proj"].cosine) == (0, 0, 0)
    assert (found["o_proj"].norm_a, found["o_proj"].rank_a, found["o_proj"].cosine) == (0, 0, 0)
    assert found["q_proj"].norm_a > 0
    assert found["o_proj"].norm_b > 0


def test_an_update_that_does_nothing(registry: Registry, publish: Callable[..., AdapterRef]) -> None:
    zero = {
        name: (dtype, shape, bytes(len(data)) if "lora_B" in name else data)
        for name, (dtype, shape, data) in lora_tensors().items()
    }
    found = registry.diff.compare(publish(zero), publish(lora_tensors(seed=3)))
    for module in found.modules:
        assert (module.norm_a, module.rank_a, module.cosine) == (0, 0, 0)
        assert module.norm_b > 0


def test_fields(registry: Registry, publish: Callable[..., AdapterRef]) -> None:
    before = Lineage(code_commit="abc", environment={"peft": "0.21.1", "torch": "2.10"})
    after = Lineage(
        code_commit="abc",
        environment={"peft": "0.21.2", "torch": "2.10"},
        training_quantization=QuantizationSpec("nf4", True, "float32"),
        metrics=(Metric("f1", 0.5),),
    )
    a, b = publish(lora_tensors(), before), publish(lora_tensors(), after, lora_alpha=32, lora_dropout=0.1)
    found = registry.diff.compare(a, b)
    assert (found.a.version, found.b.version) == (1, 2)
    assert found.config == (FieldChange("lora_alpha", "16", "32"), FieldChange("lora_dropout", "0.0", "0.1"))
    assert found.lineage == (
        FieldChange("environment.peft", '"0.21.1"', '"0.21.2"'),
        FieldChange("metrics", "[]", '[{"dataset_digest":"","name":"f1","value":0.5}]'),
        FieldChange("training_quantization", "null", ""),
        FieldChange("training_quantization.compute_dtype", "", '"float32"'),
        FieldChange("training_quantization.double_quantization", "", "true"),
        FieldChange("training_quantization.method", "", '"nf4"'),
    )
    for module in found.modules:
        assert module.norm_b == pytest.approx(2 * module.norm_a)
        assert module.cosine == pytest.approx(1)


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.integers()) | st.none(), max_size=4))
def test_what_is_equal_is_no_change(value: dict[str, Any]) -> None:
    assert changes(value, json.loads(json.dumps(value))) == ()
    changed = value | {"new": 1}
    assert (FieldChange("new", "", "1") in changes(value, changed)) is ("new" not in value)


def test_states(
    registry: Registry, publish: Callable[..., AdapterRef], clock: ManualClock, name: AdapterName
) -> None:
    a, b = publish(lora_tensors(seed=1)), publish(lora_tensors(seed=2))
    registry.states.move(name, 1, VersionState.QUARANTINED, actor="ann", reason="odd")
    assert registry.diff.compare(a, b).a.state is VersionState.QUARANTINED
    registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="odd")
    assert registry.diff.compare(a, b).modules
    clock.now_s += 30 * 86400
    registry.collector.collect(dry_run=False, actor="ops")
    with pytest.raises(VersionDeleted):
        registry.diff.compare(a, b)
    with pytest.raises(VersionNotFound):
        registry.diff.compare(b, AdapterRef.parse("team/addresses:9"))


# -- the arithmetic ------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 12),
    ranks=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    scaling=st.sampled_from([-2.0, 0.5, 1.0]),
)
def test_factors_say_what_the_product_says(
    seed: int, inputs: int, outputs: int, ranks: tuple[int, int], scaling: float
) -> None:
    """Ranks above the width of the layer too, where the thin decompositions change shape."""
    random = np.random.default_rng(seed)
    one, other = (
        Factors(random.standard_normal((rank, inputs)), random.standard_normal((outputs, rank)), factor)
        for rank, factor in zip(ranks, (scaling, 1.5), strict=True)
    )
    values, others = one.singular_values(), other.singular_values()
    norms = norm_of(values), norm_of(others)
    found = (*norms, effective_rank(values), effective_rank(others), cosine(one, other, norms))
    expected = oracle(one.scaling * one.b @ one.a, other.scaling * other.b @ other.a)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_the_effective_rank_counts_equal_values() -> None:
    for count in (1, 2, 7):
        assert effective_rank(np.full(count, 3.0)) == pytest.approx(count)
    assert effective_rank(np.array([1.0, 0.0, 0.0])) == 1
    assert effective_rank(np.zeros(4)) == effective_rank(np.zeros(0)) == 0
    assert 1 < effective_rank(np.array([1.0, 1e-3])) < 1.02


def test_opposite_updates() -> None:
    a, b = np.ones((2, 3)), np.ones((4, 2))
    one, other = Factors(a, b, 1.0), Factors(a, -b, 2.0)
    norms = norm_of(one.singular_values()), norm_of(other.singular_values())
    assert cosine(one, other, norms) == pytest.approx(-1)
