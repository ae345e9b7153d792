"""Which rights a call needs, in words that every face has: scopes on adapters, refs and targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from switchyard.registry.access.policy import Grant, Scope, decide, decide_within
from switchyard.registry.access.resources import EVERYTHING, Resource
from switchyard.registry.refs import AdapterName, AdapterRef, check_alias
from switchyard.server.calls.draft import AdapterTarget, CompositionTarget, Target


@dataclass(frozen=True, slots=True)
class Need:
    """One right that a call needs.

    Attributes:
        scope: what it does.
        owners: to what; the right on one of them is enough, and with none of them nobody has it.
        subject: what it is about, in the caller's own words.
        within: whether a right on any part of the owners is enough.
    """

    scope: Scope
    owners: tuple[Resource, ...]
    subject: str
    within: bool = False

    def met_by(self, grants: Iterable[Grant]) -> bool:
        """Tells whether the grants hold this right."""
        check = decide_within if self.within else decide
        # What belongs to nobody is shown to be absent only to those who may see everything.
        return any(check(grants, self.scope, owner) for owner in self.owners or (EVERYTHING,))

    @property
    def is_about_all(self) -> bool:
        """Whether it is about the registry or the server as a whole, whose existence is no secret."""
        return self.owners == (EVERYTHING,)


class Named(Protocol):
    """Something of an adapter that has a name."""

    @property
    def namespace(self) -> str:
        """Its namespace."""
        ...

    @property
    def adapter(self) -> str:
        """Its adapter."""
        ...


def on_adapter(scope: Scope, adapter: str, alias: str = "") -> Need:
    """A right on an adapter, or on one of its aliases.

    Raises:
        RefSyntax: one of the names is none.
    """
    resource = Resource.of_name(AdapterName.parse(adapter), check_alias(alias) if alias else "")
    return Need(scope, (resource,), str(resource))


def on_ref(scope: Scope, text: str) -> Need:
    """A right on what a ref names.

    Raises:
        RefSyntax: it is no ref.
    """
    ref = AdapterRef.parse(text)
    return Need(scope, (Resource.of_ref(ref),), str(ref))


def on_everything(scope: Scope, *, within: bool = False) -> Need:
    """A right on the registry or the server as a whole, or `within` any part of it."""
    return Need(scope, (EVERYTHING,), str(EVERYTHING), within)


def generation_needs(target: Target | None) -> tuple[Need, ...]:
    """The rights that an answer needs.

    Raises:
        RefSyntax: a ref is none.
    """
    if isinstance(target, AdapterTarget):
        return (on_ref(Scope.GENERATE, target.ref),)
    if isinstance(target, CompositionTarget) and target.adapters:
        return tuple(on_ref(Scope.GENERATE, part.ref) for part in target.adapters)
    # The base model is nobody's: whoever may use one adapter may compare it with the base.
    return (on_everything(Scope.GENERATE, within=True),)


def is_visible(item: Named, aliases: Sequence[str], grants: tuple[Grant, ...], scope: Scope) -> bool:
    """Whether something of an adapter may be seen, as such or through one of its aliases."""
    owners = [Resource(item.namespace, item.adapter, alias) for alias in ("", *aliases)]
    return any(decide(grants, scope, owner) for owner in owners)
