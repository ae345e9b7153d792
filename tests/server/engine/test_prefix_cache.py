"""Cached prompts: whose they are, what they are found by, who goes first, and that nothing leaks."""

from __future__ import annotations

from fake_runner import request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stepped_engine import Bench, finished, text

from switchyard.server.engine.prefix_cache import BlockKey, PrefixCache, block_keys
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import TokenEvent
from switchyard.server.engine.wait_reason import WaitReason

PROMPT = tuple(range(1, 11))


def test_keys_tell_tenant_adapter_and_every_token_before_apart() -> None:
    base = block_keys("", None, PROMPT, 4)
    assert len(base) == 2
    assert base == block_keys("", None, PROMPT[:8], 4)
    others = [
        block_keys("a", None, PROMPT, 4),
        block_keys("", "", PROMPT, 4),
        block_keys("", "sha256:1", PROMPT, 4),
        block_keys("a", "sha256:1", PROMPT, 4),
        block_keys("asha256:1", "", PROMPT, 4),
        block_keys("", None, (9, *PROMPT[1:]), 4),
    ]
    assert len({keys[1] for keys in [base, *others]}) == 7


def test_a_second_prompt_computes_only_what_is_new() -> None:
    bench = Bench(cached=8)
    first = bench.submit("a", PROMPT)
    bench.run()
    second = bench.submit("b", (*PROMPT[:8], 20, 21))
    bench.run()
    assert (finished(first).cached_prompt_tokens, finished(second).cached_prompt_tokens) == (0, 8)
    assert text(second) == text(first)
    pieces = [piece for plan in bench.runner.plans for piece in plan.slices if piece.request_id == "b"]
    assert (pieces[0].start, pieces[0].tokens) == (8, (20, 21))
    assert bench.observer.counts["cached_tokens"] == 8
    bench.assert_at_rest()


def test_the_last_token_is_always_computed() -> None:
    bench = Bench(cached=8)
    bench.submit("a", PROMPT[:8])
    bench.run()
    again = bench.submit("b", PROMPT[:8])
    bench.run()
    assert finished(again).cached_prompt_tokens == 4


def test_nothing_is_shared_between_tenants_and_adapters() -> None:
    bench = Bench(cached=16)
    bench.pool.ready = {"x", "y"}
    askers = [("a", "", None), ("b", "eve", None), ("c", "", "x"), ("d", "", "y"), ("e", "eve", "x")]
    for name, tenant, adapter in askers:
        sink = bench.submit(name, PROMPT, tenant=tenant, adapter=adapter)
        bench.run()
        assert finished(sink).cached_prompt_tokens == 0
    again = bench.submit("f", PROMPT, tenant="eve", adapter="x")
    bench.run()
    assert finished(again).cached_prompt_tokens == 8


def test_answers_are_not_kept() -> None:
    bench = Bench(cached=8)
    bench.submit("a", PROMPT[:3], max_tokens=20)
    bench.run()
    assert bench.engine.load().kv_blocks_cached == 0


def test_a_prompt_that_is_being_computed_is_waited_for() -> None:
    bench = Bench(cached=8, chunk=4, step_tokens=16)
    first, second = bench.submit("a", PROMPT), bench.submit("b", PROMPT)
    assert bench.engine.step().waiting == {"b": WaitReason.PREFIX}
    bench.run()
    assert (finished(first).cached_prompt_tokens, finished(second).cached_prompt_tokens) == (0, 8)


def test_who_waits_for_a_prefix_goes_on_when_its_maker_is_gone() -> None:
    bench = Bench(cached=8, chunk=4)
    bench.submit("a", PROMPT)
    second = bench.submit("b", PROMPT)
    bench.run(steps=1)
    bench.engine.abort("a")
    bench.run()
    assert finished(second).cached_prompt_tokens == 4


def test_the_urgent_do_not_wait_for_the_prefix_of_the_less_urgent() -> None:
    bench = Bench(cached=8, step_tokens=16)
    bench.submit("a", PROMPT)
    bench.run(steps=1)
    urgent = bench.submit("b", PROMPT, priority=1)
    assert bench.engine.step().waiting == {}
    bench.run()
    assert finished(urgent).cached_prompt_tokens == 4


def test_a_full_cache_forgets_the_ends_of_what_was_used_longest_ago() -> None:
    bench = Bench(cached=4)
    for start in (1, 50, 1):
        bench.submit(f"r{start}-{bench.clock.now()}", tuple(range(start, start + 9)))
        bench.run()
    bench.submit("new", tuple(range(100, 105)))
    bench.run()
    hits = {}
    for start in (1, 50):
        sink = bench.submit(f"again {start}", tuple(range(start, start + 9)))
        bench.run()
        hits[start] = finished(sink).cached_prompt_tokens
    assert hits == {1: 8, 50: 4}


def test_running_sequences_take_the_memory_of_cached_prompts() -> None:
    bench = Bench(sequences=1, blocks=5, cached=5, chunk=16)
    bench.submit("a", PROMPT, max_tokens=1)
    bench.run()
    assert bench.engine.load().kv_blocks_cached == 2
    large = bench.submit("b", tuple(range(30, 42)), max_tokens=8)
    bench.run()
    assert finished(large).completion_tokens == 8
    bench.assert_at_rest()
    assert bench.engine.load().kv_blocks_cached == 0


def test_a_prefix_that_leaves_no_room_for_itself_is_computed() -> None:
    """Rows hold copies: a prompt of four blocks cannot start beside three cached blocks of five."""
    bench = Bench(sequences=1, blocks=5, cached=5, chunk=16)
    prompt = tuple(range(1, 14))
    bench.submit("a", prompt, max_tokens=1)
    bench.run()
    again = bench.submit("b", prompt, max_tokens=1)
    bench.run()
    assert finished(again).cached_prompt_tokens == 4
    bench.assert_at_rest()


def test_a_scored_prompt_is_computed_and_scored_whole() -> None:
    bench = Bench(cached=8)
    scored = SamplingParams(prompt_logprobs=0)
    bench.submit("a", PROMPT)
    bench.run()
    sink = bench.ask(request("b", PROMPT, sampling=scored))
    bench.run()
    assert finished(sink).cached_prompt_tokens == 0
    scores = [s.token for event in sink.events if isinstance(event, TokenEvent) for s in event.prompt_logprobs]
    assert scores == list(PROMPT[1:])


class Chains(RuleBasedStateMachine):
    """Chains of a small alphabet against a cache of few blocks."""

    CAPACITY = 5

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(self.CAPACITY)
        self.kept: dict[BlockKey, int] = {}
        self.pinned: list[tuple[BlockKey, ...]] = []

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def insert(self, tokens: list[int]) -> None:
        keys = block_keys("", None, tokens, 1)
        for index, key in enumerate(keys):
            chain = keys[:index]
            if key in self.cache:
                continue
            self.cache.pin(chain)
            full = len(self.cache) >= self.CAPACITY and not self._evict()
            self.cache.unpin(chain)
            if full:
                return
            number = self.cache.insert(key, chain)
            assert number not in self.kept.values()
            self.kept[key] = number

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def use(self, tokens: list[int]) -> None:
        keys = block_keys("", None, tokens, 1)
        hit = keys[: self.cache.matched(keys)]
        assert [self.cache.number(key) for key in hit] == [self.kept[key] for key in hit]
        self.cache.touch(hit)

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def pin(self, tokens: list[int]) -> None:
        keys = block_keys("", None, tokens, 1)
        hit = keys[: self.cache.matched(keys)]
        self.cache.pin(hit)
        self.pinned.append(hit)

    @precondition(lambda self: self.pinned)
    @rule()
    def unpin(self) -> None:
        self.cache.unpin(self.pinned.pop())

    @rule()
    def evict(self) -> None:
        self._evict()

    @invariant()
    def adds_up(self) -> None:
        self.cache.check_integrity()
        assert {key for key in self.kept if key in self.cache} == set(self.kept)
        assert {key for chain in self.pinned for key in chain} <= set(self.kept)

    def _evict(self) -> bool:
        number = self.cache.evict()
        if number is None:
            return False
        [key] = [key for key, kept in self.kept.items() if kept == number]
        assert not any(key in chain for chain in self.pinned)
        del self.kept[key]
        return True


TestChains = Chains.TestCase
TestChains.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
