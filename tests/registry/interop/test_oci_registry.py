"""A version through a real container registry, and what happens when that registry lies or refuses."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from oci_server import find_binary, oci_server
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import ArgumentInvalid, ArtifactNotFound, DigestMismatch, StorageFailed
from switchyard.registry.interop.oci_layout import export_layout, import_layout
from switchyard.registry.interop.oci_registry import OciReference, OciRegistry
from switchyard.registry.manifest import Manifest
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

OTHER = AdapterName("team", "imported")
needs_server = pytest.mark.skipif(
    find_binary() is None, reason="docker-registry is not here; `make tools` fetches it"
)
# bcrypt of `secret`, the only form that the registry takes.
HTPASSWD = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture
def layout(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path], tmp_path: Path
) -> Path:
    publish(registry, base, name, adapter(0))
    export_layout(registry, AdapterRef.parse(f"{name}:1"), tmp_path / "layout")
    return tmp_path / "layout"


def client(address: str, repository: str = "team/addresses", **options: str) -> OciRegistry:
    return OciRegistry(OciReference.parse(f"{address}/{repository}:v1"), plain_http=True, **options)  # type: ignore[arg-type]


@needs_server
def test_pushed_and_pulled_is_the_same_version(
    registry: Registry, layout: Path, name: AdapterName, tmp_path: Path
) -> None:
    digest = registry.get_version(AdapterRef.parse(f"{name}:1")).digest
    (tmp_path / "server").mkdir()
    with oci_server(tmp_path / "server") as address:
        remote = client(address)
        remote.push(layout, digest, "v1")
        # The second time nothing but the manifest is sent.
        remote.push(layout, digest, "v1")
        for number, selector in enumerate(("v1", digest)):
            assert client(address).pull(selector, tmp_path / f"pulled-{number}") == digest
        with pytest.raises(ArtifactNotFound):
            client(address).pull("v2", tmp_path / "nothing")
    version = import_layout(registry, tmp_path / "pulled-0", OTHER, publisher="ann").version
    assert version is not None
    assert version.digest == digest


@needs_server
def test_a_password_is_needed_and_given(registry: Registry, layout: Path, name: AdapterName, tmp_path: Path) -> None:
    digest = registry.get_version(AdapterRef.parse(f"{name}:1")).digest
    (tmp_path / "server").mkdir()
    with oci_server(tmp_path / "server", htpasswd=HTPASSWD) as address:
        for options in ({}, {"username": "ann", "password": "wrong"}):
            with pytest.raises(StorageFailed, match="401"):
                client(address, **options).push(layout, digest, "v1")
        client(address, username="ann", password="secret").push(layout, digest, "v1")


class Lying(http.server.BaseHTTPRequestHandler):
    """Answers with the right manifest and other blobs."""

    manifest = b""

    def do_GET(self) -> None:
        body = self.manifest if "/manifests/" in self.path else b"other bytes"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@contextmanager
def lying_server(manifest: bytes) -> Iterator[str]:
    handler = type("Handler", (Lying,), {"manifest": manifest})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_other_bytes_than_promised_are_refused(
    registry: Registry, layout: Path, name: AdapterName, tmp_path: Path
) -> None:
    version = registry.get_version(AdapterRef.parse(f"{name}:1"))
    manifest = Manifest.of(version.files, version.base.digest, version.lineage)
    with lying_server(manifest.data) as address:
        with pytest.raises(DigestMismatch, match="nothing of it was kept"):
            client(address).pull("v1", tmp_path / "pulled")
        with pytest.raises(DigestMismatch, match="expected sha256:0000"):
            client(address).pull("sha256:" + "0" * 64, tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "index.json").exists()
    assert not list((tmp_path / "pulled").rglob("*.part"))


@pytest.mark.parametrize(
    "text", ["", "host", "host/", "host/UPPER:1", "host/a", "host/a:", "host/../a:1", "h/a@sha256:1"]
)
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentInvalid):
        OciReference.parse(text)


def test_plain_http_stays_on_this_machine() -> None:
    with pytest.raises(ArgumentInvalid, match="use HTTPS"):
        OciRegistry(OciReference.parse("example.org/a:1"), plain_http=True)
    assert OciReference.parse("example.org:5000/a/b@sha256:" + "a" * 64).selector == "sha256:" + "a" * 64
