"""Following a registry: whatever breaks, every change comes once and in order."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from fake_services import FakeServer, Refusal

from switchyard.clients import RegistryClient, RetryPolicy, errors
from switchyard.clients.watching import WatchEvent
from switchyard.proto.registry.v1 import registry_pb2 as pb


@pytest.fixture
def client(server: FakeServer) -> Iterator[RegistryClient]:
    server.registry.feed = [
        pb.WatchResponse(
            revision=number, kind="alias.set", namespace="team", adapter="a", payload_json='{"alias": "prod"}'
        )
        for number in range(1, 7)
    ]
    with RegistryClient(server.address, policy=RetryPolicy(first_delay_s=0.001)) as made:
        yield made


def changes(events: Iterator[WatchEvent]) -> list[int]:
    """Revisions of the changes that come before the fake's feed ends."""
    found: list[int] = []

    def read() -> None:
        for event in events:
            if event.kind != "bookmark":
                found.append(event.revision)

    with pytest.raises(errors.RevisionGone):
        read()
    return found


@pytest.mark.parametrize("breaks", [[], [0], [2], [1, 0, 0, 3], [5, 0]], ids=str)
def test_a_broken_watch_goes_on_where_it_stopped(
    server: FakeServer, client: RegistryClient, breaks: list[int]
) -> None:
    server.registry.break_watch_after = list(breaks)
    with client.watch(0) as watch:
        assert changes(iter(watch)) == [1, 2, 3, 4, 5, 6]
        assert watch.revision == 6
    assert server.registry.calls.count("Watch") == len(breaks) + 1


def test_a_watch_begins_where_it_is_told(client: RegistryClient) -> None:
    with client.watch(4) as watch:
        first = next(iter(watch))
    assert (first.revision, first.kind) == (4, "bookmark")
    with client.watch(4) as watch:
        assert changes(iter(watch)) == [5, 6]


def test_an_event_arrives_whole(client: RegistryClient) -> None:
    with client.watch(5) as watch:
        events = iter(watch)
        next(events)
        event = next(events)
    assert (event.revision, event.kind, event.namespace, event.adapter) == (6, "alias.set", "team", "a")
    assert event.payload == '{"alias": "prod"}'


def test_a_server_that_was_never_there_is_not_waited_for(server: FakeServer, client: RegistryClient) -> None:
    server.registry.refuse_next("Watch", *[Refusal(grpc.StatusCode.UNAVAILABLE)] * 10)
    with client.watch(0) as watch, pytest.raises(errors.Unreachable):
        next(iter(watch))
    assert server.registry.calls.count("Watch") == 4


def test_a_server_that_went_away_is_waited_for(server: FakeServer, client: RegistryClient) -> None:
    server.registry.break_watch_after = [1]
    with client.watch(0) as watch:
        events = iter(watch)
        assert [next(events).revision for _ in range(2)] == [0, 1]
        server.registry.refuse_next("Watch", *[Refusal(grpc.StatusCode.UNAVAILABLE)] * 3)
        assert changes(events) == [2, 3, 4, 5, 6]
    assert server.registry.calls.count("Watch") == 5


def test_a_closed_watch_ends(client: RegistryClient) -> None:
    watch = client.watch(0)
    events = iter(watch)
    next(events)
    watch.close()
    assert len(list(events)) <= 6
    assert list(watch) == []
