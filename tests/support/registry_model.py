"""What a registry should answer: the oracle of the state machine, in dictionaries and plain words.

It knows nothing of tables, files, locks or transactions, and imports none of the code that it judges
but names of errors and states. Every method takes what the call of the same name in `registry_calls`
takes, and returns what that one should.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

from model_memory import (
    BAD_BY_ALIAS,
    FREE,
    GONE,
    LEASE_S,
    SERVABLE,
    Adapter,
    Content,
    Refused,
    Session,
    Version,
    require_servable,
)
from model_names import Names


class RegistryModel(Names):
    """A registry without accidents.

    Args:
        contents: what can be published, by number.
        now_s: seconds since the epoch; a test sets it.
    """

    def __init__(self, contents: Sequence[Content], now_s: float) -> None:
        super().__init__(now_s)
        self.contents = contents
        self.sessions: dict[tuple[str, str], Session] = {}
        self.blobs: set[str] = set()

    def perform(self, call: str, *arguments: object) -> object:
        """What a call should return, or the name of the error that it should raise."""
        try:
            return getattr(self, call)(*arguments)
        except Refused as refused:
            return str(refused)

    # -- publishing ------------------------------------------------------

    def begin(self, name: str, content: int, key: str) -> tuple[int, list[str]]:
        wanted = self.contents[content]
        at = (name.partition("/")[0], key)
        session = self.sessions.get(at)
        if session is not None and (session.name, session.content) != (name, wanted):
            raise Refused("IdempotencyConflict")
        if session is not None and session.state == "COMMITTED":
            return session.version, []
        session = self.sessions.setdefault(at, Session(name, wanted, 0.0))
        session.state, session.expires_s = "OPEN", self.now_s + LEASE_S
        return 0, [digest for digest in wanted.files if not self._has_arrived(session, digest)]

    def progress(self, at: tuple[str, str], digest: str) -> tuple[int, bool]:
        session = self.sessions[at]
        if session.state == "ABORTED":
            raise Refused("BlobNotFound")
        if session.state == "COMMITTED" or self._has_arrived(session, digest):
            return session.content.files[digest], True
        return session.parts.get(digest, 0), False

    def upload(self, at: tuple[str, str], digest: str, upto: int) -> tuple[int, bool]:
        session = self.sessions[at]
        found = self.progress(at, digest)
        if found[1]:
            return found
        self._require_lease(session)
        session.expires_s = self.now_s + LEASE_S
        if upto < session.content.files[digest]:
            session.parts[digest] = upto
            return upto, False
        session.parts.pop(digest, None)
        session.delivered.add(digest)
        self.blobs.add(digest)
        return upto, True

    def commit(self, at: tuple[str, str], set_alias: str | None, expected: int | None) -> int:
        session = self.sessions[at]
        if session.state == "COMMITTED":
            if set_alias not in {None, session.alias_set}:
                raise Refused("IdempotencyConflict")
            return session.version
        if session.state == "ABORTED":
            raise Refused("SessionClosed")
        self._require_lease(session)
        if not all(self._has_arrived(session, digest) for digest in session.content.files):
            raise Refused("UploadIncomplete")
        # These are there even if the rest fails.
        self.blobs |= set(session.content.documents)
        session.expires_s = self.now_s + LEASE_S
        with self.all_or_nothing():
            adapter = self.adapters.setdefault(session.name, Adapter())
            number = self._publish(adapter, session)
            if set_alias is not None:
                self.move(session.name, set_alias, number, expected)
            # The transaction may have replaced the objects.
        session.state, session.version, session.alias_set, session.parts = "COMMITTED", number, set_alias, {}
        return number

    def abort(self, at: tuple[str, str]) -> None:
        session = self.sessions[at]
        if session.state == "OPEN":
            session.abort()
            session.parts = {}

    def _has_arrived(self, session: Session, digest: str) -> bool:
        """Whether the session has brought the bytes, or its own namespace holds them; another's do not count."""
        namespace = session.name.partition("/")[0]
        held = (
            version.content.files
            for name, adapter in self.adapters.items()
            for version in adapter.versions
            if name.partition("/")[0] == namespace and version.state != "PURGED"
        )
        return digest in session.delivered or any(digest in files for files in held)

    def _publish(self, adapter: Adapter, session: Session) -> int:
        for number, version in enumerate(adapter.versions, 1):
            if version.content == session.content:
                if version.state in GONE and version.prior != "QUARANTINED":
                    self.enter(session.name, version, version.prior or "YANKED", "")
                elif version.state in {*GONE, "QUARANTINED"}:
                    raise Refused("VersionQuarantined")
                return number
        adapter.versions.append(Version(session.content))
        self.events.append(("version.created", session.name))
        return len(adapter.versions)

    def _require_lease(self, session: Session) -> None:
        if self.now_s > session.expires_s:
            raise Refused("LeaseExpired")

    # -- housekeeping ----------------------------------------------------

    def collect(self, dry_run: bool) -> tuple[int, int, int]:
        before = copy.deepcopy((self.adapters, self.sessions, self.blobs, self.events))
        over = [s for s in self.sessions.values() if s.state == "OPEN" and s.expires_s < self.now_s]
        for session in over:
            session.abort()
        due = [
            (name, version)
            for name, adapter in self.adapters.items()
            for version in adapter.versions
            if version.state == "DELETED" and version.purge_after_s <= self.now_s
        ]
        for name, version in due:
            version.state = "PURGED"
            self.events.append(("version.purged", name))
        removed = self.blobs - self._needed()
        self.blobs -= removed
        for session in self.sessions.values():
            if session.state != "OPEN":
                session.parts = {}
        if dry_run:
            self.adapters, self.sessions, self.blobs, self.events = before
        return len(over), len(due), len(removed)

    def _needed(self) -> set[str]:
        kept = [v.content for a in self.adapters.values() for v in a.versions if v.state != "PURGED"]
        kept += [session.content for session in self.sessions.values() if session.state == "OPEN"]
        return {digest for content in kept for digest in (*content.files, *content.documents)}

    # -- reading ---------------------------------------------------------

    def resolve(self, name: str, alias: str, session_key: str) -> tuple[int, int, bool]:
        """Version, generation, and whether it is the second of a split."""
        found = self.alias(name, alias)
        if session_key and found.canary:
            second = self.version(name, found.canary)
            text = f"{name}@{alias}\n{second.content.digest}\n{session_key}"
            point = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
            if point < found.percent / 100 and second.state in SERVABLE:
                return found.canary, len(found.moves), True
        require_servable(self.version(name, found.version))
        return found.version, len(found.moves), False

    def resolve_version(self, name: str, number: int) -> str:
        version = self.version(name, number)
        if version.state not in FREE:
            raise Refused(BAD_BY_ALIAS[version.state])
        return version.content.digest

    def look(self) -> dict[str, object]:
        """Everything that is there."""
        return {
            "adapters": {name: self._picture(adapter) for name, adapter in sorted(self.adapters.items())},
            "blobs": sorted(self.blobs),
            "used_bytes": self._used_bytes(),
            "events": self.events,
        }

    def _picture(self, adapter: Adapter) -> dict[str, object]:
        return {
            "versions": [
                (
                    number,
                    version.content.digest,
                    version.state,
                    version.tags,
                    sorted(alias for alias, found in adapter.aliases.items() if found.version == number),
                )
                for number, version in enumerate(adapter.versions, 1)
            ],
            "aliases": {
                alias: (found.version, found.canary, found.percent, found.moves)
                for alias, found in sorted(adapter.aliases.items())
            },
        }

    def _used_bytes(self) -> dict[str, int]:
        held: dict[str, dict[str, int]] = {}
        for name, adapter in self.adapters.items():
            blobs = held.setdefault(name.partition("/")[0], {})
            for version in adapter.versions:
                if version.state != "PURGED":
                    blobs |= version.content.files | version.content.documents
        return {namespace: sum(blobs.values()) for namespace, blobs in sorted(held.items())}
