"""Rows 1 to 39 of the list of hostile files: each refused with its reason, and nothing else touched.

Every row goes the way of a directory and the way of a remote caller who declares and sends whatever it likes with the
checks in this process, and once more through the real worker, watched and in its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hostile_page
import pytest
from handmade import MODULES, write_adapter, write_base
from hostile_files import CASES, DECLARED, write_case
from publishing import entries
from spoiling import Case
from watched_worker import GREW, TOUCHED, plant, watched

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.digest import file_digest, sha256_digest
from switchyard.registry.errors import DigestMismatch, ValidationFailed, VersionRefused
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import FILE_TYPES, FileEntry
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import ValidationRequest, validate_files
from switchyard.registry.verdicts import Reason

GOOD, EVIL = AdapterName("team", "good"), AdapterName("team", "evil")
PROD = AdapterRef.parse("team/good@prod")
MARK = Path("/tmp/switchyard-was-here")  # noqa: S108 - what the pickles would leave
ROWS = set(range(1, 40))


@dataclass(frozen=True)
class Target:
    """A registry that holds something worth keeping."""

    registry: Registry
    base: BaseModelSpec
    planted: Path

    def digests(self) -> list[str]:
        version = self.registry.get_version(PROD)
        kept = [sha256_digest(self.registry.read_blob(entry.digest)) for entry in version.files]
        return [version.digest, *kept, self.registry.base_model(self.base.digest).digest]

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Whatever happens in the block, what was there before is there afterwards, and nothing was run."""
        before = self.digests()
        yield
        assert self.digests() == before
        assert not MARK.exists()
        assert not (self.planted / "imported").exists()

    def publish(self, source: Path) -> tuple[str, ...]:
        return self.registry.publish(EVIL, source, base_digest=self.base.digest, publisher="eve").warnings

    def send(self, source: Path, declared: list[FileEntry], key: str) -> tuple[str, ...]:
        """What a remote caller does who ignores every check on its own side."""
        session = self.registry.begin_publish(
            EVIL,
            declared,
            base_digest=self.base.digest,
            lineage=Lineage(),
            idempotency_key=key,
            publisher="eve",
        )
        by_digest = {entry.digest: source / entry.path for entry in declared}
        for digest in session.missing:
            with by_digest[digest].open("rb") as file:
                self.registry.upload(session.session_id, digest, 0, iter(lambda: file.read(1 << 20), b""))
        return self.registry.commit_publish(session.session_id, actor="eve").warnings


def opened(
    place: Path, validate: Callable[..., object] | None = None, planted: Path | None = None
) -> Iterator[Target]:
    with Registry.open(place / "r", validate=validate or validate_files) as registry:  # type: ignore[arg-type]
        base = registry.register_base(describe_base(write_base(place / "base")))
        source = write_adapter(place / "good", seed=99)
        registry.publish(GOOD, source, base_digest=base.digest, publisher="ann", set_alias="prod")
        yield Target(registry, base, planted or place)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from opened(tmp_path_factory.mktemp("inside"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    place = tmp_path_factory.mktemp("worker")
    planted = plant(place / "planted")
    yield from opened(place, watched(planted, place), planted)


def told(act: Callable[[], tuple[str, ...]]) -> tuple[set[str], bool]:
    """The reasons given, and whether the files became a version."""
    try:
        warnings = act()
    except VersionRefused as error:
        refused = error
    else:
        return {warning.partition(" ")[0] for warning in warnings}, True
    assert str(refused).replace("\n", "").isprintable()
    return {str(verdict.reason) for verdict in refused.verdicts}, False


def check(case: Case, found: tuple[set[str], bool]) -> None:
    reasons, accepted = found
    assert accepted is case.is_accepted
    assert not case.reason or case.reason in reasons


def declared_by(case: Case, source: Path) -> list[FileEntry] | None:
    """Every file as a caller would declare it; None where only a directory can be wrong in this way."""
    files = sorted(source.iterdir())
    if case.row in (9, 10) or (case.row == 34 and case.is_accepted):
        return None
    return [FileEntry(path.name, file_digest(path), path.stat().st_size) for path in files]


@pytest.mark.parametrize("name", CASES)
def test_row(target: Target, name: str, tmp_path: Path) -> None:
    case, source = CASES[name], write_case(CASES[name], tmp_path / "a")
    with target.untouched():
        check(case, told(lambda: target.publish(source)))
        declared = declared_by(case, source)
        if declared is not None:
            check(case, told(lambda: target.send(source, declared, case.name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_row_in_the_worker(guarded: Target, name: str, tmp_path: Path) -> None:
    """The worker has no network, starts, imports and writes nothing, and stays within 1.2 files and 200 MB."""
    case, source = CASES[name], write_case(CASES[name], tmp_path / "a")
    declared = declared_by(case, source)
    with guarded.untouched():
        check(case, told(lambda: target_way(guarded, source, declared, case.name)))


def target_way(target: Target, source: Path, declared: list[FileEntry] | None, key: str) -> tuple[str, ...]:
    """The way of a remote caller, who is checked by nobody before; a directory's where there is no other."""
    return target.publish(source) if declared is None else target.send(source, declared, key)


@pytest.mark.parametrize("title", DECLARED)
def test_names_that_only_a_caller_can_declare(target: Target, title: tuple[int, str], tmp_path: Path) -> None:
    name, reason = DECLARED[title]
    source = write_adapter(tmp_path / "a", seed=3)
    files = [*entries(source), FileEntry(name, sha256_digest(b"x"), 1)]
    with target.untouched():
        assert told(lambda: target.send(source, files, title[1])) == ({reason}, False)


def test_row_30_bytes_that_are_not_those_declared(target: Target, tmp_path: Path) -> None:
    """Changed before they were sent, changed after they were described, changed after they were stored."""
    source = write_adapter(tmp_path / "a", seed=4)
    files = entries(source)
    other = write_adapter(tmp_path / "b", seed=5)
    with target.untouched():
        with pytest.raises(DigestMismatch):
            target.send(other, files, "row 30")
        paths = tuple((entry, other / entry.path) for entry in files if entry.path != "adapter_config.json")
        outcome = validate_files(ValidationRequest(paths, MODULES))
        assert {verdict.reason for verdict in outcome.faults} == {Reason.DIGEST}
        assert outcome.shape is None


def test_the_page_is_what_is_tested() -> None:
    written = (Path(__file__).parents[2] / "docs" / "hostile-files.md").read_text(encoding="utf-8")
    assert written == hostile_page.page(), "write it again, see tests/support/hostile_page.py"


def test_the_rows_are_all_there() -> None:
    assert {case.row for case in CASES.values()} | {row for row, _ in DECLARED} | {30} == ROWS


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.row in (9, 10)])
def test_the_worker_itself_opens_only_regular_files(guarded: Target, name: str, tmp_path: Path) -> None:
    """Also when whoever calls it has not looked."""
    source = write_case(CASES[name], tmp_path / "a")
    there = {path.name for path in source.iterdir()}
    files = tuple((FileEntry(path, sha256_digest(b""), 1), source / path) for path in FILE_TYPES if path in there)
    outcome = watched(guarded.planted, tmp_path)(ValidationRequest(files, MODULES))
    assert CASES[name].reason in {str(verdict.reason) for verdict in outcome.faults}


@pytest.mark.parametrize(
    "attack",
    [
        "import planted_evil",
        "import socket; socket.socket()",
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
        "open('/etc/passwd')",
        "open('/tmp/x', 'w')",
        "compile('1', 'x', 'eval')",
        "import ctypes; ctypes.CDLL(None).system",
    ],
)
def test_the_watcher_sees_what_it_should(guarded: Target, attack: str, tmp_path: Path) -> None:
    """A worker that was taken over would be noticed: the tests above can fail."""
    with pytest.raises(ValidationFailed, match=f"status {TOUCHED}"):
        watched(guarded.planted, tmp_path, attack)(ValidationRequest((), MODULES))


def test_the_watcher_sees_what_grew(guarded: Target, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match=f"status {GREW}"):
        watched(guarded.planted, tmp_path, "bytes(range(256)) * (1 << 20)")(ValidationRequest((), MODULES))
