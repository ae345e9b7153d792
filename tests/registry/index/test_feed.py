"""The feed gives every change once, in order, to whoever comes when; a watch survives what a network does."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from databases import on_both

from switchyard.registry.errors import ArgumentInvalid, RevisionCompacted, StorageFailed
from switchyard.registry.index import feed as feed_module
from switchyard.registry.index.changes import Change, ChangeKind, Event
from switchyard.registry.index.database import Index
from switchyard.registry.index.feed import Bookmark, Feed

pytestmark = on_both
X = Change(ChangeKind.ADAPTER_CHANGED, "tester", "n", "a", {"count": 1, "text": "é\n\x01"})
NEVER = threading.Event()


def announce(index: Index, *changes: Change) -> None:
    for change in changes:
        with index.write() as connection:
            index.announce(connection, change)


@pytest.fixture
def feed(index: Index) -> Feed:
    return Feed(index)


def taken(watch: Iterator[Event | Bookmark], count: int) -> list[int | None]:
    """Revisions of the next items; None for a bookmark."""
    items = itertools.islice(watch, count)
    return [item.revision if isinstance(item, Event) else None for item in items]


# -- looking -----------------------------------------------------------------


def test_events_hold_what_was_announced(index: Index, feed: Feed) -> None:
    assert (feed.revision(), feed.events(0)) == (0, [])
    announce(index, X)
    (event,) = feed.events(0)
    assert (event.revision, event.kind, event.namespace, event.adapter) == (1, X.kind, "n", "a")
    assert event.payload == X.payload
    assert (feed.revision(), feed.events(1)) == (1, [])


def test_events_come_in_pages(index: Index, feed: Feed) -> None:
    announce(index, *[X] * 5)
    assert [event.revision for event in feed.events(1, limit=2)] == [2, 3]
    assert [event.revision for event in feed.events(3, limit=2)] == [4, 5]


def test_a_future_revision_means_that_the_store_was_put_back(index: Index, feed: Feed) -> None:
    """A watcher that waited for it would miss everything until then."""
    announce(index, X)
    with pytest.raises(RevisionCompacted, match="watch from revision 1") as caught:
        feed.events(2)
    assert caught.value.compacted_revision == 0


@pytest.mark.parametrize(("after", "limit"), [(-1, 1), (0, 0)])
def test_arguments(after: int, limit: int, feed: Feed) -> None:
    with pytest.raises(ArgumentInvalid):
        feed.events(after, limit)


def test_compacting_drops_what_is_older(index: Index, feed: Feed) -> None:
    announce(index, *[X] * 5)
    assert feed.compact(4, actor="ann") == 3
    assert [event.revision for event in feed.events(3)] == [4, 5, 6]
    assert feed.events(5)[0].kind == ChangeKind.COLLECTED
    for after in (0, 2):
        with pytest.raises(RevisionCompacted) as caught:
            feed.events(after)
        assert caught.value.compacted_revision == 3
        with pytest.raises(RevisionCompacted):
            next(feed.watch(after, stop=NEVER))
    assert feed.compact(3, actor="ann") == 0
    assert feed.revision() == 6
    with pytest.raises(ArgumentInvalid):
        feed.compact(8, actor="ann")


# -- watching ----------------------------------------------------------------


def test_a_watch_begins_with_what_has_happened(index: Index, feed: Feed) -> None:
    announce(index, X, X)
    with closing(feed.watch(0, stop=NEVER)) as watch:
        assert taken(watch, 3) == [1, 2, None]
        announce(index, X)
        assert taken(watch, 1) == [3]
    with closing(feed.watch(2, stop=NEVER)) as watch:
        assert taken(watch, 2) == [3, None]


def test_a_watch_sees_what_others_write(index: Index, feed: Feed, connect: Callable[[], Index]) -> None:
    """Others have connections of their own, as processes would, and cannot wake it by hand."""
    other = connect()
    with closing(feed.watch(0, stop=NEVER)) as watch:
        assert taken(watch, 1) == [None]
        for revision in range(1, 6):
            announce(other, X)
            assert taken(watch, 1) == [revision]


def test_a_watch_loses_nothing_to_many_writers(index: Index, feed: Feed, connect: Callable[[], Index]) -> None:
    def announce_twenty() -> None:
        announce(connect(), *[X] * 20)

    with ThreadPoolExecutor(4) as pool, closing(feed.watch(0, stop=NEVER)) as watch:
        writers = [pool.submit(announce_twenty) for _ in range(4)]
        seen = [item.revision for item in watch_until(watch, 80)]
        for writer in writers:
            writer.result()
    assert seen == list(range(1, 81))


def watch_until(watch: Iterator[Event | Bookmark], last: int) -> Iterator[Event]:
    for item in watch:
        if isinstance(item, Event):
            yield item
            if item.revision == last:
                return


def test_a_full_look_is_followed_by_another(index: Index, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_LOOK_LIMIT", 2)
    announce(index, *[X] * 5)
    with closing(feed.watch(0, stop=NEVER)) as watch:
        assert taken(watch, 6) == [1, 2, 3, 4, 5, None]


def test_others_events_are_left_out_and_passed(index: Index, feed: Feed) -> None:
    announce(index, X, replace(X, adapter="b"), replace(X, namespace="m"), replace(X, adapter="", namespace=""))
    for narrowed, expected in (
        ({"namespace": "n"}, [1, 2]),
        ({"namespace": "n", "adapter": "b"}, [2]),
        ({"namespace": "elsewhere"}, []),
    ):
        with closing(feed.watch(0, stop=NEVER, **narrowed)) as watch:  # type: ignore[arg-type]
            items = list(itertools.islice(watch, len(expected) + 1))
        assert [item.revision for item in items] == [*expected, 4]
        assert items[-1] == Bookmark(4)
    with pytest.raises(ArgumentInvalid, match="namespace"):
        next(feed.watch(0, adapter="a", stop=NEVER))


def test_bookmarks_come_while_nothing_happens(feed: Feed) -> None:
    with closing(feed.watch(0, stop=NEVER, bookmark_s=0.001)) as watch:
        assert list(itertools.islice(watch, 3)) == [Bookmark(0)] * 3


def test_stop_ends_a_watch_that_sleeps(index: Index, feed: Feed) -> None:
    stop, asleep, ended = threading.Event(), threading.Event(), threading.Event()

    def follow() -> None:
        for _ in feed.watch(0, stop=stop, bookmark_s=600):
            asleep.set()
        ended.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert asleep.wait(60)
    stop.set()
    assert ended.wait(60)
    follower.join()


def test_closing_the_index_ends_its_watches(index: Index, feed: Feed) -> None:
    watch = feed.watch(0, stop=NEVER, bookmark_s=600)
    assert next(watch) == Bookmark(0)
    index.close()
    assert list(watch) == []


def test_the_thread_lives_while_somebody_watches(feed: Feed) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "registry-wakeup"]

    before = threads()
    first, second = (feed.watch(0, stop=NEVER) for _ in range(2))
    assert (next(first), next(second)) == (Bookmark(0), Bookmark(0))
    assert len(threads()) == len(before) + 1
    first.close()
    assert len(threads()) == len(before) + 1
    ending = [thread for thread in threading.enumerate() if thread.name == "registry-wakeup"]
    second.close()
    for thread in ending:
        thread.join(60)
    assert threads() == []
    with closing(feed.watch(0, stop=NEVER)) as third:
        assert next(third) == Bookmark(0)


# -- a database that goes away -----------------------------------------------


def test_a_database_that_stays_away_ends_the_watch(index: Index, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(feed_module, "_RETRY_S", 0.0)

    def fail(*_: object) -> list[Event]:
        raise StorageFailed("gone")

    watch = feed.watch(0, stop=NEVER)
    assert next(watch) == Bookmark(0)
    monkeypatch.setattr(feed, "events", fail, raising=False)
    index.wakeup.poke()
    with pytest.raises(StorageFailed, match="gone"):
        next(watch)
