"""The rules of access: nothing is allowed that no grant allows, and a deny beats every allow.

Pure: takes grants, gives yes or no. Who is calling is `principals`' business,
which call needs what is the service's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from switchyard.registry.access.resources import ANY, EVERYTHING, Resource, ResourcePattern
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.refs import check_name
from switchyard.registry.verdicts import shown


class Scope(StrEnum):
    """What can be done; the value is what grants name."""

    READ = "adapter:read"
    PUBLISH = "adapter:publish"
    PROMOTE = "adapter:promote"
    ROLLBACK = "adapter:rollback"
    DELETE = "adapter:delete"
    YANK = "adapter:yank"
    TAG = "adapter:tag"
    ATTACH = "statement:attach"
    GENERATE = "infer:generate"
    AUDIT = "audit:read"
    POLICY = "admin:policy"
    COLLECT = "admin:collect"
    BACKUP = "admin:backup"
    ACCESS = "admin:access"
    OBSERVE = "admin:observe"
    LOAD = "admin:load"
    DRAIN = "admin:drain"


class Effect(StrEnum):
    """What a grant does."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One rule of a principal.

    Attributes:
        scope: what it is about.
        pattern: where it holds.
        effect: whether it allows or denies.
    """

    scope: Scope
    pattern: ResourcePattern
    effect: Effect = Effect.ALLOW

    def __str__(self) -> str:
        return f"{self.effect} {self.scope} on {self.pattern}"


def decide(grants: Iterable[Grant], scope: Scope, resource: Resource) -> bool:
    """Tells whether the grants allow something.

    A wide resource (a namespace, the registry) needs an allow that reaches all
    of it, and no deny that reaches any of it.
    """
    allowed = False
    for grant in grants:
        if grant.scope is scope:
            if grant.effect is Effect.DENY and grant.pattern.touches(resource):
                return False
            allowed = allowed or (grant.effect is Effect.ALLOW and grant.pattern.covers(resource))
    return allowed


def decide_within(grants: Iterable[Grant], scope: Scope, wide: Resource = EVERYTHING) -> bool:
    """Tells whether the grants allow something about a part of a wide resource, as far as patterns alone can tell.

    Never says no where a single thing in it is allowed; says yes although nothing is left only where
    several denies together take back an allow.
    """
    about = [grant for grant in grants if grant.scope is scope]
    if any(grant.effect is Effect.DENY and grant.pattern.covers(wide) for grant in about):
        return False
    return any(grant.effect is Effect.ALLOW and grant.pattern.touches(wide) for grant in about)


def parse_scope(text: str) -> Scope:
    """Returns the scope of that name.

    Raises:
        ArgumentInvalid: there is none; the message names all.
    """
    try:
        return Scope(text)
    except ValueError:
        raise ArgumentInvalid(f"{shown(text)} is no scope; expected one of {', '.join(Scope)}") from None


CANDIDATE = "candidate"
"""The alias that whoever publishes may move."""


class Role(StrEnum):
    """A named set of grants for the common cases."""

    READER = "reader"
    CALLER = "caller"
    PUBLISHER = "publisher"
    PROMOTER = "promoter"
    ADMIN = "admin"


_SCOPES: dict[Role, tuple[Scope, ...]] = {
    Role.READER: (Scope.READ,),
    Role.CALLER: (Scope.GENERATE,),
    Role.PUBLISHER: (Scope.READ, Scope.PUBLISH, Scope.ATTACH),
    Role.PROMOTER: (Scope.READ, Scope.PROMOTE, Scope.ROLLBACK, Scope.YANK, Scope.TAG, Scope.ATTACH),
    Role.ADMIN: tuple(Scope),
}


def role_grants(role: Role, namespace: str) -> tuple[Grant, ...]:
    """Returns the grants of a role in one namespace, or in all with `*`.

    A publisher may move the alias `candidate` and no other: what is served is a promoter's decision.

    Raises:
        RefSyntax: the namespace is no name.
    """
    if namespace != ANY:
        check_name(namespace, "namespace")
    everywhere = ResourcePattern(namespace, ANY)
    grants = tuple(Grant(scope, everywhere) for scope in _SCOPES[role])
    if role is Role.PUBLISHER:
        grants += (Grant(Scope.PROMOTE, ResourcePattern(namespace, ANY, CANDIDATE)),)
    return grants
