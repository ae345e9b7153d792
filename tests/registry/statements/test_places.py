"""What is said of a version counts for the adapter through which it was said; a signature counts everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from publishing import publish
from signers import Signer

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.errors import PolicyUnmet
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.statements.signing import Signed, sign_version
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
RIVALS = AdapterName("rivals", "copy")
EVALUATION = {
    "dataset_digest": "sha256:" + "d" * 64,
    "metrics": [{"name": "exact_match", "value": 0.98}],
    "serving_quantization": {"method": "nf4", "double_quantization": True, "compute_dtype": "float32"},
    "tool": "switchyard eval 0.1",
}
SAYINGS = [
    (StatementKind.EVALUATION, json.dumps(EVALUATION).encode()),
    (StatementKind.APPROVAL, b'{"approver": "eve"}'),
]


def missing(registry: Registry, name: AdapterName) -> set[str]:
    """What the alias still asks for."""
    with pytest.raises(PolicyUnmet) as caught:
        registry.aliases.move(name, "prod", 1, actor="bob", reason="")
    return {str(verdict.reason) for verdict in caught.value.verdicts}


@on_both
def test_what_is_said_elsewhere_opens_nothing(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    first: VersionRecord,
    people: Callable[[str], Signer],
) -> None:
    """Whoever rules a namespace may say in it what he likes of content that he has copied."""
    digest, ann = first.digest, people("ann")
    assert publish(registry, base, RIVALS, adapter(0)).digest == digest
    policy = AliasPolicy(required_statements=("evaluation", "signature"), min_approvals=1)
    registry.policies.set(name, "prod", policy, actor="root")
    registry.namespaces.set_policy("team", NamespacePolicy(trusted_keys=(ann.public,)), actor="root")
    for kind, payload in SAYINGS:
        registry.statements.attach(RIVALS, digest, kind, payload, actor="eve")
    assert registry.statements.of(name, digest) == []
    assert missing(registry, name) == {"STATEMENT_MISSING", "SIGNATURE_MISSING", "APPROVALS_MISSING"}
    bundle = sign_version(Signed(digest, first.files), ann.private)
    signed = registry.statements.attach(RIVALS, digest, StatementKind.SIGNATURE, bundle, actor="eve")
    assert missing(registry, name) == {"STATEMENT_MISSING", "APPROVALS_MISSING"}
    said = [registry.statements.attach(name, digest, kind, payload, actor="eve") for kind, payload in SAYINGS]
    assert registry.statements.of(name, digest) == [signed, *said]
    assert len(registry.statements.of(RIVALS, digest)) == 3
    assert registry.aliases.move(name, "prod", 1, actor="bob", reason="").alias.version == 1


def test_the_query_and_the_record_agree(registry: Registry, name: AdapterName, first: VersionRecord) -> None:
    for place in (name, RIVALS):
        for kind, payload in SAYINGS:
            registry.statements.attach(place, first.digest, kind, payload, actor="eve")
    every = [*registry.statements.of(name, first.digest), *registry.statements.of(RIVALS, first.digest)]
    for place in (name, RIVALS, AdapterName("team", "copy")):
        counted = [record for record in every if record.counts_for(place, first.digest)]
        assert counted == registry.statements.of(place, first.digest)
    assert not any(record.counts_for(name, "sha256:" + "0" * 64) for record in every)
