"""Merged adapters equal those of PEFT's `add_weighted_adapter`, on the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama

from switchyard.registry.validation.adapter_config import parse_adapter_config
from switchyard.server.adapters.merging.merge import MergePart, merge, part_of
from switchyard.server.engine.recipe import Recipe
from switchyard.server.errors import AdapterUnpackable

TARGETS = ("q_proj", "v_proj", "down_proj")


@dataclass(frozen=True)
class Made:
    """A base and adapters on it: `plain` twice, and one of each other kind."""

    base: Path
    root: Path
    order: tuple[str, ...]

    def adapter(self, kind: str) -> Path:
        options: dict[str, Any] = {
            "plain": {"seed": 1},
            "other": {"seed": 2, "targets": ("q_proj", "o_proj")},
            "alpha": {"seed": 3, "options": {"alpha_pattern": {"v_proj": 3}, "lora_dropout": 0.1}},
            "rslora": {"seed": 4, "options": {"use_rslora": True}},
            "sixteen": {"seed": 5, "dtype": torch.bfloat16},
            "small": {"seed": 6, "rank": 4},
            "pattern": {"seed": 7, "options": {"rank_pattern": {"v_proj": 4, "layers.1.self_attn.q_proj": 6}}},
            "embeds": {"seed": 8, "targets": ("q_proj", "embed_tokens", "lm_head")},
        }[kind]
        directory = self.root / kind
        if not directory.exists():
            make_adapter(self.base, directory, **{"targets": TARGETS, **options})
        return directory

    def part(self, kind: str, weight: float) -> MergePart:
        config = parse_adapter_config((self.adapter(kind) / "adapter_config.json").read_bytes())
        tensors = load_file(self.adapter(kind) / "adapter_model.safetensors")
        own = {name: tensor for name, tensor in tensors.items() if "base_layer" not in name}
        return part_of(kind, weight, own, config.scaling_of)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("merging")
    base = make_tiny_llama(root / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    return Made(base, root, tuple(name for name, _ in model.named_modules()))


def of_peft(made: Made, parts: list[tuple[str, float]], recipe: Recipe) -> dict[str, torch.Tensor]:
    """Factors of what PEFT makes, by the names of its files."""
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    names = [kind for kind, _ in parts]
    model = AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float32)
    wrapped = PeftModel.from_pretrained(model, str(made.adapter(names[0])), adapter_name=names[0])
    for name in names[1:]:
        wrapped.load_adapter(str(made.adapter(name)), adapter_name=name)
    options = {"density": recipe.density, "svd_rank": recipe.svd_rank}
    if recipe.majority_sign is not None:
        options["majority_sign_method"] = recipe.majority_sign  # type: ignore[assignment]
    torch.manual_seed(recipe.seed or 0)
    wrapped.add_weighted_adapter(
        names, [weight for _, weight in parts], "merged", combination_type=recipe.method, **options
    )
    found = get_peft_model_state_dict(wrapped, adapter_name="merged", save_embedding_layers=False)
    return {f"base_model.model.{name.removeprefix('base_model.model.')}": tensor for name, tensor in found.items()}


DENSE = {"density": 0.6}
CASES: list[tuple[Recipe, list[tuple[str, float]]]] = [
    (Recipe("cat"), [("plain", 0.5), ("other", -1.25)]),
    (Recipe("cat"), [("plain", 0.5), ("small", 2.0), ("embeds", -0.3)]),
    (Recipe("cat"), [("pattern", 0.7), ("rslora", 0.4)]),
    (Recipe("linear"), [("plain", 0.5)]),
    (Recipe("linear"), [("plain", 0.5), ("other", -1.25), ("alpha", 0.3)]),
    (Recipe("linear"), [("sixteen", 0.5), ("embeds", 0.4)]),
    (Recipe("linear"), [("plain", 1.5), ("rslora", -0.5)]),
    (Recipe("magnitude_prune", **DENSE), [("plain", 0.5), ("other", -1.25), ("embeds", 1.0)]),
    (Recipe("magnitude_prune", density=1.0), [("plain", 0.5), ("alpha", -1.25)]),
    (Recipe("ties", majority_sign="total", **DENSE), [("plain", 0.5), ("alpha", -1.25), ("sixteen", 0.8)]),
    (Recipe("ties", majority_sign="frequency", density=0.3), [("plain", 0.5), ("alpha", 1.25), ("sixteen", 0.8)]),
    (Recipe("dare_linear", seed=7, **DENSE), [("plain", 0.5), ("other", -1.25), ("embeds", 1.0)]),
    (Recipe("dare_ties", seed=11, majority_sign="total", **DENSE), [("plain", 0.5), ("other", -1.25)]),
    (Recipe("dare_ties", seed=3, majority_sign="frequency", density=0.4), [("plain", 0.5), ("sixteen", 1.0)]),
]


@pytest.mark.parametrize(("recipe", "parts"), CASES, ids=[f"{r.method}-{n}" for n, (r, _) in enumerate(CASES)])
def test_factors_are_those_of_peft(made: Made, recipe: Recipe, parts: list[tuple[str, float]]) -> None:
    merged = merge([made.part(*part) for part in parts], recipe, made.order)
    oracle = of_peft(made, parts, recipe)
    assert set(merged) == set(oracle)
    for name, tensor in merged.items():
        # PEFT fills up to the sum of the ranks with zeros where a module has not all of the adapters.
        wanted = oracle[name]
        rows, columns = tensor.shape
        torch.testing.assert_close(tensor, wanted[:rows, :columns], rtol=1e-5, atol=1e-7, msg=name)
        assert not wanted[rows:].any()
        assert not wanted[:, columns:].any()


SVD: list[tuple[Recipe, list[tuple[str, float]]]] = [
    (Recipe("svd", svd_rank=8), [("plain", 0.5), ("other", -1.25)]),
    (Recipe("svd", svd_rank=5), [("plain", 0.5), ("small", 2.0), ("alpha", -0.3)]),
    (Recipe("svd", svd_rank=20), [("small", 1.0), ("pattern", 0.5)]),
    (Recipe("svd", svd_rank=8), [("embeds", 1.0), ("plain", 0.5)]),
]


@pytest.mark.parametrize(("recipe", "parts"), SVD, ids=str)
def test_updates_of_svd_are_those_of_peft(made: Made, recipe: Recipe, parts: list[tuple[str, float]]) -> None:
    """Signs of singular vectors are free, so the products are compared."""
    merged = merge([made.part(*part) for part in parts], recipe, made.order)
    oracle = of_peft(made, parts, recipe)
    assert set(merged) == set(oracle)
    for name in merged:
        if name.endswith(("lora_A.weight", "lora_embedding_A")):
            other = name.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")
            assert merged[name].shape == oracle[name].shape
            update, wanted = merged[other] @ merged[name], oracle[other] @ oracle[name]
            torch.testing.assert_close(update, wanted, rtol=1e-4, atol=2e-6, msg=name)


def test_cat_is_the_sum_of_the_updates(made: Made) -> None:
    parts = [made.part("plain", 0.5), made.part("rslora", -2.0), made.part("pattern", 1.0)]
    merged = merge(parts, Recipe("cat"), made.order)
    module = "model.layers.1.self_attn.v_proj"
    own = [(part.weight, part.factors[module]) for part in parts]
    wanted = sum((weight * one.scaling * (one.b @ one.a) for weight, one in own), torch.zeros(32, 64))
    name = f"base_model.model.{module}"
    torch.testing.assert_close(
        merged[f"{name}.lora_B.weight"] @ merged[f"{name}.lora_A.weight"], wanted, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"])
@pytest.mark.parametrize("kinds", [("plain", "small"), ("plain", "pattern")])
def test_unequal_ranks_are_refused_where_peft_refuses_them(made: Made, method: str, kinds: tuple[str, str]) -> None:
    recipe = Recipe(method, density=0.5, seed=1, majority_sign="total")
    parts = [(kind, 1.0) for kind in kinds]
    with pytest.raises((ValueError, RuntimeError)):
        of_peft(made, parts, recipe)
    with pytest.raises(AdapterUnpackable, match="needs equal ranks: plain has 8"):
        merge([made.part(*part) for part in parts], recipe, made.order)


def test_an_svd_cannot_be_wider_than_the_layer(made: Made) -> None:
    parts = [made.part("plain", 1.0), made.part("alpha", 1.0)]
    with pytest.raises(AdapterUnpackable, match="svd_rank 33; its smaller side has 32"):
        merge(parts, Recipe("svd", svd_rank=33), made.order)


def test_what_is_not_a_factor_is_refused() -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    with pytest.raises(AdapterUnpackable, match="lora_magnitude_vector; only low-rank"):
        part_of("team/dora:1", 1.0, {name: torch.ones(4)}, lambda _: 1.0)


def test_the_seed_decides_and_nothing_else_does(made: Made) -> None:
    parts = [made.part("plain", 0.5), made.part("alpha", 1.0)]

    def drawn(seed: int) -> torch.Tensor:
        merged = merge(parts, Recipe("dare_linear", density=0.5, seed=seed), made.order)
        return torch.cat([tensor.flatten() for tensor in merged.values()])

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = drawn(1)
    torch.manual_seed(99)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)
    torch.manual_seed(0)
    drawn(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert math.isfinite(float(first.sum()))
