"""Messages between two ends of a socket pair."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from switchyard.registry import errors as registry_errors
from switchyard.registry.errors import RegistryError
from switchyard.server import errors as server_errors
from switchyard.server.errors import AdapterUnavailable, FieldFault, InvalidField, QueueFull, ServerError
from switchyard.server.worker.messages import Answer, Failed
from switchyard.server.worker.pipe import Pipe

pytestmark = pytest.mark.asyncio


class End:
    """One end and what came through it."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.lost = asyncio.Event()
        self._arrived = asyncio.Condition()
        self.pipe: Pipe

    def take(self, message: object) -> None:
        self.messages.append(message)

    async def connect(self, end: socket.socket) -> Pipe:
        self.pipe = await Pipe.over(end, self.take, self.lost.set)
        return self.pipe


async def joined() -> tuple[End, End]:
    left, right = End(), End()
    for end, side in zip((left, right), socket.socketpair(), strict=True):
        await end.connect(side)
    return left, right


async def through(message: object) -> object:
    """What arrives of a message."""
    left, right = await joined()
    left.pipe.send(message)
    await left.pipe.finish()
    await right.lost.wait()
    await right.pipe.finish()
    [arrived] = right.messages
    return arrived


async def test_messages_of_any_size_arrive_whole_and_in_order() -> None:
    left, right = await joined()
    sent = [b"x" * size for size in (0, 1, 100, 1 << 16, 3 << 20, 7)]
    for message in sent:
        left.pipe.send(message)
    await left.pipe.finish()
    await right.lost.wait()
    assert right.messages == sent
    assert not left.lost.is_set()
    await right.pipe.finish()


@pytest.mark.parametrize("size", [1, 3, 9])
async def test_messages_that_come_in_pieces_are_put_together(size: int) -> None:
    left, right = End(), End()
    raw, side = socket.socketpair()
    await right.connect(side)
    a, b = socket.socketpair()
    await left.connect(a)
    left.pipe.send("one")
    left.pipe.send({"two": [2] * 50})
    await left.pipe.finish()
    body = b""
    while piece := b.recv(1 << 16):
        body += piece
    for start in range(0, len(body), size):
        right.pipe.data_received(body[start : start + size])
    assert right.messages == ["one", {"two": [2] * 50}]
    raw.close()
    b.close()
    await right.lost.wait()
    await right.pipe.finish()


async def test_an_end_that_has_finished_sends_nothing_and_is_no_loss() -> None:
    left, right = await joined()
    await right.pipe.finish()
    await left.lost.wait()
    left.pipe.send("nobody reads it")
    await left.pipe.finish()
    assert not right.lost.is_set()


def _leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _leaves(child)


def _made(kind: type[Exception]) -> Exception:
    """An error of this class, with a fact that no constructor was told of."""
    error = kind.__new__(kind, "what was found")
    error.args = ("what was found",)
    error.retry_after_s = 7.5  # type: ignore[attr-defined]
    return error


ERRORS = [
    kind
    for root in (ServerError, RegistryError)
    for kind in _leaves(root)
    if kind.__module__.startswith((server_errors.__name__, registry_errors.__name__))
]


async def test_every_error_crosses_with_its_class_its_text_and_its_facts() -> None:
    assert len(ERRORS) > 60
    for kind in ERRORS:
        answer = await through(Answer(1, error=_made(kind)))
        assert isinstance(answer, Answer)
        assert type(answer.error) is kind
        assert str(answer.error) == "what was found"
        assert vars(answer.error) == {"retry_after_s": 7.5}


async def test_errors_with_constructors_of_their_own_cross_whole() -> None:
    faults = (FieldFault("a", "LIMIT", "too large"), FieldFault("b", "LIMIT", "too small"))
    for error in (
        InvalidField(faults),
        QueueFull("full", retry_after_s=3.0),
        AdapterUnavailable("gone", cause_reason="BLOB_CORRUPT", retry_after_s=2.0),
    ):
        answer = await through(Answer(1, error=error))
        assert isinstance(answer, Answer)
        assert (type(answer.error), str(answer.error), vars(answer.error)) == (type(error), str(error), vars(error))


async def test_a_failure_that_cannot_be_pickled_is_told_in_words() -> None:
    class LibraryError(Exception):
        """Holds what no process can be sent."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            super().__init__("the disk is on fire")

    failed = await through(Failed(LibraryError()))
    assert isinstance(failed, Failed)
    assert str(failed.error) == "LibraryError: the disk is on fire"
