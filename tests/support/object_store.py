"""An S3 service of this process on 127.0.0.1, and the faults that a real one has on a bad day.

moto answers; a thin layer in front of it refuses, resets, halves or loses answers when a test says so.
"""

from __future__ import annotations

import io
import socket
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import S3Store
from werkzeug.serving import WSGIRequestHandler, make_server

from switchyard.registry.storage.bucket import Bucket

BUCKET = "adapters"
Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Fault(StrEnum):
    """What may go wrong between a client and a store."""

    REFUSED = "answered 500, nothing done"
    LOST = "done, answered 500"
    RESET = "connection reset, nothing done"
    HALF = "half the answer, then closed"
    DENIED = "answered 403, nothing done"
    TWICE = "done twice, the second answer came"


@dataclass
class Trouble:
    """One planned fault: of requests with this method and this text in the path, so many after so many."""

    fault: Fault
    method: str
    containing: str
    times: int
    after: int = 0


@dataclass
class ObjectStore:
    """The service and its faults.

    Attributes:
        endpoint: where it listens.
        requests: every request so far, as `METHOD path`.
    """

    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    _troubles: list[Trouble] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, fault: Fault, method: str, containing: str = "", times: int = 1) -> None:
        """Plans a fault."""
        with self._lock:
            self._troubles.append(Trouble(fault, method, containing, times))

    def fail_nth(self, fault: Fault, method: str, number: int) -> None:
        """Plans a fault of the n-th request with that method from now on."""
        with self._lock:
            self._troubles.append(Trouble(fault, method, "", 1, number - 1))

    def heal(self) -> None:
        """Drops what is planned."""
        with self._lock:
            self._troubles.clear()

    def bucket(self, prefix: str, *, retries: int = 0) -> Bucket:
        """Opens a folder of the one bucket; without retries, so that a test sees each fault."""
        store = S3Store(
            BUCKET,
            prefix=prefix,
            config={
                "endpoint": self.endpoint,
                "access_key_id": "test",
                "secret_access_key": "test",
                "region": "us-east-1",
                "checksum_algorithm": "SHA256",
            },
            client_options={"allow_http": True},
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=30),
                "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=1)},
            },
        )
        return Bucket(store)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to find the service."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, if any."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for trouble in self._troubles:
                if trouble.times and trouble.method == method and trouble.containing in path:
                    if trouble.after:
                        trouble.after -= 1
                        continue
                    trouble.times -= 1
                    return trouble.fault
        return None


class _FaultLayer:
    def __init__(self, application: Callable[..., Iterable[bytes]], store: ObjectStore) -> None:
        self._application = application
        self._store = store

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        fault = self._store.take(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if fault is None:
            return self._application(environ, start_response)
        if fault is Fault.RESET:
            connection: socket.socket = environ["werkzeug.socket"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            start_response("500 Internal Server Error", [])
            return []
        if fault in _UNDONE:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault is Fault.TWICE:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            b"".join(self._application({**environ, "wsgi.input": io.BytesIO(body)}, lambda *_: None))
            return self._application({**environ, "wsgi.input": io.BytesIO(body)}, start_response)
        if fault is Fault.HALF:
            answer = b"".join(self._application(environ, start_response))
            return [answer[: len(answer) // 2]]
        if fault is Fault.LOST:
            b"".join(self._application(environ, lambda *_: None))
        start_response("403 Forbidden" if fault is Fault.DENIED else "500 Internal Server Error", [])
        return [b""]


_UNDONE = {Fault.REFUSED, Fault.DENIED}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Nothing to say."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Runs the service until the context ends."""
    store = ObjectStore()
    application = _FaultLayer(DomainDispatcherApplication(create_backend_app), store)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        request = urllib.request.Request(f"{store.endpoint}/{BUCKET}", method="PUT")  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
