"""Bytes that go to the bucket and come from it without passing the registry, and what happens when they do not."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import write_adapter, write_base
from object_store import BUCKET, Fault, ObjectStore, object_store

from switchyard.clients import RegistryClient, RetryPolicy, direct
from switchyard.clients.embedded import embedded_registry
from switchyard.registry.base_model import describe_base
from switchyard.registry.location import Location
from switchyard.registry.store import Registry

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectStore]:
    with object_store() as service:
        yield service


@pytest.fixture
def client(bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryClient]:
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    location = Location(tmp_path / "registry", blobs=f"s3://{BUCKET}/{tmp_path.name}")
    with Registry.open(location) as registry:
        registry.register_base(describe_base(write_base(tmp_path / "base")))
    with (
        embedded_registry(location.root) as address,
        RegistryClient(address, policy=RetryPolicy(first_delay_s=0.001)) as made,
    ):
        bucket.requests.clear()
        yield made
    bucket.heal()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_bytes_pass_the_registry_by(
    bucket: ObjectStore, client: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[str] = []
    receive = direct.receive

    def counted(url: str, offset: int, deadline_s: float) -> Iterator[bytes]:
        received.append(url)
        return receive(url, offset, deadline_s)

    monkeypatch.setattr(direct, "receive", counted)
    adapter = write_adapter(tmp_path / "adapter")
    client.push(adapter, "team/a", alias="prod", directly=True)
    client.pull("team/a@prod", tmp_path / "copy", directly=True)
    client.pull("team/a@prod", tmp_path / "through")
    assert contents(tmp_path / "copy") == contents(tmp_path / "through") == contents(adapter)
    sent = [one for one in bucket.requests if one.startswith("PUT ") and "/incoming/" in one]
    assert len(sent) == len(received) == len(contents(adapter))


def test_what_the_store_asks_for_is_sent_along(
    bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    def opened(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert timeout == 5.0
        asked.append(dict(request.header_items()))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", opened)
    file = tmp_path / "bytes"
    file.write_bytes(b"abc")
    direct.send("https://store/x", {"x-ms-blob-type": "BlockBlob", "Content-Length": "7"}, file, 3, 5.0)
    (sent,) = ({name.lower(): value for name, value in headers.items()} for headers in asked)
    assert (sent["x-ms-blob-type"], sent["content-length"]) == ("BlockBlob", "3")


def test_a_header_that_is_none_is_not_sent(bucket: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "bytes"
    file.write_bytes(b"abc")
    seen = len(bucket.requests)
    with pytest.raises(direct.DirectFailed):
        direct.send(f"{bucket.endpoint}/x", {"x-a": "b\r\nx-c: d"}, file, 3, 5.0)
    assert len(bucket.requests) == seen


def test_what_cannot_go_directly_goes_through_the_registry(
    bucket: ObjectStore, client: RegistryClient, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    bucket.fail(Fault.RESET, "PUT", "/incoming/", times=100)
    client.push(adapter, "team/a", directly=True)
    bucket.fail(Fault.DENIED, "GET", "/blobs/")
    client.pull("team/a:1", tmp_path / "copy", directly=True)
    assert contents(tmp_path / "copy") == contents(adapter)


def test_a_download_that_breaks_off_goes_on_through_the_registry(
    bucket: ObjectStore, client: RegistryClient, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    client.push(adapter, "team/a")
    bucket.fail(Fault.HALF, "GET", "/blobs/")
    client.pull("team/a:1", tmp_path / "copy", directly=True)
    assert contents(tmp_path / "copy") == contents(adapter)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "/etc/passwd"])
def test_an_address_that_is_none_of_a_store_is_not_opened(tmp_path: Path, url: str) -> None:
    with pytest.raises(direct.DirectFailed, match="not one of a store"):
        next(direct.receive(url, 0, 1.0))
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(direct.DirectFailed, match="not one of a store"):
        direct.send(url, {}, tmp_path / "x", 1, 1.0)
