"""What may become of a version, and who gets it in which state. Rules only; `states` writes.

READY, DEPRECATED and YANKED can follow one another freely. QUARANTINED and DELETED can be entered from
these, and are left by going back to where the version came from. Only the collector makes a DELETED
version PURGED, and only the same content published again brings that one back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from switchyard.registry.errors import VersionDeleted, VersionQuarantined, VersionYanked
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord

_READY, _DEPRECATED, _YANKED = VersionState.READY, VersionState.DEPRECATED, VersionState.YANKED
_QUARANTINED, _DELETED, _PURGED = VersionState.QUARANTINED, VersionState.DELETED, VersionState.PURGED

SERVABLE = frozenset({_READY, _DEPRECATED})
"""States of a version that an alias may point to."""

USABLE = SERVABLE | {_YANKED}
"""States in which whoever names a version exactly gets its bytes."""

GONE = frozenset({_DELETED, _PURGED})
"""States that lists leave out unless asked."""

MOVES: Mapping[VersionState, frozenset[VersionState]] = MappingProxyType(
    {
        _READY: frozenset({_DEPRECATED, _YANKED, _QUARANTINED, _DELETED}),
        _DEPRECATED: frozenset({_READY, _YANKED, _QUARANTINED, _DELETED}),
        _YANKED: frozenset({_READY, _DEPRECATED, _QUARANTINED, _DELETED}),
        _QUARANTINED: frozenset({_DELETED}),
        _DELETED: frozenset(),
        _PURGED: frozenset(),
    }
)
"""Every move that somebody can ask for; the ways back out of QUARANTINED and DELETED are not among them."""

_WAYS_OUT: Mapping[VersionState, str] = MappingProxyType(
    {
        _QUARANTINED: "release it first, or delete it",
        _DELETED: "undelete it first",
        _PURGED: "publish the same files again to have it back",
    }
)


def refusal(version: VersionRecord, to: VersionState) -> str:
    """Says why a move that is not in the table is refused, and what to do."""
    told = f"{version.name}:{version.version} is {version.state} and cannot become {to}"
    return f"{told}; {_WAYS_OUT.get(version.state, 'only the collector does that')}"


def state_before(prior: str) -> VersionState:
    """Returns the state that a release or an undelete goes back to.

    A version that was deleted out of quarantine and undeleted has lost what it was before the
    quarantine. YANKED is then the careful answer: no alias serves it until somebody lifts that too.
    """
    return VersionState(prior) if prior else _YANKED


def require_usable(version: VersionRecord, *, by_alias: bool) -> None:
    """Checks that a version may be handed to whoever asked for it.

    Raises:
        VersionYanked: an alias names it; only its number or digest gets a yanked version.
        VersionQuarantined, VersionDeleted: nobody gets it.
    """
    told = f"{version.name}:{version.version} is {version.state}"
    why = f" ({version.state_reason})" if version.state_reason else ""
    if version.state is _QUARANTINED:
        raise VersionQuarantined(f"{told}{why}; name another version, or release it once it is known to be sound")
    if version.state in GONE:
        step = _WAYS_OUT[version.state].removesuffix(" first")
        raise VersionDeleted(f"{told}{why}; {step}, or name another version")
    if version.state is _YANKED and by_alias:
        raise VersionYanked(f"{told}{why}; name it by number or digest, or move the alias")
