"""Every way to point an alias at a version is held to the alias's policy, and nothing slips past it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import on_both
from hypothesis import given
from hypothesis import strategies as st
from signers import Signer, leaf_certificate, make_signer, root_certificate

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.alias_policy import AliasPolicy, policy_from_document
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.errors import AdapterNotFound, ArgumentInvalid, PolicyUnmet, RefSyntax
from switchyard.registry.index import schema
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import AliasTarget, VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.statements.signing import Signed, sign_version
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
Act = Callable[[Registry, str, int | None], object]
NAME = AdapterName("team", "addresses")
EVALUATION = {
    "dataset_digest": "sha256:" + "d" * 64,
    "metrics": [{"name": "exact_match", "value": 0.98}],
    "serving_quantization": {"method": "nf4", "double_quantization": True, "compute_dtype": "float32"},
    "tool": "switchyard eval 0.1",
}


@pytest.fixture(scope="session")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("keys"), "ann")


@pytest.fixture(scope="session")
def eve(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("keys"), "eve")


@pytest.fixture
def prod(four: Registry) -> Registry:
    """The alias `prod` was at version 1 and is at version 2, generation 2; version 3 wants to follow."""
    four.aliases.move(NAME, "prod", 1, actor="ann", reason="")
    four.aliases.move(NAME, "prod", 2, actor="ann", reason="")
    return four


@pytest.fixture
def paths(base: BaseModelSpec, adapter: Make) -> dict[str, Act]:
    """Every way to point `prod` somewhere: to version 3, or with `rollback` back to version 1."""

    def move(registry: Registry, actor: str, generation: int | None) -> object:
        return registry.aliases.move(NAME, "prod", 3, expected_generation=generation, actor=actor, reason="")

    def move_many(registry: Registry, actor: str, generation: int | None) -> object:
        target = AliasTarget(NAME, "prod", 3, generation)
        return registry.aliases.move_many([AliasTarget(NAME, "free", 1), target], actor=actor, reason="")

    def canary(registry: Registry, actor: str, generation: int | None) -> object:
        move = registry.aliases.set_canary
        return move(NAME, "prod", 3, 10, expected_generation=generation, actor=actor, reason="")

    def rollback(registry: Registry, actor: str, generation: int | None) -> object:
        return registry.aliases.rollback(NAME, "prod", expected_generation=generation, actor=actor, reason="")

    def publish(registry: Registry, actor: str, generation: int | None) -> object:
        options: dict[str, Any] = {"set_alias": "prod", "expected_generation": generation}
        return registry.publish(NAME, adapter(2), base_digest=base.digest, publisher=actor, **options)

    def yank(registry: Registry, actor: str, generation: int | None) -> object:
        state = VersionState.YANKED
        return registry.states.move(NAME, 2, state, actor=actor, reason="bad", move_aliases_to=3)

    return {
        "move": move,
        "move_many": move_many,
        "canary": canary,
        "rollback": rollback,
        "publish": publish,
        "yank": yank,
    }


PATHS = ("move", "move_many", "canary", "rollback", "publish", "yank")


def version(registry: Registry, number: int) -> VersionRecord:
    return registry.get_version(AdapterRef.parse(f"team/addresses:{number}"))


def attach(registry: Registry, number: int, kind: StatementKind, document: object, actor: str) -> None:
    registry.statements.attach(
        NAME, version(registry, number).digest, kind, json.dumps(document).encode(), actor=actor
    )


def approve(registry: Registry, number: int, actor: str, **more: object) -> None:
    attach(registry, number, StatementKind.APPROVAL, {"approver": actor, **more}, actor)


def sign(registry: Registry, number: int, signer: Signer) -> None:
    subject = version(registry, number)
    bundle = sign_version(Signed(subject.digest, subject.files), signer.private)
    registry.statements.attach(
        NAME, subject.digest, StatementKind.SIGNATURE, bundle, actor="ann", trusted_keys=[signer.public]
    )


def refused(registry: Registry, act: Act, actor: str, generation: int | None) -> set[str]:
    """What is missing; nothing at all has changed."""
    before = registry.feed.revision(), registry.aliases.all(NAME)
    with pytest.raises(PolicyUnmet) as caught:
        act(registry, actor, generation)
    assert (registry.feed.revision(), registry.aliases.all(NAME)) == before
    assert version(registry, 2).state is VersionState.READY
    assert {verdict.subject for verdict in caught.value.verdicts} == {"team/addresses@prod"}
    return {str(verdict.reason) for verdict in caught.value.verdicts}


@pytest.mark.parametrize("path", PATHS)
def test_a_protected_alias_is_moved_knowingly(path: str, prod: Registry, paths: dict[str, Act]) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(protected=True), actor="root")
    if path != "yank":
        assert refused(prod, paths[path], "bob", None) == {"GENERATION_REQUIRED"}
    paths[path](prod, "bob", 2)


def test_a_protected_alias_is_deleted_and_unsplit_knowingly(prod: Registry) -> None:
    prod.aliases.set_canary(NAME, "prod", 3, 10, actor="bob", reason="")
    prod.policies.set(NAME, "prod", AliasPolicy(protected=True, min_approvals=2), actor="root")
    with pytest.raises(PolicyUnmet, match="GENERATION_REQUIRED"):
        prod.aliases.set_canary(NAME, "prod", 3, 0, actor="bob", reason="")
    with pytest.raises(PolicyUnmet, match="GENERATION_REQUIRED"):
        prod.aliases.delete(NAME, "prod", actor="bob", reason="")
    ended = prod.aliases.set_canary(NAME, "prod", 3, 0, expected_generation=3, actor="bob", reason="")
    assert ended.canary is None
    prod.aliases.delete(NAME, "prod", expected_generation=4, actor="bob", reason="")


@pytest.mark.parametrize("path", PATHS)
def test_the_publisher_is_not_the_promoter(path: str, prod: Registry, paths: dict[str, Act]) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(distinct_promoter=True), actor="root")
    if path == "rollback":
        paths[path](prod, "ann", None)
        return
    assert refused(prod, paths[path], "ann", None) == {"PROMOTER_IS_PUBLISHER"}
    if path != "publish":
        paths[path](prod, "bob", None)


@pytest.mark.parametrize("path", PATHS)
def test_evaluations_are_asked_for(path: str, prod: Registry, paths: dict[str, Act]) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(required_statements=("evaluation", "provenance")), actor="root")
    if path == "rollback":
        paths[path](prod, "bob", None)
        return
    attach(prod, 2, StatementKind.EVALUATION, EVALUATION, "ci")
    assert refused(prod, paths[path], "bob", None) == {"STATEMENT_MISSING"}
    attach(prod, 3, StatementKind.EVALUATION, EVALUATION, "ci")
    assert refused(prod, paths[path], "bob", None) == {"STATEMENT_MISSING"}
    prod.policies.set(NAME, "prod", AliasPolicy(required_statements=("evaluation",)), actor="root")
    paths[path](prod, "bob", None)


@pytest.mark.parametrize("path", PATHS)
def test_approvals_are_of_different_people(
    path: str, prod: Registry, paths: dict[str, Act], clock: Callable[[], float]
) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(min_approvals=2), actor="root")
    if path == "rollback":
        paths[path](prod, "bob", None)
        return
    approve(prod, 3, "ann")
    approve(prod, 3, "bob")
    approve(prod, 3, "bob", note="once more")
    approve(prod, 3, "carol", expires_at_s=clock())
    approve(prod, 2, "dave")
    assert refused(prod, paths[path], "bob", None) == {"APPROVALS_MISSING"}
    approve(prod, 3, "carol", expires_at_s=clock() + 10_000)
    paths[path](prod, "bob", None)


@pytest.mark.parametrize("path", PATHS)
def test_a_signature_is_asked_for(path: str, prod: Registry, paths: dict[str, Act], ann: Signer, eve: Signer) -> None:
    """Also of a version that was there before."""
    target = 1 if path == "rollback" else 3
    policy = AliasPolicy(required_statements=("signature",), signers=(ann.fingerprint,))
    prod.policies.set(NAME, "prod", policy, actor="root")
    assert refused(prod, paths[path], "bob", None) == {"SIGNATURE_MISSING"}
    sign(prod, target, eve)
    assert refused(prod, paths[path], "bob", None) == {"SIGNATURE_MISSING"}
    sign(prod, target, ann)
    paths[path](prod, "bob", None)


def test_without_names_the_namespace_is_asked(prod: Registry, paths: dict[str, Act], ann: Signer) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(required_statements=("signature",)), actor="root")
    sign(prod, 3, ann)
    assert refused(prod, paths["move"], "bob", None) == {"SIGNATURE_MISSING"}
    prod.namespaces.set_policy("team", NamespacePolicy(trusted_keys=(ann.public,)), actor="root")
    paths["move"](prod, "bob", None)


def test_another_namespace_cannot_vouch_with_a_name(
    prod: Registry, paths: dict[str, Act], ann: Signer, eve: Signer, tmp_path: Path
) -> None:
    """Eve's own root certifies that she is the trainer; that is nothing to this namespace."""
    uri = "spiffe://example/trainer"
    prod.policies.set(NAME, "prod", AliasPolicy(required_statements=("signature",), signers=(uri,)), actor="root")
    subject = version(prod, 3)
    for root, trusted in ((eve, False), (ann, True)):
        leaf = leaf_certificate(tmp_path, eve, uri, root)
        bundle = sign_version(Signed(subject.digest, subject.files), eve.private, certificate=leaf)
        pem = root_certificate(root)
        prod.statements.attach(NAME, subject.digest, StatementKind.SIGNATURE, bundle, actor="eve", trusted_keys=[pem])
        if trusted:
            prod.namespaces.set_policy("team", NamespacePolicy(trusted_keys=(pem,)), actor="root")
            paths["move"](prod, "bob", None)
        else:
            assert refused(prod, paths["move"], "bob", None) == {"SIGNATURE_MISSING"}


@pytest.mark.parametrize("path", ["move", "rollback"])
@pytest.mark.parametrize("how", ["row", "bytes", "gone", "signer"])
def test_a_tampered_signature_no_longer_counts(
    how: str, path: str, prod: Registry, paths: dict[str, Act], root: Path, ann: Signer, eve: Signer
) -> None:
    """The rows alone attest nothing: signatures are verified again from the bundle's bytes."""
    target = 1 if path == "rollback" else 3
    policy = AliasPolicy(required_statements=("signature",), signers=(ann.fingerprint,))
    prod.policies.set(NAME, "prod", policy, actor="root")
    sign(prod, target, eve if how == "signer" else ann)
    (made,) = prod.statements.of(NAME, version(prod, target).digest)[0]
    file = root / "blobs" / "sha256" / made.digest.removeprefix("sha256:")
    if how == "row":
        sign(prod, 4, ann)
        (other,) = prod.statements.of(NAME, version(prod, 4).digest)[0]
        change_statement(prod, made.id, blob_digest=other.digest)
    elif how == "signer":
        change_statement(prod, made.id, signer=ann.fingerprint)
    else:
        file.unlink()
        if how == "bytes":
            file.write_bytes(b"x" * made.size_bytes)
    assert refused(prod, paths[path], "bob", None) == {"SIGNATURE_MISSING"}


def change_statement(registry: Registry, statement_id: str, **values: object) -> None:
    """What somebody with access to the database could do."""
    with registry._index.write() as connection:
        connection.execute(sa.update(schema.statement).where(schema.statement.c.id == statement_id).values(**values))


@on_both
def test_everything_that_is_missing_is_told(prod: Registry, paths: dict[str, Act], ann: Signer) -> None:
    policy = AliasPolicy(
        protected=True,
        required_statements=("signature", "evaluation", "approval"),
        distinct_promoter=True,
        signers=(ann.fingerprint,),
    )
    prod.policies.set(NAME, "prod", policy, actor="root")
    everything = {
        "GENERATION_REQUIRED",
        "SIGNATURE_MISSING",
        "STATEMENT_MISSING",
        "APPROVALS_MISSING",
        "PROMOTER_IS_PUBLISHER",
    }
    assert refused(prod, paths["move"], "ann", None) == everything
    assert refused(prod, paths["rollback"], "ann", None) == {"GENERATION_REQUIRED", "SIGNATURE_MISSING"}


def test_several_moves_tell_what_each_misses(prod: Registry) -> None:
    for alias in ("prod", "beta"):
        prod.policies.set(NAME, alias, AliasPolicy(min_approvals=1), actor="root")
    with pytest.raises(PolicyUnmet) as caught:
        prod.aliases.move_many(
            [AliasTarget(NAME, "prod", 3), AliasTarget(NAME, "free", 3), AliasTarget(NAME, "beta", 3)],
            actor="bob",
            reason="",
        )
    assert [verdict.subject for verdict in caught.value.verdicts] == ["team/addresses@prod", "team/addresses@beta"]


@on_both
def test_a_new_alias_is_held_to_its_policy_too(prod: Registry) -> None:
    prod.policies.set(NAME, "next", AliasPolicy(protected=True), actor="root")
    with pytest.raises(PolicyUnmet, match="GENERATION_REQUIRED"):
        prod.aliases.move(NAME, "next", 1, actor="bob", reason="")
    assert prod.aliases.move(NAME, "next", 1, expected_generation=0, actor="bob", reason="").alias.generation == 1


# -- keeping policies ----------------------------------------------------


@on_both
def test_set_read_and_told(prod: Registry) -> None:
    assert prod.policies.get(NAME, "prod") == AliasPolicy()
    policy = AliasPolicy(protected=True, required_statements=("evaluation",), min_approvals=2)
    assert prod.policies.set(NAME, "prod", policy, actor="root") == policy
    assert prod.policies.get(NAME, "prod") == policy
    assert prod.policies.get(NAME, "beta") == AliasPolicy()
    (event,) = prod.feed.events(prod.feed.revision() - 1)
    assert (event.kind, event.namespace, event.adapter) == ("alias.policy", "team", "addresses")
    assert event.payload["alias"] == "prod"
    assert event.payload["policy"] == policy.document()
    assert event.payload["former"] == AliasPolicy().document()
    newest = prod.audit.page(limit=1000)[-1]
    assert (newest.actor, newest.action, newest.target) == ("root", "alias.policy", "team/addresses")
    prod.policies.set(NAME, "prod", AliasPolicy(), actor="root")
    assert prod.policies.get(NAME, "prod") == AliasPolicy()


def test_a_policy_outlives_its_alias(prod: Registry) -> None:
    prod.policies.set(NAME, "prod", AliasPolicy(protected=True), actor="root")
    prod.aliases.delete(NAME, "prod", expected_generation=2, actor="bob", reason="")
    assert prod.policies.get(NAME, "prod").protected


@on_both
def test_the_namespace_gives_defaults(prod: Registry, paths: dict[str, Act]) -> None:
    rules = NamespacePolicy(protected_aliases=("prod",), min_approvals=1, distinct_promoter=True)
    prod.namespaces.set_policy("team", rules, actor="root")
    expected = AliasPolicy(protected=True, min_approvals=1, distinct_promoter=True)
    assert prod.policies.get(NAME, "prod") == expected
    assert prod.policies.get(NAME, "beta") == AliasPolicy()
    assert refused(prod, paths["move"], "ann", None) == {
        "GENERATION_REQUIRED",
        "APPROVALS_MISSING",
        "PROMOTER_IS_PUBLISHER",
    }
    prod.policies.set(NAME, "prod", AliasPolicy(), actor="root")
    paths["move"](prod, "ann", None)


def test_what_cannot_have_a_policy(prod: Registry) -> None:
    with pytest.raises(RefSyntax):
        prod.policies.set(NAME, "../prod", AliasPolicy(), actor="root")
    with pytest.raises(AdapterNotFound):
        prod.policies.set(AdapterName("team", "nothing"), "prod", AliasPolicy(), actor="root")
    with pytest.raises(AdapterNotFound):
        prod.policies.get(AdapterName("team", "nothing"), "prod")


@given(
    protected=st.booleans(),
    distinct_promoter=st.booleans(),
    kinds=st.sets(st.sampled_from(list(StatementKind))),
    signers=st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9), max_size=3),
    min_approvals=st.integers(0, 16),
)
def test_a_policy_survives_json(
    protected: bool, distinct_promoter: bool, kinds: set[StatementKind], signers: list[str], min_approvals: int
) -> None:
    required = {str(kind) for kind in kinds} | ({"signature"} if signers else set())
    policy = AliasPolicy(protected, tuple(sorted(required)), distinct_promoter, tuple(signers), min_approvals)
    assert policy_from_document(json.loads(json.dumps(policy.document()))) == policy


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"protekted": True}, ["unknown fields 'protekted'"]),
        ({"protected": 1, "distinct_promoter": "yes"}, ["protected is 1", "distinct_promoter is 'yes'"]),
        ({"required_statements": ["sbom"]}, ["required_statements is ('sbom',)"]),
        ({"required_statements": "evaluation"}, ["required_statements is 'evaluation'"]),
        ({"signers": ["ann"]}, ["no signature is required"]),
        ({"signers": [7], "required_statements": ["signature"]}, ["signers is (7,)"]),
        ({"min_approvals": -1}, ["min_approvals is -1"]),
        ({"min_approvals": True}, ["min_approvals is True"]),
        ({"min_approvals": 17, "protected": None}, ["min_approvals is 17", "protected is None"]),
    ],
)
def test_faults_of_a_policy_are_told_together(document: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        policy_from_document(document)
    for part in told:
        assert part in str(caught.value)
