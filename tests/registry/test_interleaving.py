"""What another process does between two steps of a publish is found before anything relies on it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from handmade import ManualClock
from publishing import begin, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import AdapterNotFound, LeaseExpired, SessionClosed, UploadIncomplete
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]


def change_index(root: Path, statement: str) -> None:
    """Does to the tables what a collector would."""
    with closing(sqlite3.connect(root / "registry.db", isolation_level=None)) as plain:
        plain.execute(statement)


def test_a_lost_pin_is_found_before_the_row(
    root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    """Between linking a blob and its row, the session may lose its pins; a row then must not appear."""
    other = Registry.open(root)
    other.register_base(base)
    seen: list[Step] = []

    def abort_meanwhile(step: Step) -> None:
        seen.append(step)
        if step is Step.BLOB_DIRECTORY_SYNCED and seen.count(step) == 1:
            other.abort_publish(begin(other, base, name, adapter(0)).session_id)

    with Registry.open(root, validate=validate_files, on_step=abort_meanwhile) as registry:
        with pytest.raises(SessionClosed, match="ABORTED"):
            publish(registry, base, name, adapter(0), idempotency_key="k")
        assert len(begin(other, base, name, adapter(0)).missing) == 3
        assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1
    other.close()


def test_a_collected_pin_is_found_before_the_row(
    root: Path, template: Path, name: AdapterName, adapter: Make
) -> None:
    """The session is still open, but what kept its blob alive is gone: the file may be next."""
    shutil.copytree(template, root)

    def collect_meanwhile(step: Step) -> None:
        if step is Step.BLOB_DIRECTORY_SYNCED:
            change_index(root, "DELETE FROM session_blob")

    with Registry.open(root, validate=validate_files, on_step=collect_meanwhile) as registry:
        (base,) = registry.base_models()
        session = begin(registry, base, name, adapter(0))
        entry = entries(adapter(0))[0]
        with pytest.raises(SessionClosed, match="does not hold"):
            registry.upload(session.session_id, entry.digest, 0, [(adapter(0) / entry.path).read_bytes()])
        assert entry.digest in begin(registry, base, name, adapter(0)).missing


def test_a_lease_that_ran_out_is_found_before_the_row(
    root: Path, template: Path, clock: ManualClock, name: AdapterName, adapter: Make
) -> None:
    shutil.copytree(template, root)

    def be_slow(step: Step) -> None:
        if step is Step.BLOB_LINKED:
            clock.now_s += 10_000

    with Registry.open(root, validate=validate_files, on_step=be_slow, clock=clock) as registry:
        (base,) = registry.base_models()
        session = begin(registry, base, name, adapter(0))
        entry = entries(adapter(0))[0]
        with pytest.raises(LeaseExpired):
            registry.upload(session.session_id, entry.digest, 0, [(adapter(0) / entry.path).read_bytes()])
        assert entry.digest in begin(registry, base, name, adapter(0)).missing


@pytest.mark.parametrize("statement", ["UPDATE blob SET state = 'CORRUPT'", "DELETE FROM blob"])
def test_a_blob_that_went_bad_is_found_before_the_commit(
    statement: str, root: Path, template: Path, name: AdapterName, adapter: Make
) -> None:
    shutil.copytree(template, root)
    done: list[Step] = []

    def spoil_meanwhile(step: Step) -> None:
        if step is Step.VALIDATED and not done:
            done.append(step)
            change_index(root, statement)

    with Registry.open(root, validate=validate_files, on_step=spoil_meanwhile) as registry:
        (base,) = registry.base_models()
        with pytest.raises(UploadIncomplete, match="went missing") as caught:
            publish(registry, base, name, adapter(0), idempotency_key="k")
        assert set(caught.value.missing) == {entry.digest for entry in entries(adapter(0))}
        with pytest.raises(AdapterNotFound):
            registry.list_versions(name)
        assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1


def test_another_caller_with_the_same_key_commits_first(
    root: Path, template: Path, name: AdapterName, adapter: Make
) -> None:
    """Both get the version; the alias has moved once."""
    shutil.copytree(template, root)
    other = Registry.open(root, validate=validate_files)

    def commit_meanwhile(step: Step) -> None:
        if step is Step.VALIDATED:
            publish(other, base, name, adapter(0), idempotency_key="k", set_alias="prod")

    with Registry.open(root, validate=validate_files, on_step=commit_meanwhile) as registry:
        (base,) = registry.base_models()
        version = publish(registry, base, name, adapter(0), idempotency_key="k", set_alias="prod")
    assert version == other.get_version(AdapterRef.parse("team/addresses@prod"))
    assert [move.generation for move in other.alias_history(name, "prod")] == [1]
    assert list((root / "uploads").iterdir()) == []
    other.close()


def test_another_caller_with_the_same_key_commits_while_a_blob_is_written(
    root: Path, template: Path, name: AdapterName, adapter: Make
) -> None:
    shutil.copytree(template, root)
    other = Registry.open(root, validate=validate_files)
    done: list[Step] = []

    def commit_meanwhile(step: Step) -> None:
        if step is Step.PART_SYNCED and not done:
            done.append(step)
            session = begin(other, base, name, adapter(0))
            send_all(other, session, adapter(0))
            other.commit_publish(session.session_id, actor="bob")

    with Registry.open(root, validate=validate_files, on_step=commit_meanwhile) as registry:
        (base,) = registry.base_models()
        assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1
    assert len(other.list_versions(name)[0]) == 1
    assert list((root / "uploads").iterdir()) == []
    other.close()
