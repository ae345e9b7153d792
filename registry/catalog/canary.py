"""Which version of a split a session gets. Pure arithmetic on digests, no state.

A session key and a split are hashed to a point in [0, 1); the second version has the part of the
line below its percentage. The same key therefore gets the same version at every server and after
every restart, and a greater percentage only moves sessions from the first version to the second.

The version behind the second half of the split is part of the hash: the sessions that try the next
candidate are others than those that tried the last one.
"""

from __future__ import annotations

import hashlib

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.records import AliasRecord

MOST_PERCENT = 99
_POINT_BYTES = 8
_POINTS = 1 << (8 * _POINT_BYTES)


def check_percent(percent: int) -> None:
    """Checks the share of a split; 0 stands for none.

    Raises:
        ArgumentInvalid: not a whole number from 0 to 99.
    """
    if type(percent) is not int or not 0 <= percent <= MOST_PERCENT:
        raise ArgumentInvalid(
            f"canary share {percent!a} is not a whole percentage from 1 to {MOST_PERCENT} (0 ends the split); "
            "to give everybody the version, move the alias to it"
        )


def choose(alias: AliasRecord, session_key: str) -> int:
    """Returns the number of the version that a session gets.

    A caller without a session passes something that is new for each request, e.g. its id, and gets a
    fresh draw each time. The empty key is nobody in particular and always gets the first version, so
    that tools which resolve an alias by hand see what it points to.

    Args:
        alias: where the alias points, with its split if it has one.
        session_key: names the session; any text.
    """
    split = alias.canary
    if split is None or session_key == "":
        return alias.version
    # Exact in whole numbers: a float would round the topmost points up to 1.
    below = _point(alias, split.digest, session_key) * 100 < split.percent * _POINTS
    return split.version if below else alias.version


def _point(alias: AliasRecord, canary_digest: str, session_key: str) -> int:
    # Names and digests hold no line break, so no two triples give the same text.
    text = f"{alias.namespace}/{alias.adapter}@{alias.name}\n{canary_digest}\n{session_key}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_POINT_BYTES], "big")
