"""What the oracle of the state machine remembers, and how it finds things in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LEASE_S = 3600.0
UNDELETE_S = 7 * 86400.0
SERVABLE = {"READY", "DEPRECATED"}
GONE = {"DELETED", "PURGED"}
FREE = {"READY", "DEPRECATED", "YANKED"}
BAD_BY_ALIAS = {
    "YANKED": "VersionYanked",
    "QUARANTINED": "VersionQuarantined",
    "DELETED": "VersionDeleted",
    "PURGED": "VersionDeleted",
}


class Refused(Exception):
    """The registry should refuse, with an error of this name."""


@dataclass(frozen=True)
class Content:
    """What a version can hold.

    Attributes:
        digest: of the manifest.
        files: digest to size in bytes, in the order in which they are asked for.
        documents: the same of what the registry adds.
    """

    digest: str
    files: dict[str, int]
    documents: dict[str, int]

    def __deepcopy__(self, _memo: object) -> Content:
        return self


@dataclass
class Version:
    content: Content
    state: str = "READY"
    prior: str = ""
    purge_after_s: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Alias:
    """Where it points, 0 for nowhere; and every move: kind, from, to, second version, percent."""

    version: int = 0
    canary: int = 0
    percent: int = 0
    moves: list[tuple[str, int, int, int, int]] = field(default_factory=list)

    def move(self, kind: str, to: int, canary: int = 0, percent: int = 0) -> None:
        self.moves.append((kind, self.version, to, canary, percent))
        self.version, self.canary, self.percent = to, canary, percent


@dataclass
class Adapter:
    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, Alias] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Session:
    name: str
    content: Content
    expires_s: float
    state: str = "OPEN"
    version: int = 0
    alias_set: str | None = None
    parts: dict[str, int] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)

    def abort(self) -> None:
        """Forgets what it has brought; bytes of unfinished files stay until they are collected."""
        self.state, self.delivered = "ABORTED", set()


class Memory:
    """Adapters by name, and every event since the beginning: its kind and its adapter.

    Args:
        now_s: seconds since the epoch; a test sets it.
    """

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self.adapters: dict[str, Adapter] = {}
        self.events: list[tuple[str, str]] = []

    def enter(self, name: str, version: Version, state: str, prior: str) -> None:
        """Changes the state of a version."""
        version.state, version.prior = state, prior
        version.purge_after_s = self.now_s + UNDELETE_S
        self.events.append(("version.state", name))

    def adapter(self, name: str) -> Adapter:
        if name not in self.adapters:
            raise Refused("AdapterNotFound")
        return self.adapters[name]

    def version(self, name: str, number: int) -> Version:
        versions = self.adapter(name).versions
        if not 1 <= number <= len(versions):
            raise Refused("VersionNotFound")
        return versions[number - 1]

    def alias(self, name: str, alias: str) -> Alias:
        found = self.adapter(name).aliases.get(alias, Alias())
        if not found.version:
            raise Refused("AliasNotFound")
        return found

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        before = copy.deepcopy((self.adapters, self.events))
        try:
            yield
        except Refused:
            self.adapters, self.events = before
            raise


def require_servable(version: Version) -> None:
    if version.state not in SERVABLE:
        raise Refused(BAD_BY_ALIAS[version.state])
