"""The best evaluated state is kept, and a run ends when more steps bring nothing; bits survive the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.trainer.errors import RecipeInvalid
from switchyard.trainer.events import Evaluated
from switchyard.trainer.recipe import SelectionSection
from switchyard.trainer.run import train
from switchyard.trainer.selection import standing
from tests.trainer.conftest import MakeRecipe
from tests.trainer.test_resume import files, stop_at

WEIGHTS = "adapter_model.safetensors"


def evaluations(*losses: float) -> list[Evaluated]:
    return [Evaluated("dev", 10 * at, loss, 1 - loss / 10, 8) for at, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "rule", "best_step", "is_over"),
    [
        ([], {}, None, False),
        ([3.0, 2.0, 2.5], {}, 20, False),
        ([3.0, 2.0, 2.0], {}, 20, False),
        ([3.0, 2.0, 2.5], {"metric": "token_accuracy"}, 20, False),
        ([3.0, 2.9, 2.8], {"min_improvement": 0.15}, 30, False),
        ([3.0, 2.9, 2.8], {"min_improvement": 0.5, "patience": 2}, 10, True),
        ([3.0, 2.0, 2.5, 1.0, 1.5], {"patience": 2}, 40, False),
        ([3.0, 2.0, 2.5, 2.4], {"patience": 2}, 20, True),
    ],
)
def test_the_rule(losses: list[float], rule: dict[str, object], best_step: int | None, is_over: bool) -> None:
    selection = SelectionSection.model_validate(rule)
    other_split = Evaluated("test", 99, 0.0, 1.0, 8)
    found = standing([*evaluations(*losses), other_split], selection)
    assert (found.best.step if found.best else None, found.is_over) == (best_step, is_over)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_best_state_is_that_of_a_run_that_ended_there(
    make_recipe: MakeRecipe, tmp_path: Path, dtype: str
) -> None:
    optimisation = {"schedule": "constant", "warmup_steps": 0, "eval_steps": 2, "adapter_dtype": dtype}
    # Nothing beats the first evaluation by that much, so the run ends two evaluations later.
    rule = {"keep": "best", "patience": 2, "min_improvement": 100.0}
    whole = train(make_recipe(train=optimisation, selection=rule), out_dir=tmp_path / "best", threads=1)
    short = train(make_recipe(train=optimisation | {"max_steps": 2}), out_dir=tmp_path / "short", threads=1)

    assert (whole.figures.steps, whole.figures.adapter_step) == (6, 2)
    assert files(whole)[WEIGHTS] == files(short)[WEIGHTS]
    assert whole.figures.score("dev") == short.figures.score("dev")
    assert whole.figures.score("test") == short.figures.score("test")

    # The best state is before the stop, and the end after it.
    for step in (3, 6):
        stop_at(make_recipe(train=optimisation, selection=rule), tmp_path / "parts", step)
    parts = train(make_recipe(train=optimisation, selection=rule), out_dir=tmp_path / "parts", threads=1)
    assert files(parts) == files(whole)
    assert parts.lineage == whole.lineage


@pytest.mark.parametrize("rule", [{"keep": "best"}, {"patience": 1}])
def test_a_rule_without_evaluations_is_refused(make_recipe: MakeRecipe, rule: dict[str, object]) -> None:
    with pytest.raises(RecipeInvalid, match=r"train\.eval_steps"):
        make_recipe(selection=rule)
