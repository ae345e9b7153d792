"""Changes: what happened to a registry, in order.

A change is written in the transaction that makes it, as an event with the next
revision and as a row of the audit log. Revisions have no gaps and commit in
order, so whoever has seen revision n has seen everything up to n.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from switchyard.registry.strict_json import Json


class ChangeKind(StrEnum):
    """What can happen; the value is the event's kind and the audit log's action."""

    BASE_REGISTERED = "base.registered"
    VERSION_CREATED = "version.created"
    VERSION_STATE = "version.state"
    VERSION_TAGS = "version.tags"
    VERSION_PURGED = "version.purged"
    ALIAS_SET = "alias.set"
    ALIAS_DELETED = "alias.deleted"
    ALIAS_POLICY = "alias.policy"
    ADAPTER_CHANGED = "adapter.changed"
    NAMESPACE_CHANGED = "namespace.changed"
    STATEMENT_ATTACHED = "statement.attached"
    BLOB_CORRUPT = "blob.corrupt"
    COLLECTED = "registry.collected"
    RESTORED = "registry.restored"
    ACCESS_CHANGED = "access.changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened.

    Attributes:
        kind: what.
        actor: who did it; empty when the registry itself found it.
        namespace: owner of the adapter's name; empty when none is concerned.
        adapter: name within the namespace; empty when none is concerned.
        payload: all that a replica needs to repeat it.
    """

    kind: ChangeKind
    actor: str
    namespace: str = ""
    adapter: str = ""
    payload: Mapping[str, Json] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """What it happened to, for the audit log."""
        return f"{self.namespace}/{self.adapter}" if self.adapter else self.namespace


@dataclass(frozen=True, slots=True)
class Event:
    """A change with its place in the order.

    Attributes:
        revision: its place; they have no gaps.
        kind: what happened, as in `ChangeKind`.
        namespace: owner of the adapter's name, or empty.
        adapter: name within the namespace, or empty.
        payload: the rest of it.
        at_s: when, in seconds since the epoch.
    """

    revision: int
    kind: str
    namespace: str
    adapter: str
    payload: Mapping[str, Json]
    at_s: float


@dataclass(frozen=True, slots=True)
class Origin:
    """How a call reached this process.

    Attributes:
        credential: id of the token or name of the certificate; empty when none was needed.
        peer: address of the caller; empty for the process itself.
        request_id: the caller's name for the call.
    """

    credential: str = ""
    peer: str = ""
    request_id: str = ""


HERE = Origin()
"""A call from within the process."""

ORIGIN: ContextVar[Origin] = ContextVar("switchyard_origin", default=HERE)
"""Origin of the call being served; set at the edge, read by the audit log."""
