"""Who owns a series: bounded, led by traffic, and not shaken by strangers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from switchyard.server.observe.busiest import BusiestKeys


def test_equals_do_not_swap() -> None:
    lost: list[str] = []
    keys = BusiestKeys(1, lost.append)
    for _ in range(100):
        keys.owns("a")
        keys.owns("b")
    assert keys.owners() == {"a"}
    assert lost == []


def test_yesterdays_traffic_gives_way() -> None:
    lost: list[str] = []
    keys = BusiestKeys(1, lost.append)
    for _ in range(50_000):
        keys.owns("old")
    for _ in range(50_000):
        keys.owns("new")
    assert keys.owners() == {"new"}
    assert lost == ["old"]


def test_strangers_seen_once_displace_nobody() -> None:
    lost: list[str] = []
    keys = BusiestKeys(2, lost.append)
    for key in ("a", "b"):
        keys.owns(key)
    for number in range(20_000):
        keys.owns(f"stranger-{number}")
    assert keys.owners() == {"a", "b"}
    assert lost == []


@given(st.lists(st.integers(0, 50), max_size=300), st.integers(1, 5))
def test_owners_are_bounded_and_every_loss_is_told(seen: list[int], capacity: int) -> None:
    shown: set[str] = set()
    keys = BusiestKeys(capacity, shown.remove)
    for number in seen:
        if keys.owns(str(number)):
            shown.add(str(number))
        assert shown == keys.owners()
        assert len(shown) <= capacity
