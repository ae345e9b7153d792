"""A hundred thousand names that nobody published leave the metrics as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_engine import FakeEngine
from rpc_harness import FakeClock, FakeResolver, admission_with

from switchyard.registry.errors import AdapterNotFound
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.draft import AdapterTarget, RequestDraft
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.quotas import Quotas
from switchyard.server.observe.metrics import Metrics
from switchyard.server.rollout.outcomes import Outcomes

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

NAMES = 100_000


def series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in metrics.registry.collect())


async def test_a_hundred_thousand_unknown_names_add_no_series() -> None:
    metrics, clock, outcomes = Metrics(), FakeClock(), Outcomes()
    resolver = FakeResolver()
    with ThreadPoolExecutor(1) as pool:
        admission = admission_with(resolver, clock, pool, answers=outcomes)
        answering = Answering(admission, FakeEngine(), LiveWork(), metrics, Quotas(clock), outcomes)

        async def ask(number: int) -> None:
            target = AdapterTarget(f"team/unknown-{number}@prod")
            with pytest.raises(AdapterNotFound):
                async with answering.answer(RequestDraft(target, prompt="hi")):
                    pass

        await ask(0)
        before = series(metrics)
        for number in range(1, NAMES):
            await ask(number)
    assert series(metrics) == before
    assert len(resolver.asked) == NAMES
    refused = {
        sample.labels["reason"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "switchyard_requests_refused_total"
    }
    assert refused == {"ADAPTER_NOT_FOUND": NAMES}
