"""A job whose store is a directory, and a machine that does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from switchyard.trainer.job.job import JobDone, JobOrder, run_job
from switchyard.trainer.objects import ObjectUrl

RunJob = Callable[..., JobDone]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """What `file://` names: the recipe, its data and the job's results lie in it."""
    return tmp_path


@pytest.fixture
def do_job(store: Path) -> RunJob:
    """Does the job of `recipe.yaml`; keyword arguments are those of `JobOrder`, and of `run_job` after `how`."""

    def do(how: dict[str, object] | None = None, **changes: object) -> JobDone:
        places = {
            "recipe": ObjectUrl.parse(f"file://{store}/recipe.yaml"),
            "out": ObjectUrl.parse(f"file://{store}/out"),
        }
        return run_job(JobOrder(**{**places, "threads": 1, **changes}), **(how or {}))  # type: ignore[arg-type]

    return do
