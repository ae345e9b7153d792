from __future__ import annotations

import re

import grpc
import pytest
from fake_services import FakeServer, Refusal

from switchyard.clients import RetryPolicy, errors
from switchyard.clients.inference import InferenceClient
from switchyard.clients.statuses import CLASS_OF_STATUS

ONCE = RetryPolicy(attempts=1)


def test_every_grpc_code_has_a_class() -> None:
    assert set(CLASS_OF_STATUS) == set(grpc.StatusCode)


def classes_below(root: type[errors.ClientError]) -> list[type[errors.ClientError]]:
    return [root] + [one for child in root.__subclasses__() for one in classes_below(child)]


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"^\s*(?:│\s*)*(?:├──|└──)?\s*([A-Z][A-Za-z]+)\b", errors.__doc__ or "", re.MULTILINE)
    named = {one.__name__ for one in classes_below(errors.ClientError)}
    assert named <= set(drawn)


def test_reasons_are_upper_snake_and_distinct() -> None:
    reasons = [one.reason for one in classes_below(errors.ClientError)]
    assert len(set(reasons)) == len(reasons)
    assert all(re.fullmatch(r"[A-Z][A-Z_]+", reason) for reason in reasons)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_becomes_its_class_with_the_servers_reason(server: FakeServer, code: grpc.StatusCode) -> None:
    server.inference.refuse_next("GenerateOnce", Refusal(code, "SOME_REASON", "what was found"))
    with InferenceClient(server.address, policy=ONCE) as client, pytest.raises(errors.ClientError) as caught:
        client.generate("hello", base=True)
    assert type(caught.value) is CLASS_OF_STATUS[code]
    assert caught.value.reason == "SOME_REASON"
    assert str(caught.value) == "what was found"


def test_all_faults_and_facts_arrive(server: FakeServer) -> None:
    faults = (("sampling.top_p", "SAMPLING_RANGE", "found 3"), ("stopping.max_tokens", "", "found 0"))
    server.inference.refuse_next(
        "GenerateOnce",
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "FIELD_INVALID",
            faults=faults,
            facts={"retryable": "false", "k": "v"},
        ),
    )
    with InferenceClient(server.address) as client, pytest.raises(errors.RequestInvalid) as caught:
        client.generate("hello", base=True)
    assert caught.value.faults == tuple(errors.Fault(*one) for one in faults)
    assert caught.value.facts == {"k": "v"}
    assert not caught.value.retryable
    assert str(caught.value.faults[0]) == "sampling.top_p [SAMPLING_RANGE]: found 3"
    assert str(caught.value.faults[1]) == "stopping.max_tokens: found 0"


def test_retry_info_is_read(server: FakeServer) -> None:
    refusal = Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_s=1.5, facts={"retryable": "true"}
    )
    server.inference.refuse_next("GenerateOnce", refusal)
    with InferenceClient(server.address, policy=ONCE) as client, pytest.raises(errors.Overloaded) as caught:
        client.generate("hello", base=True)
    assert caught.value.retry_after_s == 1.5
    assert caught.value.retryable


def test_nobody_at_the_address_is_unreachable() -> None:
    with InferenceClient("127.0.0.1:1", policy=ONCE) as client, pytest.raises(errors.Unreachable) as caught:
        client.generate("hello", base=True)
    assert caught.value.exit_status == 3
    assert "127.0.0.1:1" in str(caught.value)
    assert "switchyard serve" in str(caught.value)


def test_a_message_over_grpcs_own_limit_is_not_sent_again(server: FakeServer) -> None:
    server.inference.refuse_next("GenerateOnce", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED))
    with InferenceClient(server.address) as client, pytest.raises(errors.Overloaded) as caught:
        client.generate("hello", base=True)
    assert not caught.value.retryable
    assert server.inference.calls == ["GenerateOnce"]
