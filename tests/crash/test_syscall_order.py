"""The order of system calls: bytes, then name, then rows, then the acknowledgement, each durable before the next."""

from __future__ import annotations

from pathlib import Path

import pytest
import syscalls
from durability import Durability
from scenarios import SCENARIOS
from syscalls import Call
from trials import Trials

ROOT, REPORT = Path("/r"), Path("/report")
BLOB, PART, LOG = "/r/blobs/sha256/b", "/r/uploads/s/b.part", "/r/registry.db-wal"


@pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_everything_is_durable_before_it_is_relied_on(scenario: str, trials: Trials) -> None:
    trial = trials.new(scenario)
    assert trials.run_traced(trial) == 0
    assert trial.told("promise")
    assert trial.order_faults() == []
    assert {"fdatasync", "pwrite64"} <= syscalls.counts_of(trial.log).keys()


def call(name: str, *paths: str, ok: bool = True) -> Call:
    return Call(name, paths, ok, "" if ok else "EIO", not ok, "")


GOOD = [
    call("write", PART),
    call("fsync", PART),
    call("link", PART, BLOB),
    call("fsync", "/r/blobs/sha256"),
    call("pwrite64", LOG),
    call("fdatasync", LOG),
    call("writev", str(REPORT)),
]


def test_the_right_order_has_no_fault() -> None:
    assert Durability(ROOT, REPORT).follow(GOOD) == []


@pytest.mark.parametrize(
    ("left_out", "fault"),
    [(1, "named before its bytes"), (3, "rows are written before"), (5, "acknowledged before")],
)
def test_each_missing_sync_is_a_fault(left_out: int, fault: str) -> None:
    calls = [made for place, made in enumerate(GOOD) if place != left_out]
    assert fault in Durability(ROOT, REPORT).follow(calls)[0]


def test_a_failed_sync_is_not_mended_by_another() -> None:
    calls = [call("write", PART), call("fsync", PART, ok=False), call("fsync", PART)]
    assert "its first sync failed" in Durability(ROOT, REPORT).follow(calls)[0]
    rewritten = [*calls[:2], call("write", PART), calls[2]]
    assert Durability(ROOT, REPORT).follow(rewritten) == []


def test_a_file_goes_after_its_row_says_so() -> None:
    assert "removed before" in Durability(ROOT, REPORT).follow([call("unlink", BLOB)])[0]
    marked = [call("pwrite64", LOG), call("fdatasync", LOG), call("unlink", BLOB)]
    assert Durability(ROOT, REPORT).follow(marked) == []
