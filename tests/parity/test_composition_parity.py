"""A composition that a request asks for has the logits of PEFT's `add_weighted_adapter` on the same NF4 base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity_measure import served_logits
from tiny_adapter import load_nf4, make_adapter, peft_logits
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine

from switchyard.server.adapters.composition import composed
from switchyard.server.engine.recipe import Recipe
from switchyard.server.model.loading import LoadedBase, load_base

PROMPT = (1, 50, 120, 7, 250, 33, 96, 4, 17, 180)
TOLERANCE = 2e-3
WEIGHTS = (0.75, -1.5)
RECIPES = [
    Recipe("cat"),
    Recipe("linear"),
    Recipe("svd", svd_rank=6),
    Recipe("ties", density=0.6),
    Recipe("ties", density=0.6, majority_sign="frequency"),
    Recipe("dare_linear", density=0.6, seed=5),
    Recipe("dare_ties", density=0.6, seed=6),
    Recipe("magnitude_prune", density=0.4),
]


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("composition") / "base")


@pytest.fixture(scope="module")
def base(base_dir: Path) -> LoadedBase:
    return load_base(str(base_dir))


@pytest.fixture(scope="module")
def parts(base_dir: Path) -> tuple[Path, Path]:
    first = make_adapter(base_dir, base_dir.parent / "first", seed=1, targets=("q_proj", "v_proj", "down_proj"))
    options = {"alpha_pattern": {"q_proj": 5}}
    return first, make_adapter(
        base_dir, base_dir.parent / "second", seed=2, targets=("q_proj", "up_proj"), options=options
    )


def of_peft(base_dir: Path, parts: tuple[Path, Path], recipe: Recipe) -> torch.Tensor:
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_nf4(base_dir), str(parts[0]), adapter_name="first")
    model.load_adapter(str(parts[1]), adapter_name="second")
    torch.manual_seed(recipe.seed or 0)
    model.add_weighted_adapter(
        ["first", "second"],
        list(WEIGHTS),
        "both",
        combination_type=recipe.method,
        density=recipe.density,
        svd_rank=recipe.svd_rank,
        majority_sign_method=recipe.majority_sign or "total",
    )
    model.set_adapter("both")
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(torch.tensor([PROMPT])).logits[0].float()
    return logits


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_logits_equal_pefts(base_dir: Path, base: LoadedBase, parts: tuple[Path, Path], recipe: Recipe) -> None:
    expected = of_peft(base_dir, parts, recipe)
    assert (expected - peft_logits(base_dir, None, PROMPT)).abs().max() > 10 * TOLERANCE
    engine = TinyEngine(base)
    selection = composed([engine.part(part, weight) for part, weight in zip(parts, WEIGHTS, strict=True)], recipe)
    served = served_logits(engine, selection, PROMPT)
    torch.testing.assert_close(served, expected[len(PROMPT) // 2 - 1 :], rtol=0, atol=TOLERANCE)
