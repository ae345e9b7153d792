"""Random servers, tallies, clocks and people: what a rollout may end as, and what its history must hold then."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from handmade import ManualClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from publishing import publish
from tallies import tally

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.evidence import Rollout, RolloutState, state_of
from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.rollout.tally import Tallies, total
from switchyard.registry.rollout.verdict import Outcome, judge
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

NAME = AdapterName("team", "addresses")
SERVERS = st.integers(0, 2)
ENDS = {
    Outcome.REGRESSED: RolloutState.ROLLED_BACK,
    Outcome.HEALTHY: RolloutState.PROMOTED,
    Outcome.UNDECIDED: RolloutState.UNDECIDED,
}


@dataclass
class Server:
    """One that remembers the step it knows and what it saw of it, and may lag behind."""

    registry: Registry
    known: Rollout | None = None
    seen: Tallies | None = None


class Servers(RuleBasedStateMachine):
    """Three servers on one registry, against a model that holds the sum in memory."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        shutil.copytree(self.template, self.place / "registry")
        self.clock = Standing()
        self.servers = [Server(self.open()) for _ in range(3)]
        self.current: Rollout | None = None
        self.told: dict[int, Tallies] = {}
        self.moves = 1

    def open(self) -> Registry:
        return Registry.open(self.place / "registry", clock=self.clock, validate=validate_files)

    def teardown(self) -> None:
        for server in self.servers:
            server.registry.close()
        shutil.rmtree(self.place)

    @rule(which=SERVERS, shares=st.sampled_from([(10,), (10, 50)]))
    def start(self, which: int, shares: tuple[int, ...]) -> None:
        registry = self.servers[which].registry
        (alias,) = registry.aliases.all(NAME)
        plan = RolloutPlan(3 - alias.version, shares, window_s=5.0, min_answers=5)
        self.current = registry.rollouts.start(NAME, "prod", plan, actor="ann")
        self.told, self.moves = {}, self.moves + 1

    @rule(which=SERVERS)
    def look(self, which: int) -> None:
        server = self.servers[which]
        running = server.registry.rollouts.running()
        assert [one.generation for one in running] == ([self.current.generation] if self.current else [])
        server.known, server.seen = (running[0], None) if running else (None, None)

    @precondition(lambda self: any(server.known for server in self.servers))
    @rule(which=SERVERS, answers=st.integers(1, 40), failures=st.sampled_from([0, 0, 0, 5]), nan=st.booleans())
    def tell(self, which: int, answers: int, failures: int, nan: bool) -> None:
        server = self.servers[which]
        if server.known is None:
            return
        more = Tallies(tally(answers), tally(answers, failures=failures, not_finite=int(nan and failures > 0)))
        server.seen = more if server.seen is None else server.seen + more
        is_current = self.current is not None and server.known.generation == self.current.generation
        assert server.registry.rollouts.tell(server.known, f"server-{which}", server.seen) is is_current
        if is_current:
            self.told[which] = server.seen

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(which=SERVERS)
    def settle(self, which: int) -> None:
        server = self.servers[which]
        if server.known is None:
            return
        found = server.registry.rollouts.settle(server.known)
        if self.current is None or server.known.generation != self.current.generation:
            assert found is RolloutState.SUPERSEDED
            return
        current = self.current
        elapsed_s = self.clock.now_s - current.began_at_s
        outcome = judge(current.plan, total(self.told.values()), elapsed_s).outcome
        if outcome is Outcome.WATCHING:
            assert found is RolloutState.WATCHING
            return
        self.moves += 1
        if outcome is Outcome.HEALTHY and not current.is_last_step:
            (self.current,) = server.registry.rollouts.running()
            assert (self.current.step, found) == (current.step + 1, RolloutState.WATCHING)
        else:
            assert found is ENDS[outcome]
            self.current = None
        self.told = {}

    @rule(which=SERVERS, version=st.sampled_from([1, 2]))
    def somebody_moves_it(self, which: int, version: int) -> None:
        self.servers[which].registry.set_alias(NAME, "prod", version, actor="bob")
        self.current, self.moves = None, self.moves + 1

    @invariant()
    def the_history_has_no_gap_and_every_end_has_evidence(self) -> None:
        history = self.servers[0].registry.aliases.history(NAME, "prod")
        assert [event.generation for event in history] == list(range(self.moves, 0, -1))
        for event in history:
            if event.actor == "rollout":
                told = event.evidence["rollout"]
                assert state_of(event) is not None
                assert isinstance(told, dict)
                assert {"plan", "first", "second", "conditions", "elapsed_s"} <= set(told)


class Standing(ManualClock):
    """Time that stands until a rule moves it."""

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.timeout(300)
def test_many_servers(tmp_path: Path, template: Path, base: BaseModelSpec, adapter: Callable[[int], Path]) -> None:
    place = tmp_path / "two"
    shutil.copytree(template, place)
    with Registry.open(place, clock=ManualClock(), validate=validate_files) as registry:
        for seed in range(2):
            publish(registry, base, NAME, adapter(seed))
        registry.set_alias(NAME, "prod", 1, actor="ann")
    machine = type("Here", (Servers,), {"template": place})
    checks = settings(
        max_examples=12,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=checks)
