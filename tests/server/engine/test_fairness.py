"""Whoever waits gets his share: counters, tenants, adapters, caps, and nobody starves."""

from __future__ import annotations

import pytest
from fake_runner import ListSink, request
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_engine import Bench, failed, finished, tokens

from switchyard.server.engine.fairness import FairShares, VirtualCounters
from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import QueueFull


def test_who_comes_back_starts_no_lower_than_those_who_waited() -> None:
    counters = VirtualCounters()
    counters.enter("busy")
    counters.charge("busy", 100)
    counters.enter("newcomer")
    assert counters.value("newcomer") == 100
    counters.enter("busy")
    counters.charge("busy", 50)
    assert counters.value("newcomer") < counters.value("busy")


def test_nobody_saves_up_while_nobody_waits() -> None:
    counters = VirtualCounters()
    counters.enter("a")
    counters.charge("a", 100)
    counters.leave("a")
    counters.enter("b")
    assert counters.value("b") == 100


def test_who_rests_is_forgotten() -> None:
    counters = VirtualCounters()
    for number in range(1000):
        counters.enter(f"client {number}")
        counters.charge(f"client {number}", 1)
        counters.leave(f"client {number}")
    counters.check_integrity()
    assert len(counters) <= 128


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("enter", "leave", "charge")), st.sampled_from("abc"), st.integers(1, 9)),
        max_size=60,
    )
)
def test_the_floor_rises_and_holds_up_all_who_wait(events: list[tuple[str, str, int]]) -> None:
    counters, waiting, floor = VirtualCounters(), {"a": 0, "b": 0, "c": 0}, 0.0
    for what, client, amount in events:
        if what == "enter":
            counters.enter(client)
            waiting[client] += 1
        elif what == "leave" and waiting[client]:
            counters.leave(client)
            waiting[client] -= 1
        elif what == "charge":
            counters.charge(client, amount)
        counters.check_integrity()
        assert counters.floor >= floor
        floor = counters.floor


def test_weights_count_tokens_for_less() -> None:
    shares = FairShares(FairnessRules(tenants={"big": TenantPolicy(weight=4.0)}))
    for tenant in ("big", "small"):
        shares.enter(tenant, None)
    for tenant in ("big", "small"):
        shares.charge_prompt(tenant, None, 8)
        shares.charge_output(tenant, None)
    assert shares.order("big", None) == (2.5, 10.0)
    assert shares.order("small", None) == (10.0, 10.0)


def test_a_cold_load_is_charged_to_who_asked_first() -> None:
    bench = Bench(rules=FairnessRules(load_bytes_per_token=2))
    bench.submit("a", adapter="x", tenant="first")
    bench.submit("b", adapter="x", tenant="second")
    bench.run(steps=1)
    shares = bench.engine._scheduler.shares
    # 100 bytes of weights; the second is lifted to nobody's level but pays nothing.
    assert shares.order("first", "x") == (50.0, 50.0)
    assert shares.order("second", "x") == (0.0, 0.0)


class Service:
    """Backlogged clients on one engine; adds up the weighted tokens that each has had."""

    def __init__(self, bench: Bench, asks: dict[tuple[str, str | None], tuple[int, int]]) -> None:
        self.bench, self.asks, self.served = bench, asks, dict.fromkeys(asks, 0.0)
        self._count = 0
        self._waiting: dict[str, tuple[str, str | None]] = {}
        self._seen = 0

    def step(self, backlog: int = 3) -> None:
        for client, (prompt, answer) in self.asks.items():
            for _ in range(backlog - sum(c == client and self._waits(name) for name, c in self._waiting.items())):
                name = f"r{self._count}"
                self._count += 1
                self._waiting[name] = client
                self.bench.submit(name, prompt, max_tokens=answer, tenant=client[0], adapter=client[1])
        self.bench.run(steps=1)
        for plan in self.bench.runner.plans[self._seen :]:
            for piece in plan.slices:
                client = self._waiting[piece.request_id]
                self.served[client] += len(piece.tokens) if piece.sample_index == 0 else 0
                self.served[client] += 2 * piece.sample
        self._seen = len(self.bench.runner.plans)

    def _waits(self, name: str) -> bool:
        pair = self.bench.engine._requests._by_sequence.get(name)
        return pair is not None and pair[1].started_s is None


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=25, deadline=None)
@given(sizes, sizes, st.integers(1, 4))
def test_backlogged_tenants_get_the_same_service_whatever_they_ask(
    one: tuple[int, int], other: tuple[int, int], rows: int
) -> None:
    """The bound of the paper: the cost of a prompt and of the tokens in the batch, twice."""
    bench = Bench(sequences=rows, chunk=12, queue=40)
    service = Service(bench, {("one", None): one, ("other", None): other})
    bound = 2 * max(12 + 2 * 12, 2 * rows * 12)
    for _ in range(150):
        service.step()
        first, second = service.served.values()
        assert abs(first - second) <= bound


def test_a_tenant_gains_nothing_by_many_adapters() -> None:
    bench = Bench(sequences=4, queue=100)
    bench.pool.ready = set("uvwxyz")
    asks: dict[tuple[str, str | None], tuple[int, int]] = {("many", adapter): (4, 6) for adapter in "vwxyz"}
    asks["one", "u"] = (4, 6)
    service = Service(bench, asks)
    for _ in range(200):
        service.step()
    many = sum(served for (tenant, _), served in service.served.items() if tenant == "many")
    assert many == pytest.approx(service.served["one", "u"], rel=0.1)
    adapters = [served for (tenant, _), served in service.served.items() if tenant == "many"]
    assert max(adapters) <= min(adapters) * 1.5


def test_weights_share_the_server() -> None:
    rules = FairnessRules(tenants={"gold": TenantPolicy(weight=3.0)})
    bench = Bench(sequences=4, queue=100, rules=rules)
    service = Service(bench, {("gold", None): (4, 6), ("plain", None): (4, 6)})
    for _ in range(300):
        service.step(backlog=6)
    assert service.served["gold", None] == pytest.approx(3 * service.served["plain", None], rel=0.15)


def test_a_newcomer_does_not_wait_behind_a_queue() -> None:
    bench = Bench(sequences=1, queue=50)
    for index in range(20):
        bench.submit(f"a{index}", tenant="aggressor")
    bench.run(steps=1)
    victim = bench.submit("v", tenant="victim")
    bench.run(steps=10)
    assert finished(victim).completion_tokens == 4


def test_caps_hold_and_name_themselves() -> None:
    rules = FairnessRules(others=TenantPolicy(max_running=1, max_waiting=2))
    bench = Bench(rules=rules)
    sinks = [bench.submit(name, tenant="t") for name in "ab"]
    with pytest.raises(QueueFull, match="tenant 't', its limit is 2"):
        bench.submit("c", tenant="t")
    other = bench.submit("d", tenant="u")
    assert bench.engine.step().waiting == {"b": WaitReason.TENANT_LIMIT}
    bench.run()
    assert all(finished(sink).completion_tokens == 4 for sink in [*sinks, other])
    bench.submit("c", tenant="t")


def test_who_waits_for_a_slot_is_not_passed_for_ever() -> None:
    """One slot, and a steady stream of requests with the adapter that is in it."""
    bench = Bench(sequences=2, queue=100)
    bench.pool.ready, bench.pool.slots = {"hot", "rare"}, 1
    streams: list[ListSink] = [bench.submit("h0", max_tokens=20, adapter="hot")]
    bench.run(steps=1)
    rare = bench.submit("r", adapter="rare")
    for index in range(1, 400):
        if not any(event for event in rare.events):
            streams.append(bench.submit(f"h{index}", max_tokens=20, adapter="hot")) if index % 10 == 0 else None
        bench.run(steps=1)
    assert finished(rare).completion_tokens == 4
    assert rare.events
    bench.run(steps=2000)
    assert all(finished(stream).completion_tokens == 20 for stream in streams)


def test_base_requests_pass_who_waits_for_a_slot() -> None:
    bench = Bench(sequences=3)
    bench.pool.ready, bench.pool.slots = {"hot", "rare"}, 1
    bench.submit("h", max_tokens=50, adapter="hot")
    bench.run(steps=1)
    bench.submit("r", adapter="rare")
    bench.clock.time_s += 10
    base = bench.submit("b")
    bench.run(steps=8)
    assert bench.engine.why("r") is WaitReason.ADAPTER_SLOT
    assert finished(base).completion_tokens == 4


def test_loads_begin_while_every_row_is_taken() -> None:
    bench = Bench(sequences=2)
    running = bench.submit("a", max_tokens=10, n=2, best_of=2)
    bench.run(steps=1)
    waiting = bench.submit("b", adapter="x")
    broken = bench.submit("c", adapter="y")
    bench.pool.broken = {"y"}
    bench.run(steps=1)
    assert bench.pool.wanted == ["x", "y"]
    assert failed(broken) == "ADAPTER_UNAVAILABLE"
    bench.pool.ready = {"x"}
    bench.run()
    assert finished(waiting).timing.adapter_wait_s == 0.0
    assert len(tokens(running)) == 10


def test_loads_begin_for_those_who_move_up() -> None:
    bench = Bench(sequences=1, queue=20)
    bench.submit("a", max_tokens=10)
    bench.run(steps=1)
    for adapter in "xyz":
        bench.submit(adapter, adapter=adapter)
    bench.run(steps=1)
    assert bench.pool.wanted == ["x"], "one row, so one sequence comes next"
    bench.engine.abort("x")
    bench.run(steps=1)
    assert bench.pool.wanted == ["x", "y"]


def test_a_priority_is_worth_nothing_against_other_tenants() -> None:
    bench = Bench(sequences=1, queue=20)
    for index in range(5):
        bench.submit(f"a{index}", tenant="loud", priority=50)
    bench.run(steps=1)
    bench.submit("v", tenant="quiet")
    bench.run(steps=1)
    bench.submit("urgent", tenant="loud", priority=100)
    bench.run()
    assert bench.observer.counts["preempted"] == 0
    assert bench.runner.forgotten[:3] == ["a0", "v", "urgent"]


def resumed(bench: Bench) -> set[str]:
    """Who had to compute everything again."""
    pieces = [piece for plan in bench.runner.plans for piece in plan.slices]
    return {piece.request_id for piece in pieces if piece.start == 0 and piece.sample_index > 0}


def test_short_of_memory_the_tenant_with_most_of_it_gives_way() -> None:
    bench = Bench(sequences=4, blocks=17, chunk=8, step_tokens=16)
    for index in range(3):
        bench.submit(f"a{index}", 6, max_tokens=24, tenant="large", priority=9)
    bench.submit("v", 6, max_tokens=24, tenant="small")
    bench.run()
    assert bench.observer.counts["preempted"] > 0
    assert resumed(bench) == {"a1", "a2"}


def test_with_one_sequence_each_the_youngest_gives_way() -> None:
    bench = Bench(sequences=2, blocks=8, chunk=8, step_tokens=16)
    for name in "ab":
        bench.submit(name, 6, max_tokens=20, tenant=name, priority=5 * (name == "b"))
    bench.run()
    resumed = {
        p.request_id for plan in bench.runner.plans for p in plan.slices if p.start == 0 and p.sample_index > 0
    }
    assert resumed == {"b"}


def test_one_tenant_is_served_in_order_of_arrival() -> None:
    bench = Bench(sequences=1)
    for name in "abc":
        bench.ask(request(name))
    bench.run()
    assert bench.runner.forgotten == ["a", "b", "c"]
