from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from switchyard.trainer.data import shared_rows
from switchyard.trainer.demo_data import TASKS, write_demo_data
from switchyard.trainer.preflight import read_data
from switchyard.trainer.recipe_file import load_recipe
from tests.trainer.test_commands import app


def test_every_task_becomes_a_recipe_that_can_run(tmp_path: Path) -> None:
    recipes = write_demo_data(tmp_path, seed=0, train_rows=200)
    assert [path.stem for path in recipes] == [task.name for task in TASKS]
    for path in recipes:
        recipe = load_recipe(path)
        assert recipe.base.path is not None
        assert (recipe.base.path / "config.json").is_file()
        splits = read_data(recipe)
        assert len(splits["train"].rows) == 200
        assert len(splits["test"].rows) == 500
        assert shared_rows(splits["train"], splits["test"]) == shared_rows(splits["train"], splits["dev"]) == 0


def test_no_training_row_is_shown_more_than_twice(tmp_path: Path) -> None:
    """The recipes were measured with these numbers of rows; more repetition would be another measurement."""
    for task, path in zip(TASKS, write_demo_data(tmp_path, seed=0, train_rows=1), strict=True):
        train = load_recipe(path).train
        assert train.max_steps is not None
        shown = train.max_steps * train.batch_size * train.gradient_accumulation
        assert shown <= 2 * task.train_rows


def test_the_command_prints_one_recipe_per_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo-data", str(tmp_path / "demo")])
    assert done.exit_code == 0
    assert [Path(line).parent.name for line in done.stdout.splitlines()] == [task.name for task in TASKS]
    (tmp_path / "file").write_text("")
    assert CliRunner().invoke(app, ["demo-data", str(tmp_path / "file")]).exit_code == 1
