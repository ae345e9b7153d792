"""Candidates take turns, and a slow spell of the machine does not tell in what is compared."""

from __future__ import annotations

from switchyard.server.measure.spent import Rounds, Spent


def test_candidates_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> Spent:
        order.append(name)
        return Spent(len(order), 2.0 * len(order))

    rounds = Rounds.of({"a": lambda: run("a"), "b": lambda: run("b")}, 3)
    assert order == ["a", "b"] * 3
    assert [spent.cpu_s for spent in rounds.spent["b"]] == [2, 4, 6]
    assert rounds.best("b") == Spent(2, 4.0)


def test_a_ratio_is_of_neighbours_and_survives_one_bad_round() -> None:
    slow, fast = [Spent(30, 60), Spent(3, 6), Spent(6, 12)], [Spent(10, 30), Spent(1, 3), Spent(9, 27)]
    rounds = Rounds({"slow": slow, "fast": fast})
    assert rounds.ratio("slow", "fast") == 3.0
    assert rounds.wall_ratio("slow", "fast") == 2.0
