"""Whole messages over one socket pair, in order.

Both ends are processes of one server that were started together, so that what
is read is what the other end pickled; the socket has no name that anybody else
could connect to.
"""

from __future__ import annotations

import asyncio
import io
import pickle  # noqa: TID251 - what adapters' files hold is never unpickled; this is our own other half
import socket
import struct
from collections.abc import Callable
from typing import Final

from switchyard.registry.errors import RegistryError
from switchyard.server.errors import ServerError
from switchyard.server.worker.messages import Failed

_LENGTH: Final = struct.Struct(">Q")


class Pipe(asyncio.Protocol):
    """One end; belongs to one event loop."""

    def __init__(self, take: Callable[[object], None], lost: Callable[[], None]) -> None:
        """Hears nothing before it is connected.

        Args:
            take: called with every message of the other end.
            lost: called once, when the other end has closed.
        """
        self._take = take
        self._lost = lost
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def over(cls, end: socket.socket, take: Callable[[object], None], lost: Callable[[], None]) -> Pipe:
        """Connects one end of a socket pair, which it closes in the end."""
        _, pipe = await asyncio.get_running_loop().create_connection(lambda: cls(take, lost), sock=end)
        return pipe

    def send(self, message: object) -> None:
        """Sends a message; what the other end has not read yet waits in memory. After the end it goes nowhere."""
        if self._transport is None or self._transport.is_closing():
            return
        body = _pickled(message)
        self._transport.write(_LENGTH.pack(len(body)) + body)

    async def finish(self) -> None:
        """Closes this end once everything is sent; the end of the pipe is then no loss."""
        self._lost = lambda: None
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError(f"a pipe needs a transport to write to, got {type(transport).__name__}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        start, end = 0, len(self._received)
        while end - start >= _LENGTH.size:
            [size] = _LENGTH.unpack_from(self._received, start)
            if end - start < _LENGTH.size + size:
                break
            body = bytes(memoryview(self._received)[start + _LENGTH.size : start + _LENGTH.size + size])
            start += _LENGTH.size + size
            self._take(pickle.loads(body))  # noqa: S301 - see the module's text
        del self._received[:start]

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        del error
        self._closed.set()
        self._lost()


class _Pickler(pickle.Pickler):
    """Knows how our errors cross: with all that they carry, whatever their constructors take."""

    def reducer_override(self, found: object) -> tuple[Callable[..., Exception], tuple[object, ...]]:
        if isinstance(found, ServerError | RegistryError):
            return _restored, (type(found), found.args, dict(vars(found)))
        usual: tuple[Callable[..., Exception], tuple[object, ...]] = NotImplemented
        return usual


def _restored(kind: type[Exception], arguments: tuple[object, ...], facts: dict[str, object]) -> Exception:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(facts)
    return error


def _pickled(message: object) -> bytes:
    try:
        return _dumped(message)
    except Exception:
        # Libraries raise what cannot be pickled; what it says is worth more than that it went wrong.
        if not isinstance(message, Failed):
            raise
        return _dumped(Failed(RuntimeError(f"{type(message.error).__name__}: {message.error}")))


def _dumped(message: object) -> bytes:
    body = io.BytesIO()
    _Pickler(body, pickle.HIGHEST_PROTOCOL).dump(message)
    return body.getvalue()
