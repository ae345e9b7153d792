"""When the kernels are used, and what is said when they are not."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.server.native import library


@pytest.fixture(autouse=True)
def looked_for_again() -> Iterator[None]:
    library._found.cache_clear()
    yield
    library._found.cache_clear()


def test_the_switch_turns_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.SWITCH, "0")
    assert library.load() is None
    assert library.status() == "native kernels: off, SWITCHYARD_NATIVE=0"


def test_no_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert library.load() is None
    assert "not built" in library.status()


def test_a_broken_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library._file().write_bytes(b"not a library")
    assert library.load() is None
    assert "cannot be loaded" in library.status()


@pytest.mark.skipif(library.load() is None, reason=library.status())
def test_a_library_of_older_sources_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "INTERFACE", library.INTERFACE + 1)
    assert library.load() is None
    assert "run `make native`" in library.status()


@pytest.mark.skipif(library.load() is None, reason=library.status())
def test_a_library_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.SWITCH, raising=False)
    assert library.load() is library.load()
    assert library.status() == f"native kernels: {library._file().name}"


@pytest.mark.skipif(library.load() is None, reason=library.status())
def test_a_library_without_a_kernel_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Poorer(library.Library):
        def __init__(self, handle: ctypes.CDLL) -> None:
            super().__init__(handle)
            handle["switchyard_of_tomorrow"]

    monkeypatch.setattr(library, "Library", Poorer)
    assert library.load() is None
    assert "lacks a kernel; run `make native`" in library.status()
