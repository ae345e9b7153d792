"""What a right is about: one adapter, one alias of it, a namespace, or everything.

A pattern is written `ns/adapter` or `ns/adapter@alias`; each part is a name or
`*` for any. There are no other wildcards, so that whoever reads a grant knows
what it reaches. Without `@alias` a pattern reaches the adapter and all of its
aliases; with it, only what is done through that alias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from switchyard.registry.errors import ArgumentInvalid, RefSyntax
from switchyard.registry.refs import AdapterName, AdapterRef, check_alias, check_name
from switchyard.registry.verdicts import shown

ANY = "*"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What somebody wants to do something to.

    Attributes:
        namespace: owner of the name; empty for the whole registry.
        adapter: name within the namespace; empty for all of the namespace.
        alias: the alias that is used or moved; empty when none is.
    """

    namespace: str = ""
    adapter: str = ""
    alias: str = ""

    @classmethod
    def of_name(cls, name: AdapterName, alias: str = "") -> Resource:
        """An adapter, or one alias of it."""
        return cls(name.namespace, name.adapter, alias)

    @classmethod
    def of_ref(cls, ref: AdapterRef) -> Resource:
        """An adapter through what a ref says; a version or a digest counts as the adapter."""
        return cls(ref.namespace, ref.adapter, ref.alias or "")

    def __str__(self) -> str:
        if not self.namespace:
            return "the registry"
        if not self.adapter:
            return f"namespace {self.namespace}"
        return f"{self.namespace}/{self.adapter}" + (f"@{self.alias}" if self.alias else "")


EVERYTHING = Resource()
"""The whole registry."""


@dataclass(frozen=True, slots=True, order=True)
class ResourcePattern:
    """Which resources a grant reaches.

    Attributes:
        namespace: a name, or `*`.
        adapter: a name, or `*`.
        alias: a name, `*` for any alias, or empty for the adapter and every alias of it.
    """

    namespace: str
    adapter: str
    alias: str = ""

    @classmethod
    def parse(cls, text: str) -> ResourcePattern:
        """Reads `ns/adapter` or `ns/adapter@alias`, each part a name or `*`.

        Raises:
            ArgumentInvalid: it is something else; every fault is named.
        """
        name, at, alias = text.partition("@")
        namespace, slash, adapter = name.partition("/")
        faults = [] if slash else ["expected `ns/adapter` or `ns/adapter@alias`, `*/*` for everything"]
        faults += _fault(namespace, lambda part: check_name(part, "namespace"))
        faults += _fault(adapter, lambda part: check_name(part, "adapter")) if slash else []
        faults += _fault(alias, check_alias) if at else []
        if faults:
            raise ArgumentInvalid(f"{shown(text)} is no resource pattern: {'; '.join(faults)}")
        return cls(namespace, adapter, alias)

    def covers(self, resource: Resource) -> bool:
        """Tells whether all of a resource is reached."""
        if not (self.namespace in (ANY, resource.namespace) and self.adapter in (ANY, resource.adapter)):
            return False
        if not self.alias:
            return True
        return bool(resource.alias) and self.alias in (ANY, resource.alias)

    def touches(self, resource: Resource) -> bool:
        """Tells whether any part of a resource is reached."""
        if resource.namespace and self.namespace not in (ANY, resource.namespace):
            return False
        return not resource.adapter or self.covers(resource)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.adapter}" + (f"@{self.alias}" if self.alias else "")


def _fault(part: str, check: Callable[[str], str]) -> list[str]:
    if part == ANY:
        return []
    try:
        check(part)
    except RefSyntax as error:
        return [str(error)]
    return []
