from __future__ import annotations

import grpc
import pytest
from fake_services import BASE_DIGEST, FakeServer, Refusal

from switchyard.clients import AdminClient, errors
from switchyard.clients.admin import AdapterState, PlannedPlace


def test_every_call_reads_its_answer(server: FakeServer) -> None:
    with AdminClient(server.address) as client:
        assert client.info().base_digest == BASE_DIGEST
        assert client.info().max_rank == 16
        assert client.load().running_sequences == 2
        (status,) = client.adapters()
        assert (status.state, status.pins) == (AdapterState.RESIDENT, 2)
        assert client.load_adapter("a@b").state is AdapterState.HOST
        assert client.drain(grace_s=1.0) == 2


def test_a_state_from_a_newer_server_is_unknown_not_an_error(server: FakeServer) -> None:
    with AdminClient(server.address) as client:
        assert client.unload_adapter("a@b").state is AdapterState.UNKNOWN


def test_an_adapter_in_use_is_a_typed_error(server: FakeServer) -> None:
    refusal = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "ADAPTER_IN_USE", facts={"retryable": "true"})
    server.admin.refuse_next("UnloadAdapter", refusal)
    with AdminClient(server.address) as client, pytest.raises(errors.PreconditionFailed) as caught:
        client.unload_adapter("a@b")
    assert caught.value.retryable


def test_a_plan_says_where_each_would_be(server: FakeServer) -> None:
    with AdminClient(server.address) as client:
        plan = client.plan(["a:1", "b:1", "c:1", "d:1"])
        assert client.plan(["a:1"]).fits
    places = [PlannedPlace.SLOT, PlannedPlace.HOST, PlannedPlace.NOWHERE, PlannedPlace.UNKNOWN]
    assert [one.place for one in plan.adapters] == places
    assert (plan.adapters[0].in_memory, plan.adapters[2].error_reason) == (True, "RANK_TOO_LARGE")
    assert (plan.fits, plan.needed_slots, plan.needed_host_bytes) == (False, 4, 4096)
    assert plan.leaving == ("sha256:" + "b" * 64,)
