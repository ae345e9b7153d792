from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import RecipeInvalid, StartUnusable
from switchyard.trainer.publish import PublishTarget, publish_run
from switchyard.trainer.run import train
from switchyard.trainer.warm_start import WarmStart, fetch_start
from tests.support.tiny_base import make_tiny_llama
from tests.trainer.conftest import MakeRecipe

SHORT = {"max_steps": 2}


@pytest.fixture
def first(make_recipe: MakeRecipe, tmp_path: Path) -> str:
    """The digest of a published version, whose alias is `team/words@prod`."""
    result = train(make_recipe(train=SHORT), out_dir=tmp_path / "first", threads=1)
    target = PublishTarget(AdapterName.parse("team/words"), "prod", tmp_path / "registry", None)
    return publish_run(result, target).digest


START = {"version": "team/words@prod", "registry": "registry"}


def weights(run: Path) -> dict[str, bytes]:
    found = load_file(run / "adapter" / "adapter_model.safetensors")
    return {name: tensor.tobytes() for name, tensor in found.items()}


def test_training_begins_with_the_versions_weights_and_names_it_as_parent(
    first: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    # With a rate that moves nothing, what comes out is what went in, to the bit.
    still = make_recipe(train={"max_steps": 1, "learning_rate": 1e-38, "warmup_steps": 0}, start=START)
    result = train(still, out_dir=tmp_path / "second", threads=1)
    assert weights(tmp_path / "second") == weights(tmp_path / "first")
    assert result.lineage.parents == (first,)
    assert f"| Continued from | `{first}` |" in (tmp_path / "second" / "adapter" / "README.md").read_text()
    target = PublishTarget(AdapterName.parse("team/words"), "prod", tmp_path / "registry", None)
    publish_run(result, target)
    with Registry.open(tmp_path / "registry") as registry:
        assert registry.get_version(AdapterRef.parse("team/words:2")).lineage.parents == (first,)
    # The alias has moved; the lock still names what the run began with.
    lock = json.loads((tmp_path / "second" / "lock.json").read_text())
    assert lock["recipe"]["start"] == {
        "version": f"team/words@{first}",
        "registry": "../registry",
    }


def test_a_version_of_another_base_and_shape_is_refused_with_all_that_differs(
    first: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    other = make_tiny_llama(tmp_path / "other", seed=1)
    lora = {"r": 4, "alpha": 8, "targets": ["q_proj"]}
    recipe = make_recipe(train=SHORT, lora=lora, start=START).with_base(other)
    with pytest.raises(StartUnusable) as caught:
        train(recipe, out_dir=tmp_path / "second", threads=1)
    assert [fault.subject for fault in caught.value.faults] == ["base", "lora.alpha", "lora.r", "lora.targets"]
    assert not (tmp_path / "second" / "adapter").exists()


def test_what_is_not_there_is_refused(first: str, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for change in ({"version": "team/words@nobody"}, {"registry": "elsewhere"}):
        with pytest.raises(StartUnusable, match="cannot begin"):
            fetch_start(make_recipe(start=START | change).start)
    server = {"version": "team/words@prod", "server": f"unix:{tmp_path / 'nobody'}"}
    with pytest.raises(StartUnusable, match="cannot begin"):
        fetch_start(make_recipe(start=server).start)
    found = fetch_start(make_recipe(start=START).start)
    assert isinstance(found, WarmStart)
    assert found.digest == first


@pytest.mark.parametrize(
    "sections",
    [
        {"start": {"version": "a/b:1"}},
        {"start": {"version": "a/b:1", "registry": "r", "server": "s:1"}},
        {"start": {"registry": "r"}},
        {"start": {"version": "a/b:1", "registry": "r"}, "lora": {"init": "pissa"}},
    ],
)
def test_the_place_has_to_be_clear(make_recipe: MakeRecipe, sections: dict[str, dict[str, str]]) -> None:
    with pytest.raises(RecipeInvalid, match=r"start\."):
        make_recipe(**sections)
