from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.trainer.errors import RecipeInvalid
from switchyard.trainer.explain import explain
from switchyard.trainer.run import train
from switchyard.trainer.trackers import check_trackers
from tests.trainer.conftest import MakeRecipe

SHORT = {"max_steps": 3, "eval_steps": 2}


def test_tensorboard_gets_loss_rate_and_evaluations_and_changes_no_bit(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train(make_recipe(train=SHORT), out_dir=tmp_path / "plain", threads=1)
    recipe = make_recipe(train=SHORT, tracking={"to": ["tensorboard"]})
    assert recipe.digest == make_recipe(train=SHORT).digest
    train(recipe, out_dir=tmp_path / "tracked", threads=1)
    # A second file would have the first one's name when both begin within a second, and take its place.
    [file] = (tmp_path / "tracked" / "tensorboard").glob("events.out.tfevents.*")
    content = file.read_bytes()
    for name in (b"train/loss", b"train/learning_rate", b"eval/loss"):
        assert name in content
    plain, tracked = ((tmp_path / one / "adapter" / "adapter_model.safetensors") for one in ("plain", "tracked"))
    assert plain.read_bytes() == tracked.read_bytes()


def test_every_missing_package_is_told_before_anything_else(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    recipe = make_recipe(tracking={"to": ["mlflow", "tensorboard", "wandb"]}).with_base(Path("/nowhere"))
    with pytest.raises(RecipeInvalid, match="pip install tensorboardX") as caught:
        train(recipe, out_dir=tmp_path / "out")
    assert [fault.message.split()[0] for fault in caught.value.faults] == ["mlflow", "tensorboard", "wandb"]
    with pytest.raises(RecipeInvalid):
        explain(recipe)
    check_trackers(make_recipe())
