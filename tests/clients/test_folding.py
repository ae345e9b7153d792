from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.clients.errors import ClientError, StreamBroken, Unavailable
from switchyard.clients.folding import AnswerBuilder
from switchyard.proto.inference.v1 import inference_pb2 as pb

EVENTS = {
    "s": lambda n: pb.GenerateResponse(started=pb.Started(request_id="r", seed=3)),
    "c": lambda n: pb.GenerateResponse(chunk=pb.Chunk(text=f"<{n}>", token_ids=[n, n + 1])),
    "f": lambda n: pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_LENGTH)),
    "e": lambda n: pb.GenerateResponse(error=pb.GenerateError(code=14, reason="ENGINE_FAILED", retryable=True)),
    "?": lambda n: pb.GenerateResponse(),
}


@given(st.text(alphabet="scfe?", max_size=6))
def test_an_answer_comes_of_exactly_the_streams_that_keep_the_contract(kinds: str) -> None:
    """The oracle is the contract as a regular expression over the kinds of events."""
    builder = AnswerBuilder()
    texts = []
    error: ClientError | None = None
    try:
        for index, kind in enumerate(kinds):
            texts.append(builder.accept(EVENTS[kind](index)))
        builder.end()
    except ClientError as found:
        error = found
    if re.fullmatch("sc*f", kinds):
        assert error is None
        answer = builder.answer
        assert answer.text == "".join(texts) == "".join(f"<{i}>" for i, k in enumerate(kinds) if k == "c")
        assert answer.token_ids == tuple(t for i, k in enumerate(kinds) if k == "c" for t in (i, i + 1))
        assert answer.seed == 3
        return
    # An error event is the stream's own error as long as everything before it kept the contract.
    expected = Unavailable if re.match("(sc*)?e", kinds) else StreamBroken
    assert type(error) is expected
    if not re.match("sc*f", kinds):
        with pytest.raises(StreamBroken):
            _ = builder.answer


def test_nothing_is_known_before_acceptance() -> None:
    builder = AnswerBuilder()
    assert not builder.accepted
    with pytest.raises(StreamBroken, match="acceptance"):
        _ = builder.served_by


def test_an_answer_that_changes_its_version_is_none() -> None:
    builder = AnswerBuilder()
    first, second = (pb.ServedBy(adapters=[pb.ServedAdapter(adapter="a", version=n)]) for n in (1, 2))
    builder.accept(pb.GenerateResponse(started=pb.Started(served_by=first)))
    with pytest.raises(StreamBroken, match=r"a:1.*a:2"):
        builder.accept(pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_STOP, served_by=second)))
    assert not builder.finished
