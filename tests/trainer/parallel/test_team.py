"""What processes agree on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from switchyard.trainer.errors import LaunchMismatch
from switchyard.trainer.parallel.team import ALONE, Team, TeamStop, agreed
from switchyard.trainer.stopping import StopRequest


def test_alone_everything_is_answered_at_once() -> None:
    assert ALONE.is_first
    assert ALONE.gathered("a") == ["a"]
    assert ALONE.any(True)
    assert not ALONE.any(False)
    ALONE.wait()
    ALONE.require_same("recipe", "sha256:1")
    with ALONE.first_goes_first():
        pass
    stop = StopRequest()
    assert agreed(stop, ALONE) is stop


@dataclass(frozen=True, slots=True)
class Scripted(Team):
    """A team whose other processes say what a test lets them say."""

    others: list[list[object]] = field(default_factory=list)

    def gathered(self, mine: object) -> list[object]:  # type: ignore[override]
        return [mine, *self.others.pop(0)]

    def any(self, mine: bool) -> bool:
        return any(self.gathered(mine))


def test_other_recipes_are_refused() -> None:
    Scripted(0, 2, [["sha256:1"]]).require_same("recipe", "sha256:1")
    with pytest.raises(LaunchMismatch, match=r"of process 1 are others than those of process 0 \(sha256:2"):
        Scripted(0, 2, [["sha256:2"]]).require_same("recipe or data", "sha256:1")


def test_a_request_counts_from_the_step_at_which_all_know_of_it() -> None:
    own = StopRequest()
    stop = TeamStop(own, Scripted(0, 2, [[False], [True], ["SIGTERM"]]))
    own_only_later = TeamStop(own, Scripted(1, 2, [[False], ["SIGINT"]]))
    stop.settle()
    assert stop.asked_by is None
    stop.settle()
    assert stop.asked_by == "SIGTERM"
    # It is settled: nobody is asked again, though nothing is left to say.
    stop.settle()

    own.ask("SIGINT")
    assert own_only_later.asked_by is None
    own_only_later.settle()
    assert own_only_later.asked_by == "SIGINT"
