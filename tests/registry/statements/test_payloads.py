"""Whatever the bytes are: a summary or a refusal, never anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import StatementRefused
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.statements.payloads import summary_of

SUBJECT = "sha256:" + "5" * 64
WITHOUT_KEY = (StatementKind.EVALUATION, StatementKind.APPROVAL, StatementKind.PROVENANCE)
FIELDS = (
    *("dataset_digest", "metrics", "name", "value", "serving_quantization", "method", "tool", "note"),
    *("double_quantization", "compute_dtype", "approver", "expires_at_s", "_type", "subject", "digest"),
    *("sha256", "predicateType", "predicate"),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([SUBJECT, "5" * 64, "nf4", "bob", "https://in-toto.io/Statement/v1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize("kind", WITHOUT_KEY)
@given(document=VALUES)
def test_documents(kind: StatementKind, document: Any) -> None:
    try:
        summary = summary_of(kind, json.dumps(document).encode(), SUBJECT, "bob")
    except StatementRefused:
        return
    canonical_json(summary)


@pytest.mark.parametrize("kind", WITHOUT_KEY)
@given(payload=st.binary(max_size=60))
def test_noise(kind: StatementKind, payload: bytes) -> None:
    with pytest.raises(StatementRefused):
        summary_of(kind, payload, SUBJECT, "bob")


@given(approver=st.text(max_size=300), actor=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=10))
def test_nobody_approves_for_another(approver: str, actor: str) -> None:
    payload = json.dumps({"approver": approver}).encode()
    if approver == actor:
        assert summary_of(StatementKind.APPROVAL, payload, SUBJECT, actor) == {"approver": actor}
    else:
        with pytest.raises(StatementRefused):
            summary_of(StatementKind.APPROVAL, payload, SUBJECT, actor)
