"""The kinds of statement, and what is known of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from switchyard.registry.refs import AdapterName
from switchyard.registry.strict_json import Json


class StatementKind(StrEnum):
    """What a statement is; decides how its bytes are read.

    SIGNATURE is a Sigstore bundle as OpenSSF model-signing writes it. EVALUATION and APPROVAL are JSON
    documents of this registry (`payloads`). PROVENANCE is an in-toto statement.
    """

    SIGNATURE = "signature"
    EVALUATION = "evaluation"
    APPROVAL = "approval"
    PROVENANCE = "provenance"


@dataclass(frozen=True, slots=True)
class StatementRecord:
    """One statement about a version.

    Attributes:
        id: its name.
        subject_digest: manifest digest of the version, wherever that is.
        kind: what it is.
        digest: of its bytes.
        size_bytes: of its bytes.
        signer: who signed, as the verified signature says; empty for statements without one.
        actor: who attached it.
        summary: its facts, e.g. the scores of an evaluation.
        created_at_s: seconds since the epoch.
        namespace: of the adapter that it was attached through; empty when that is not known.
        adapter: its name.
    """

    id: str
    subject_digest: str
    kind: StatementKind
    digest: str
    size_bytes: int
    signer: str
    actor: str
    summary: Mapping[str, Json]
    created_at_s: float
    namespace: str
    adapter: str

    def counts_for(self, name: AdapterName, subject_digest: str) -> bool:
        """Tells what the query of the same name in `rows` asks."""
        here = (self.namespace, self.adapter) == (name.namespace, name.adapter)
        return self.subject_digest == subject_digest and (here or self.kind is StatementKind.SIGNATURE)
