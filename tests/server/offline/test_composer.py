"""A composition that was published gives the tokens of the same composition made for a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from shelf import Shelf, save_random
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.server.adapters.composition import composed
from switchyard.server.adapters.loader import model_order
from switchyard.server.engine.recipe import Recipe
from switchyard.server.errors import CompositionInvalid
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.offline.composer import compose
from switchyard.server.offline.ingredients import gather
from switchyard.server.offline.module_order import module_order

PROMPT = (1, 50, 120, 7, 250, 33, 96, 4)
RECIPES = [
    Recipe("cat"),
    Recipe("linear"),
    Recipe("svd", svd_rank=5),
    Recipe("ties", density=0.6),
    Recipe("dare_linear", density=0.6, seed=7),
    Recipe("dare_ties", density=0.6, majority_sign="frequency"),
    Recipe("magnitude_prune", density=0.4),
]


def lora(*targets: str, **options: Any) -> LoraConfig:
    return LoraConfig(target_modules=list(targets), task_type="CAUSAL_LM", r=8, lora_alpha=16, **options)


@pytest.fixture(scope="module")
def served(llama: Path) -> LoadedBase:
    return load_base(str(llama))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "bloom", "gpt2", "gpt_neox", "opt"])
def test_our_layout_has_the_models_order(architecture: str, tmp_path: Path) -> None:
    """What `dare` draws depends on it."""
    directory = make_tiny_llama(tmp_path, architecture=architecture)
    layout = load_base(str(directory)).resident.layout
    assert model_order(layout) == tuple(path for path in module_order(directory) if path in layout.places)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_published_is_as_served(
    recipe: Recipe, llama: Path, served: LoadedBase, shelf_of: Callable[[Path], Shelf], tmp_path: Path
) -> None:
    shelf = shelf_of(llama)
    first = save_random(llama, lora("q_proj", "v_proj"), tmp_path / "first", seed=1)
    second = save_random(llama, lora("q_proj", "gate_proj", use_rslora=True), tmp_path / "second", seed=2)
    wanted = [(shelf.publish("first", first), 0.75), (shelf.publish("second", second), -0.25)]
    ingredients = gather(shelf.registry, wanted)
    made = compose(shelf.registry, ingredients, recipe, module_order(llama))
    again = compose(shelf.registry, ingredients, recipe, module_order(llama))
    assert again.files == made.files
    directory = tmp_path / "made"
    directory.mkdir()
    made.write(directory)
    name = AdapterName("team", "both")
    done = shelf.registry.publish(
        name, directory, base_digest=shelf.spec.digest, lineage=made.lineage, publisher="ann"
    )
    assert done.warnings == ()
    version = shelf.registry.get_version(AdapterRef.parse("team/both:1"))
    assert version.lineage.parents == tuple(one.version.digest for one in ingredients)
    assert version.lineage.recipe_digest == made.selection.key
    assert version.shape.rank == made.selection.rank
    engine = TinyEngine(served)
    parts = [engine.part(first, 0.75), engine.part(second, -0.25)]
    composition = engine.tokens(PROMPT, composed(parts, recipe))
    assert engine.tokens(PROMPT, engine.adapter(directory)) == composition
    assert composition != engine.tokens(PROMPT, None)


def test_peft_loads_what_is_published(llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shelf = shelf_of(llama)
    first = save_random(llama, lora("q_proj", "v_proj"), tmp_path / "first", seed=1)
    second = save_random(llama, lora("q_proj", "embed_tokens"), tmp_path / "second", seed=2)
    wanted = [(shelf.publish("first", first), 1.0), (shelf.publish("second", second), 1.0)]
    made = compose(shelf.registry, gather(shelf.registry, wanted), Recipe("cat"))
    directory = tmp_path / "made"
    directory.mkdir()
    made.write(directory)
    config = json.loads(made.files["adapter_config.json"])
    assert config["r"] == 16
    assert set(config["rank_pattern"].values()) == {8}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(directory))
    scalings = {module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)}
    assert scalings == {1.0}


def test_what_cannot_be_a_version_is_refused(llama: Path, shelf_of: Callable[[Path], Shelf], tmp_path: Path) -> None:
    shelf = shelf_of(llama)
    plain = shelf.publish("plain", save_random(llama, lora("q_proj"), tmp_path / "plain"))
    dora = shelf.publish("dora", save_random(llama, lora("q_proj", use_dora=True), tmp_path / "dora"))
    other = shelf.publish("other", save_random(llama, lora("v_proj"), tmp_path / "other"))
    with pytest.raises(CompositionInvalid, match="team/dora:1 uses dora"):
        compose(shelf.registry, gather(shelf.registry, [(plain, 1.0), (dora, 1.0)]), Recipe("cat"))
    both = gather(shelf.registry, [(plain, 1.0), (other, 1.0)])
    with pytest.raises(ArgumentInvalid, match="cat is the same update"):
        compose(shelf.registry, both, Recipe("sum"))
    with pytest.raises(ArgumentInvalid, match="name the base with --base"):
        compose(shelf.registry, both, Recipe("dare_ties", density=0.5))
