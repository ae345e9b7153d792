"""A line to PostgreSQL that breaks at a COMMIT: before the server gets it, or before its answer comes back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

_COMMIT = b"COMMIT\x00"
_SOCKET = ".s.PGSQL.5432"
_PIECE_BYTES = 1 << 16


class CuttingProxy:
    """Passes everything on between a Unix socket of its own and the server's, and counts the COMMITs.

    Args:
        directory: where its socket is; paths of sockets are short.
        server: directory of the server's socket.

    Attributes:
        commits: how many it has seen.
    """

    def __init__(self, directory: Path, server: Path) -> None:
        self._server = str(server / _SOCKET)
        self._lock = threading.Lock()
        self._cut_at, self._answered = 0, False
        self.commits = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / _SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, commit: int, *, answered: bool) -> None:
        """Breaks the line once, at the n-th COMMIT from now.

        Args:
            commit: counted from 1; 0 for never.
            answered: whether the server gets the COMMIT and only its answer is lost.
        """
        with self._lock:
            self.commits, self._cut_at, self._answered = 0, commit, answered

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                line = _Line(client, server)
                threading.Thread(target=self._to_server, args=(line,), daemon=True).start()
                threading.Thread(target=line.to_client, daemon=True).start()

    def _to_server(self, line: _Line) -> None:
        with line, suppress(OSError):
            while piece := line.client.recv(_PIECE_BYTES):
                if _COMMIT in piece and self._is_the_one():
                    if not self._answered:
                        return
                    line.swallows.set()
                line.server.sendall(piece)

    def _is_the_one(self) -> bool:
        with self._lock:
            self.commits += 1
            return self.commits == self._cut_at


class _Line:
    """One connection, from end to end."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.swallows = threading.Event()

    def to_client(self) -> None:
        with self, suppress(OSError):
            while piece := self.server.recv(_PIECE_BYTES):
                if self.swallows.is_set() and _COMMIT in piece:
                    return
                self.client.sendall(piece)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for end in (self.client, self.server):
            # Wakes the other thread, which closes them too.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
