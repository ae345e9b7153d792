"""Quotas: what enters, what is given back, and that no schedule of calls gets more than its limit."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_harness import FakeClock

from switchyard.server.calls.quotas import NO_QUOTA, Quota, Quotas
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest, GenerateRequest
from switchyard.server.errors import AdapterQuota, TenantQuota


def request(
    prompt: int = 10, answer: int = 10, *, tenant: str = "t", adapters: tuple[str, ...] = (), n: int = 1
) -> GenerateRequest:
    parts = tuple(
        AdapterPart("team", name, 1, Digest(name), "", 0, 1.0, 8, "weights", "config", 10) for name in adapters
    )
    return GenerateRequest(
        "r",
        tuple(range(prompt)),
        AdapterSelection(Digest("key"), parts, 8) if parts else None,
        SamplingParams(),
        StoppingParams(answer),
        tenant=tenant,
        n=n,
    )


def quotas_of(clock: FakeClock, *, tenant: Quota = NO_QUOTA, adapter: Quota = NO_QUOTA) -> Quotas:
    return Quotas(clock, lambda name: tenant if name == "t" else NO_QUOTA, lambda _: adapter)


def call(quotas: Quotas, *requests: GenerateRequest, used: int = 0) -> None:
    with quotas.charged(requests) as charge:
        charge.used_tokens = used


def test_requests_come_back_with_time() -> None:
    clock = FakeClock()
    quotas = quotas_of(clock, tenant=Quota(requests_per_minute=3))
    for _ in range(3):
        call(quotas, request())
    with pytest.raises(TenantQuota, match="tenant 't' may have 3 requests a minute") as caught:
        call(quotas, request())
    assert caught.value.retry_after_s == pytest.approx(20)
    call(quotas, request(tenant="other"))
    clock.now_s += 20.001
    call(quotas, request())
    with pytest.raises(TenantQuota):
        call(quotas, request())


def test_tokens_that_were_not_used_are_given_back() -> None:
    clock = FakeClock()
    quotas = quotas_of(clock, tenant=Quota(tokens_per_minute=100))
    for _ in range(3):
        call(quotas, request(10, 80), used=20)
    with ExitStack() as under_way:
        # The whole answer is taken while nobody knows how long it will be.
        charge = under_way.enter_context(quotas.charged([request(10, 80)]))
        with pytest.raises(TenantQuota, match="100 tokens a minute"):
            call(quotas, request())
        charge.used_tokens = 20
    call(quotas, request(), used=20)
    with pytest.raises(TenantQuota) as caught:
        call(quotas, request())
    assert caught.value.retry_after_s == pytest.approx(0.6)


def test_what_does_not_fit_into_a_minute_enters_a_full_bucket_and_is_paid_for() -> None:
    clock = FakeClock()
    quotas = quotas_of(clock, tenant=Quota(tokens_per_minute=60))
    call(quotas, request(100, 20), used=120)
    with pytest.raises(TenantQuota) as caught:
        call(quotas, request())
    assert caught.value.retry_after_s == pytest.approx(61)
    clock.now_s += 61.001
    call(quotas, request())


def test_several_answers_and_inputs_are_taken_together() -> None:
    clock = FakeClock()
    quotas = quotas_of(clock, tenant=Quota(requests_per_minute=2, tokens_per_minute=100))
    with quotas.charged([request(10, 30, n=3)]), pytest.raises(TenantQuota, match="tokens"):
        call(quotas, request())
    with quotas.charged([request(50, 0), request(50, 0)]), pytest.raises(TenantQuota, match="requests"):
        call(quotas, request())


def test_places_are_given_back_however_a_call_ends() -> None:
    quotas = quotas_of(FakeClock(), tenant=Quota(max_live=1))
    with quotas.charged([request()]), pytest.raises(TenantQuota, match="1 calls of tenant 't' are under way"):
        call(quotas, request())
    with pytest.raises(ZeroDivisionError), quotas.charged([request()]):
        raise ZeroDivisionError
    call(quotas, request())


def test_an_adapter_has_a_quota_whoever_asks_and_refuses_without_cost() -> None:
    quotas = quotas_of(FakeClock(), tenant=Quota(requests_per_minute=2), adapter=Quota(requests_per_minute=1))
    call(quotas, request(adapters=("a",), tenant="x"))
    for _ in range(3):
        with pytest.raises(AdapterQuota, match="adapter team/a may have 1 requests a minute"):
            call(quotas, request(adapters=("b", "a")))
    call(quotas, request(adapters=("b",)))
    call(quotas, request())


@given(
    st.floats(1, 200),
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 50), st.integers(0, 50), st.floats(0, 1)), max_size=40),
)
def test_no_schedule_gets_more_than_its_limit(per_minute: float, calls: list[tuple[float, int, int, float]]) -> None:
    clock = FakeClock()
    quotas = quotas_of(clock, tenant=Quota(tokens_per_minute=per_minute))
    began_s, used, largest = clock.now_s, 0, 0
    for pause_s, prompt, answer, share in calls:
        clock.now_s += pause_s
        spent = prompt + int(answer * share)
        try:
            call(quotas, request(prompt, answer), used=spent)
        except TenantQuota as error:
            # When it says so, it lets in.
            clock.now_s += error.retry_after_s + 1e-6
            call(quotas, request(prompt, answer), used=spent)
        used, largest = used + spent, max(largest, spent)
        assert used <= per_minute * (1 + (clock.now_s - began_s) / 60) + largest + 1e-3
