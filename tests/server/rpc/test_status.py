"""The table from errors to statuses is total, and says all it knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

from switchyard.registry import errors as registry_errors
from switchyard.registry.errors import RegistryError, VersionRefused
from switchyard.registry.verdicts import Reason, Verdict
from switchyard.server import errors as server_errors
from switchyard.server.calls import codes
from switchyard.server.calls.codes import Code
from switchyard.server.errors import AdapterUnavailable, FieldFault, InvalidField, QueueFull, ServerError
from switchyard.server.rpc import status


def leaves(root: type[Exception]) -> Iterator[type[Exception]]:
    children = [child for child in root.__subclasses__() if child.__module__.startswith("switchyard.")]
    if not children:
        yield root
    for child in children:
        yield from leaves(child)


LEAVES = [*leaves(ServerError), *leaves(RegistryError)]


def details(error: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.status_of(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                found[kind.DESCRIPTOR.name] = message
    return found


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: f"{leaf.__module__.split('.')[1]}.{leaf.__name__}")
def test_every_leaf_has_a_status_of_its_own(leaf: type[Exception]) -> None:
    assert leaf in codes.CODES


def test_no_status_is_internal_or_unknown() -> None:
    assert not {Code.INTERNAL, Code.UNKNOWN, Code.OK} & set(codes.CODES.values())


def test_the_table_has_no_class_that_is_gone() -> None:
    assert set(codes.CODES) <= set(LEAVES)


def test_a_new_class_without_an_entry_is_noticed() -> None:
    class Unheard(ServerError):
        """Not in the table."""

    with pytest.raises(KeyError, match="Unheard"):
        codes.code_of(Unheard("?"))


def test_the_codes_are_those_of_grpc() -> None:
    assert {(code.name, code.number) for code in Code} == {(code.name, code.value[0]) for code in StatusCode}


def test_every_reason_is_stable_upper_case_and_unique_within_its_tree() -> None:
    for module in (server_errors, registry_errors):
        reasons = [leaf.reason for leaf in LEAVES if leaf.__module__ == module.__name__]  # type: ignore[attr-defined]
        assert all(reason.replace("_", "").isupper() for reason in reasons)
        assert len(set(reasons)) == len(reasons)


def test_all_faults_travel() -> None:
    error = InvalidField(
        (FieldFault("sampling.temperature", "SAMPLING_RANGE", "bad"), FieldFault("stopping.stop[0]", "STOP", "worse"))
    )
    found = details(error)
    assert found["ErrorInfo"].reason == "FIELD_INVALID"
    assert found["ErrorInfo"].domain == "switchyard"
    assert [(v.field, v.reason, v.description) for v in found["BadRequest"].field_violations] == [
        ("sampling.temperature", "SAMPLING_RANGE", "bad"),
        ("stopping.stop[0]", "STOP", "worse"),
    ]


def test_faults_that_agree_give_their_reason() -> None:
    error = VersionRefused((Verdict(Reason.NON_FINITE, "a", "NaN"), Verdict(Reason.NON_FINITE, "b", "Inf")))
    assert codes.reason_of(error) == "NON_FINITE"
    assert codes.code_of(error) is Code.INVALID_ARGUMENT


def test_an_unsupported_feature_is_a_failed_precondition() -> None:
    error = VersionRefused((Verdict(Reason.FEATURE_UNSUPPORTED, "use_dora", "not served"),))
    assert codes.code_of(error) is Code.FAILED_PRECONDITION


def test_retry_info_says_when() -> None:
    found = details(QueueFull("full", retry_after_s=1.5))
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    assert found["ErrorInfo"].metadata["retryable"] == "true"


def test_a_corrupt_blob_behind_a_load_is_data_loss() -> None:
    error = AdapterUnavailable("gone", cause_reason="BLOB_CORRUPT", retry_after_s=2.0)
    assert codes.code_of(error) is Code.DATA_LOSS
    assert details(error)["ErrorInfo"].metadata["cause_reason"] == "BLOB_CORRUPT"


def test_a_thousand_faults_fit_the_trailers() -> None:
    error = InvalidField(tuple(FieldFault(f"部{i}", "LIMIT", "路" * 300) for i in range(1000)))
    wire = status.status_of(error)
    assert wire.ByteSize() < 5000
    last = details(error)["BadRequest"].field_violations[-1]
    assert last.reason == "TRUNCATED"
    listed = len(details(error)["BadRequest"].field_violations) - 1
    assert last.description.startswith(f"{1000 - listed} further")


def test_cut_counts_what_trailers_carry() -> None:
    assert status.cut("abc", 3) == "abc"
    assert status.cut("路路路", 18) == "路…"
    assert status.cut("x\ud800", 100) == "x?"


def test_an_incident_tells_nothing_of_the_inside() -> None:
    assert "inc-1" in status.internal_status("inc-1").message
