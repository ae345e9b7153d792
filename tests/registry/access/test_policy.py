"""Deny by default, union of allows, a deny wins: compared with an oracle that tries every single thing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.access.policy import (
    Effect,
    Grant,
    Role,
    Scope,
    decide,
    decide_within,
    parse_scope,
    role_grants,
)
from switchyard.registry.access.resources import EVERYTHING, Resource, ResourcePattern
from switchyard.registry.errors import ArgumentInvalid, RefSyntax
from switchyard.registry.refs import AdapterName, AdapterRef

# One name of each kind that no grant below mentions stands for all the names there could be.
NAMESPACES = ("red", "blue", "nobody")
ADAPTERS = ("ner", "sql", "nothing")
ALIASES = ("", "prod", "candidate", "new")
SINGLE = [Resource(*parts) for parts in itertools.product(NAMESPACES, ADAPTERS, ALIASES)]
RESOURCES = [EVERYTHING, *(Resource(namespace) for namespace in NAMESPACES), *SINGLE]

PATTERNS = st.builds(
    ResourcePattern,
    st.sampled_from(["red", "blue", "*"]),
    st.sampled_from(["ner", "sql", "*"]),
    st.sampled_from(["", "prod", "candidate", "*"]),
)
GRANTS = st.lists(
    st.builds(Grant, st.sampled_from([Scope.READ, Scope.PROMOTE]), PATTERNS, st.sampled_from(list(Effect))),
    max_size=6,
)


def reaches(pattern: ResourcePattern, single: Resource) -> bool:
    """The rule of one part after another, as a person would say it."""
    text, wanted = str(pattern), f"{single.namespace}/{single.adapter}"
    name, at, alias = text.partition("@")
    for part, has in zip(name.split("/"), wanted.split("/"), strict=True):
        if part not in ("*", has):
            return False
    return not at or (single.alias != "" and alias in ("*", single.alias))


def oracle(grants: list[Grant], scope: Scope, resource: Resource) -> bool:
    """A wide resource is every single thing in it, and all of them must be allowed."""
    members = [single for single in SINGLE if resource in (EVERYTHING, Resource(single.namespace), single)]
    about = [grant for grant in grants if grant.scope == scope]

    def allowed(single: Resource) -> bool:
        effects = {grant.effect for grant in about if reaches(grant.pattern, single)}
        return effects == {Effect.ALLOW}

    return all(allowed(member) for member in members)


@settings(max_examples=600)
@given(grants=GRANTS, resource=st.sampled_from(RESOURCES), scope=st.sampled_from([Scope.READ, Scope.PROMOTE]))
def test_decisions_are_those_of_the_oracle(grants: list[Grant], resource: Resource, scope: Scope) -> None:
    assert decide(grants, scope, resource) == oracle(grants, scope, resource)


@settings(max_examples=400)
@given(grants=GRANTS, wide=st.sampled_from([EVERYTHING, *(Resource(namespace) for namespace in NAMESPACES)]))
def test_what_is_allowed_somewhere_is_allowed_within(grants: list[Grant], wide: Resource) -> None:
    inside = [single for single in SINGLE if wide in (EVERYTHING, Resource(single.namespace))]
    somewhere = any(oracle(grants, Scope.READ, single) for single in inside)
    assert decide_within(grants, Scope.READ, wide) or not somewhere
    if not any(grant.effect is Effect.DENY for grant in grants):
        assert decide_within(grants, Scope.READ, wide) == somewhere


@settings(max_examples=300)
@given(grants=GRANTS, extra=PATTERNS, resource=st.sampled_from(RESOURCES))
def test_one_more_deny_never_allows_and_one_more_allow_never_refuses(
    grants: list[Grant], extra: ResourcePattern, resource: Resource
) -> None:
    before = decide(grants, Scope.READ, resource)
    assert decide([*grants, Grant(Scope.READ, extra, Effect.DENY)], Scope.READ, resource) <= before
    assert decide([*grants, Grant(Scope.READ, extra)], Scope.READ, resource) >= before


def test_nothing_is_allowed_by_default() -> None:
    assert not any(decide((), scope, resource) for scope in Scope for resource in RESOURCES)


@given(pattern=PATTERNS)
def test_patterns_read_what_they_write(pattern: ResourcePattern) -> None:
    assert ResourcePattern.parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", 2),
        ("*", 1),
        ("team", 1),
        ("te*m/x", 1),
        ("team/", 1),
        ("/x", 1),
        ("team/x@", 1),
        ("team/x@7", 1),
        ("team/x@*@y", 1),
        ("TEAM/X y@Z", 3),
        ("team/**", 1),
        ("team/.*", 1),
        ("team/a/b", 1),
        ("../etc", 1),
        ("team/x\n", 1),
    ],
)
def test_every_fault_of_a_pattern_is_named(text: str, faults: int) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        ResourcePattern.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert message.count(" is not a name") + message.count("only digits") + message.count("expected `ns") == faults


def test_resources_come_from_names_and_refs() -> None:
    assert Resource.of_name(AdapterName("a", "b"), "prod") == Resource("a", "b", "prod")
    assert Resource.of_ref(AdapterRef.parse("a/b@prod")) == Resource("a", "b", "prod")
    assert Resource.of_ref(AdapterRef.parse("a/b:7")) == Resource("a", "b")
    assert [str(r) for r in (EVERYTHING, Resource("a"), Resource("a", "b"), Resource("a", "b", "c"))] == [
        "the registry",
        "namespace a",
        "a/b",
        "a/b@c",
    ]


def test_a_publisher_may_not_decide_what_is_served() -> None:
    grants = role_grants(Role.PUBLISHER, "red")
    assert decide(grants, Scope.PUBLISH, Resource("red", "ner"))
    assert decide(grants, Scope.PROMOTE, Resource("red", "ner", "candidate"))
    assert not decide(grants, Scope.PROMOTE, Resource("red", "ner", "prod"))
    assert not decide(grants, Scope.PROMOTE, Resource("red", "ner"))
    assert not any(decide(grants, scope, Resource("blue", "ner", "candidate")) for scope in Scope)
    assert not decide(grants, Scope.ROLLBACK, Resource("red", "ner", "candidate"))


def test_an_administrator_of_all_may_do_everything_and_one_of_a_namespace_only_there() -> None:
    everywhere, red = role_grants(Role.ADMIN, "*"), role_grants(Role.ADMIN, "red")
    for scope in Scope:
        assert all(decide(everywhere, scope, resource) for resource in RESOURCES)
        assert {r for r in RESOURCES if decide(red, scope, r)} == {r for r in RESOURCES if r.namespace == "red"}
    with pytest.raises(RefSyntax, match="not a name"):
        role_grants(Role.ADMIN, "r*d")


def test_a_scope_that_is_none_is_answered_with_all_of_them() -> None:
    assert parse_scope("adapter:read") is Scope.READ
    with pytest.raises(ArgumentInvalid, match="admin:drain"):
        parse_scope("adapter:*")
