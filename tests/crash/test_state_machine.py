"""The whole registry against an oracle: calls in any order, from two processes, while time passes and blobs go.

Hypothesis draws calls and finds the shortest run in which registry and oracle differ. Publishing is
split into its steps, so that everything else can happen between them. The oracle is in
`registry_model`, the calls on the real thing in `registry_calls`.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from handmade import lora_config, lora_tensors, write_adapter, write_base
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model_memory import LEASE_S, UNDELETE_S
from postgres import PostgresServer
from registry_calls import Calls, Elsewhere, content_of
from registry_model import RegistryModel

from switchyard.registry.base_model import describe_base
from switchyard.registry.location import Location
from switchyard.registry.store import Registry

Beginnings = Callable[[Path], AbstractContextManager[Location]]
# A run that fails is short enough to read; making it shorter takes longer than finding it.
PHASES = (Phase.generate,)
CONTENTS = 4
ONE, TWO, OTHER, NOTHING = "team/one", "team/two", "other/one", "team/nothing"
# Most calls are about something that is there: a call that finds nothing tests little.
names = st.sampled_from([ONE, ONE, ONE, ONE, TWO, TWO, OTHER, NOTHING])
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
aliases = st.sampled_from(["prod", "prod", "next", "never"])
numbers = st.sampled_from([1, 1, 2, 2, 3, 4])
expectations = st.sampled_from(["any", "any", "current", "current", "current", "zero", "stale"])
moves = st.sampled_from(["set_alias", "rollback", "rollback", "set_canary", "delete_alias"])
percents = st.sampled_from([0, 1, 50, 99])
states = st.sampled_from(["READY", "DEPRECATED", "YANKED", "QUARANTINED", "DELETED", "DELETED", "PURGED"])


class World:
    """What the machines of one test share.

    Args:
        beginnings: copies a registry that holds something, to a directory.
        model: what the oracle knows of that registry.
        ids: its upload sessions.
        sources: what can be published.
        elsewhere: the other process.
        directory: where the copies go.
    """

    def __init__(
        self,
        beginnings: Beginnings,
        model: RegistryModel,
        ids: dict[tuple[str, str], str],
        sources: list[Path],
        elsewhere: Elsewhere,
        directory: Path,
    ) -> None:
        self.beginnings = beginnings
        self.model = model
        self.ids = ids
        self.sources = sources
        self.elsewhere = elsewhere
        self.directory = directory
        self.runs = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()


class Machine(RuleBasedStateMachine):
    """Calls that both sides answer; `world` is set by the test."""

    world: World
    sessions = Bundle("sessions")

    @initialize()
    def make(self) -> None:
        self.world.runs += 1
        self.stack = ExitStack()
        root = self.world.directory / str(self.world.runs)
        location = self.stack.enter_context(self.world.beginnings(root))
        self.stack.callback(shutil.rmtree, root)
        self.model, self.ids = copy.deepcopy((self.world.model, self.world.ids))
        self.here = Calls(location, self.world.sources)
        self.stack.callback(self.here.close)
        self.world.elsewhere.open(location)
        self.stack.callback(self.world.elsewhere.close)
        self.turn = 0

    def teardown(self) -> None:
        if hasattr(self, "here"):
            with self.stack:
                assert self.here.perform(self.model.now_s, "check") == ()

    def both(self, call: str, *arguments: object, at: tuple[str, str] | None = None) -> object:
        """Asks the oracle, and one of the two processes in turn."""
        told = self.model.perform(call, *([at] if at else []), *arguments)
        self.world.outcomes[call, told if isinstance(told, str) and told[0].isupper() else "done"] += 1
        found = self.ask(call, *([self.ids[at]] if at else []), *arguments)
        assert found == told, f"{call}{arguments}: the registry says {found}, the oracle {told}"
        return found

    def ask(self, call: str, *arguments: object) -> Any:
        self.turn += 1
        side: Any = self.here if self.turn % 2 else self.world.elsewhere
        return side.perform(self.model.now_s, call, *arguments)

    def generation(self, name: str, alias: str, expectation: str) -> int | None:
        adapter = self.model.adapters.get(name)
        found = len(adapter.aliases[alias].moves) if adapter and alias in adapter.aliases else 0
        return {"any": None, "current": found, "zero": 0, "stale": found + 1}[expectation]

    # -- publishing ------------------------------------------------------

    @rule(target=sessions, name=names, content=st.integers(0, CONTENTS - 1), key=keys)
    def begin(self, name: str, content: int, key: str) -> tuple[str, str]:
        at = (name.partition("/")[0], key)
        told = self.model.perform("begin", name, content, key)
        found = self.ask("begin", name, content, key)
        if isinstance(found, tuple):
            assert self.ids.setdefault(at, found[0]) == found[0]
            found = found[1:]
        assert found == told
        return at

    @rule(at=sessions, file=st.integers(0, 2), part=st.sampled_from([0.5, 1.0, 1.0, 1.0]))
    def upload(self, at: tuple[str, str], file: int, part: float) -> None:
        digest, size_bytes = list(self.model.sessions[at].content.files.items())[file]
        arrived = self.model.sessions[at].parts.get(digest, 0)
        self.both("upload", digest, max(arrived, int(size_bytes * part)), at=at)

    @rule(at=sessions)
    def upload_all(self, at: tuple[str, str]) -> None:
        for digest, size_bytes in self.model.sessions[at].content.files.items():
            self.both("upload", digest, size_bytes, at=at)

    @rule(at=sessions, file=st.integers(0, 2))
    def progress(self, at: tuple[str, str], file: int) -> None:
        self.both("progress", list(self.model.sessions[at].content.files)[file], at=at)

    @rule(at=sessions, alias=st.none() | aliases, expectation=expectations)
    def commit(self, at: tuple[str, str], alias: str | None, expectation: str) -> None:
        expected = self.generation(self.model.sessions[at].name, alias, expectation) if alias else None
        self.both("commit", alias, expected, at=at)

    @rule(at=sessions)
    def abort(self, at: tuple[str, str]) -> None:
        self.both("abort", at=at)

    @rule(name=names, content=st.integers(0, CONTENTS - 1), alias=st.none() | aliases)
    def publish(self, name: str, content: int, alias: str | None) -> None:
        """All at once, under a key of its own: there should be something to work with."""
        key = f"own-{self.turn}"
        at = self.begin(name, content, key)
        self.upload_all(at)
        self.both("commit", alias, None, at=at)

    # -- names -------------------------------------------------------------

    @rule(name=names, alias=aliases, number=numbers, expectation=expectations, call=moves, percent=percents)
    def move(self, name: str, alias: str, number: int, expectation: str, call: str, percent: int) -> None:
        expected = self.generation(name, alias, expectation)
        rest = {"set_alias": (number,), "set_canary": (number, percent)}.get(call, ())
        self.both(call, name, alias, *rest, expected)

    @rule(moves=st.lists(st.tuples(names, aliases, numbers, expectations), min_size=1, max_size=3))
    def move_many(self, moves: list[tuple[str, str, int, str]]) -> None:
        self.both(
            "move_many",
            [(name, alias, number, self.generation(name, alias, seen)) for name, alias, number, seen in moves],
        )

    @rule(name=names, number=numbers, to=states, instead=st.none() | numbers)
    def move_state(self, name: str, number: int, to: str, instead: int | None) -> None:
        self.both("move_state", name, number, to, instead)

    @rule(call=st.sampled_from(["undelete", "release"]), choice=st.integers(0, 7), name=names, number=numbers)
    def go_back(self, call: str, choice: int, name: str, number: int) -> None:
        """Of a version that has somewhere to go back to, if there is one."""
        left = [
            (name, number)
            for name, adapter in self.model.adapters.items()
            for number, version in enumerate(adapter.versions, 1)
            if version.state in {"undelete": {"DELETED", "PURGED"}, "release": {"QUARANTINED"}}[call]
        ]
        self.both(call, *(left[choice % len(left)] if left and choice else (name, number)))

    @rule(
        name=names, number=st.none() | numbers, key=st.sampled_from(["a", "b"]), value=st.sampled_from(["", "x", "é"])
    )
    def tag(self, name: str, number: int | None, key: str, value: str) -> None:
        self.both("tag", name, number, key, value)

    # -- time and housekeeping -------------------------------------------

    @rule(passed_s=st.sampled_from([1.0, LEASE_S / 2, LEASE_S + 1, UNDELETE_S, UNDELETE_S, -60.0]))
    def let_time_pass(self, passed_s: float) -> None:
        """Sometimes a clock is set back."""
        self.model.now_s += passed_s

    @rule(dry_run=st.booleans())
    def collect(self, dry_run: bool) -> None:
        self.both("collect", dry_run)

    # -- reading ---------------------------------------------------------

    @rule(name=names, alias=aliases, session_key=st.sampled_from(["", "ann", "bob", "eve"]))
    def resolve(self, name: str, alias: str, session_key: str) -> None:
        self.both("resolve", name, alias, session_key)

    @rule(name=names, number=numbers)
    def resolve_version(self, name: str, number: int) -> None:
        self.both("resolve_version", name, number)

    @precondition(lambda self: hasattr(self, "here"))
    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        found, told = self.ask("look"), self.model.look()
        for part, expected in told.items():
            assert found[part] == expected, part


@pytest.fixture
def elsewhere(processes: ForkServerContext, few: list[Path]) -> Iterator[Elsewhere]:
    other = Elsewhere(processes, few)
    yield other
    other.end()


@pytest.fixture
def few(tmp_path: Path) -> list[Path]:
    """Small adapters; all share their configuration, and two share a README."""
    return [
        write_adapter(
            tmp_path / f"adapter-{seed}",
            seed=seed % 3,
            tensors=lora_tensors(seed=seed, rank=1, targets=("q_proj",)),
            config=lora_config(r=1, target_modules=["q_proj"]),
        )
        for seed in range(CONTENTS)
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """A registry that knows one base."""
    base = describe_base(write_base(tmp_path / "base"))
    with ExitStack() as stack:
        location = Location(tmp_path / "template")
        if request.param == "postgresql":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            location = replace(location, database=stack.enter_context(postgres.database()))
        with Registry.open(location) as registry:
            registry.register_base(base)
        yield location


@pytest.fixture
def beginnings(template: Location, request: pytest.FixtureRequest) -> Beginnings:
    """Makes a copy of the template, however much it holds by then."""

    @contextmanager
    def copied(root: Path) -> Iterator[Location]:
        shutil.copytree(template.root, root)
        if not template.database:
            yield Location(root)
            return
        (root / "registry.json").unlink()
        postgres: PostgresServer = request.getfixturevalue("postgres")
        name = template.database.partition("@/")[2].partition("?")[0]
        with postgres.database(name) as url:
            yield Location(root, url)

    return copied


@pytest.fixture
def world(beginnings: Beginnings, template: Location, few: list[Path], elsewhere: Elsewhere, tmp_path: Path) -> World:
    """Three adapters with some versions, and aliases on them: an empty registry would refuse most calls."""
    base = describe_base(tmp_path / "base")
    # Files are dated by the operating system; for the collector they must all be old.
    model = RegistryModel([content_of(source, base) for source in few], time.time() + 1e6)
    ids = {}
    with closing(Calls(template, few)) as calls:

        def both(call: str, *arguments: object) -> Any:
            model.perform(call, *arguments)
            return calls.perform(model.now_s, call, *arguments)

        for name, content in ((ONE, 0), (ONE, 1), (ONE, 2), (TWO, 0), (TWO, 1), (OTHER, 3)):
            key = f"{name}-{content}"
            at = (name.partition("/")[0], key)
            ids[at] = both("begin", name, content, key)[0]
            for digest, size_bytes in model.contents[content].files.items():
                model.perform("upload", at, digest, size_bytes)
                calls.perform(model.now_s, "upload", ids[at], digest, size_bytes)
            model.perform("commit", at, "prod", None)
            calls.perform(model.now_s, "commit", ids[at], "prod", None)
        both("set_canary", ONE, "prod", 1, 50, None)
        both("set_alias", ONE, "next", 2, None)
        assert calls.perform(model.now_s, "look") == model.look()
    directory = tmp_path / "registries"
    directory.mkdir()
    return World(beginnings, model, ids, few, elsewhere, directory)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_registry_does_what_the_oracle_says(
    world: World, full: bool, tally: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    run_state_machine_as_test(
        type("BoundMachine", (Machine,), {"world": world}),
        settings=settings(
            # The small run is the same each time; the large one looks elsewhere each time.
            derandomize=not full,
            max_examples=150 if full else 12,
            stateful_step_count=60 if full else 30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
        ),
    )
    done = sum(count for (_, outcome), count in world.outcomes.items() if outcome == "done")
    calls = sum(world.outcomes.values())
    kinds = len(world.outcomes)
    tally(f"{request.node.name}: {world.runs} runs, {calls} calls, {done} of them done; {kinds} kinds of outcome")
