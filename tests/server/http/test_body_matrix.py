"""Every field of a body with every kind of value: a draft, or faults by name; never anything else."""

from __future__ import annotations

from collections import Counter

import pytest

from switchyard.registry.strict_json import Json
from switchyard.server.calls.bounds import field_faults
from switchyard.server.calls.embedding_bounds import embedding_faults
from switchyard.server.calls.field_reasons import FieldLimits
from switchyard.server.errors import InvalidField
from switchyard.server.http.body import validated
from switchyard.server.http.chat_body import ChatBody
from switchyard.server.http.completion_body import CompletionBody
from switchyard.server.http.embeddings import EmbeddingBody

TURN: Json = {"role": "user", "content": "hi"}
VALUES: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 1 << 31, 1 << 63, -(1 << 63), 10**400, 0.5, -0.0, 1e308),
    *("", "x", "tiny", "\x00", "x" * 70_000),
    *([], [0], [-1], [1 << 63], [10**400], [0.5], [""], ["x"], [None], [[]], [[0]], [{}], ["x"] * 1000, [1] * 5000),
    *({"type": "json_object"}, [TURN]),
    *({}, {"1": 1}, {"-1": 1}, {"x": 1}, {"1": None}, {"1": 10**400}, {"9" * 5000: 1}, {"include_usage": True}),
)  # fmt: skip
LIMITS = FieldLimits(max_context_tokens=64, max_prompt_bytes=1000, vocab_size=260)


CASES = [(body, name) for body in (CompletionBody, ChatBody) for name in body.model_fields]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind.__name__}-{name}" for kind, name in CASES])
def test_a_field_is_read_or_refused_by_its_name(kind: type[CompletionBody | ChatBody], name: str) -> None:
    outcomes: Counter[str] = Counter()
    for value in VALUES:
        needed = {"prompt": "hi"} if kind is CompletionBody else {"messages": [TURN]}
        mapping: dict[str, Json] = {"model": "tiny", **needed, "stream": True, name: value}
        try:
            faults = field_faults(kind.read(mapping).draft("tiny", "cmpl-1"), LIMITS)
        except InvalidField as error:
            faults = error.faults
            assert {fault.field.partition(".")[0].partition("[")[0] for fault in faults} <= {name, "stream_options"}
        outcomes["refused" if faults else "taken"] += 1
    assert outcomes["refused"] > 0
    assert outcomes["taken"] > 0


@pytest.mark.parametrize("name", EmbeddingBody.model_fields)
def test_a_field_of_a_request_for_vectors_is_read_or_refused_by_its_name(name: str) -> None:
    outcomes: Counter[str] = Counter()
    for value in (*VALUES, "float", "last", 4, [[1], "x"]):
        try:
            body = validated(EmbeddingBody, {"model": "tiny", "input": "hi", name: value})
            faults = embedding_faults(body.draft("tiny"), LIMITS, 4)
        except InvalidField as error:
            faults = error.faults
            assert {fault.field.partition(".")[0] for fault in faults} == {name}
        outcomes["refused" if faults else "taken"] += 1
    assert outcomes["refused"] > 0
    assert outcomes["taken"] > 0
