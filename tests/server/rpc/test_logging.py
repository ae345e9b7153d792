"""One line per call and one per answer, joined by the call's name."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine
from rpc_harness import refusal_of, running, version

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.types import ErrorEvent
from switchyard.server.errors import NumericFault
from switchyard.server.observe.log import facts

pytestmark = pytest.mark.asyncio


class Lines(logging.Handler):
    """Keeps the facts of every record, as a format would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append({"message": record.getMessage(), **facts(record)})


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("switchyard")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def ask(**fields: object) -> pb.GenerateOnceRequest:
    return pb.GenerateOnceRequest(request=pb.GenerateRequest(prompt="canary", **fields))  # type: ignore[arg-type]


async def test_an_answer_and_its_call_share_a_name(lines: Lines) -> None:
    async with running(None, version("a")) as harness:
        digest = harness.resolver.versions["a", 1].digest
        stopping = pb.StoppingParams(max_tokens=2)
        await harness.inference.GenerateOnce(
            ask(adapter="a:1", request_id="r1", stopping=stopping), metadata=(("x-request-id", "trace-1"),)
        )
    answer, call = (line for line in lines.lines if line["message"] in {"answer ended", "call ended"})
    assert answer["call"] == call["call"] == "trace-1"
    assert (answer["request_id"], answer["adapter"], answer["finish"]) == ("r1", digest, "length")
    assert (answer["prompt_tokens"], answer["completion_tokens"]) == (7, 2)
    assert call["method"] == "/switchyard.inference.v1.InferenceService/GenerateOnce"
    assert call["code"] == "OK"


@pytest.mark.parametrize("name", ["", "forged line", "x" * 200])
async def test_a_name_that_cannot_be_logged_is_replaced(lines: Lines, name: str) -> None:
    async with running() as harness:
        await harness.inference.GenerateOnce(ask(base=pb.BaseTarget()), metadata=(("x-request-id", name),))
    names = {str(line["call"]) for line in lines.lines if line["message"] == "call ended"}
    assert len(names) == 1
    assert names.pop().startswith("call-")


async def test_failures_are_told_with_their_reason(lines: Lines) -> None:
    engine = FakeEngine(lambda request: [ErrorEvent(NumericFault("not finite"), 3, 1)])
    async with running(engine) as harness:
        stream = harness.inference.Generate(ask(base=pb.BaseTarget()).request)
        _ = [message async for message in stream]
        await refusal_of(harness.inference.GenerateOnce(ask(adapter="nobody:1")))
    told = [(line["message"], line.get("code"), line.get("reason")) for line in lines.lines]
    assert told == [
        ("answer failed", None, "NUMERIC_FAULT"),
        ("call ended", "OK", None),
        ("call ended", "NOT_FOUND", "ADAPTER_NOT_FOUND"),
    ]
    assert "canary" not in str(lines.lines)
