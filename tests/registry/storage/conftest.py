"""Every kind of store, to be held to the same promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_rows import ShiftedClock
from object_store import ObjectStore, object_store

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.steps import OnStep, ignore_step
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.storage.objects import ObjectBlobs
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

OpenStore = Callable[..., BlobStore]
_prefixes = itertools.count()


@pytest.fixture(scope="session")
def s3_service() -> Iterator[ObjectStore]:
    with object_store() as service:
        yield service


@pytest.fixture
def s3(s3_service: ObjectStore) -> Iterator[ObjectStore]:
    """The service without faults; each test takes a folder of its own in it."""
    s3_service.requests.clear()
    yield s3_service
    s3_service.heal()


@pytest.fixture
def bucket(s3: ObjectStore) -> Bucket:
    return s3.bucket(f"test-{next(_prefixes)}")


@pytest.fixture(params=["files", "memory", "s3"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store again, as another process would."""
    bucket: Bucket | None = None
    if request.param == "memory":
        bucket = Bucket.open("memory:///")
    elif request.param == "s3":
        bucket = request.getfixturevalue("bucket")

    def opened(on_step: OnStep = ignore_step) -> BlobStore:
        return FileBlobs(tmp_path, on_step) if bucket is None else ObjectBlobs(bucket, tmp_path, on_step)

    return opened


@pytest.fixture
def blobs(open_store: OpenStore) -> BlobStore:
    return open_store()


@pytest.fixture
def shifted() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def open_registry(
    bucket: Bucket, root: Path, shifted: ShiftedClock, base: BaseModelSpec, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Registry]]:
    opened: list[Registry] = []

    def blobs_in_bucket(_url: str, root: Path, on_step: OnStep) -> ObjectBlobs:
        return ObjectBlobs(bucket, root, on_step)

    monkeypatch.setattr("switchyard.registry.store.open_blobs", blobs_in_bucket)

    def open_one(on_step: OnStep = ignore_step, machine: Path = root) -> Registry:
        registry = Registry.open(machine, clock=shifted, validate=validate_files, on_step=on_step)
        registry.register_base(base)
        opened.append(registry)
        return registry

    yield open_one
    for registry in opened:
        registry.close()
