"""Named points of the publish and promote protocols.

The registry reports each point as it passes it. Nothing listens in
production; the crash tests kill the process there, and pause it there to let
another process in between.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Step(StrEnum):
    """A point between two effects that outlive the process; named after the effect before or after it."""

    BEGIN_BEFORE_COMMIT = "begin.before_commit"
    BEGIN_AFTER_COMMIT = "begin.after_commit"
    PART_CREATED = "blob.part_created"
    PART_WRITTEN = "blob.part_written"
    PART_SYNCED = "blob.part_synced"
    BLOB_LINKED = "blob.linked"
    BLOB_DIRECTORY_SYNCED = "blob.directory_synced"
    PART_REMOVED = "blob.part_removed"
    BLOB_ROW_BEFORE_COMMIT = "blob.row_before_commit"
    BLOB_ROW_AFTER_COMMIT = "blob.row_after_commit"
    VALIDATED = "commit.validated"
    VERSION_ROW_WRITTEN = "commit.version_row_written"
    COMMIT_BEFORE_COMMIT = "commit.before_commit"
    COMMIT_AFTER_COMMIT = "commit.after_commit"
    ALIAS_MOVED = "alias.moved"
    ALIAS_BEFORE_COMMIT = "alias.before_commit"
    ALIAS_AFTER_COMMIT = "alias.after_commit"
    COLLECT_MARK_BEFORE_COMMIT = "collect.mark_before_commit"
    COLLECT_MARK_AFTER_COMMIT = "collect.mark_after_commit"
    COLLECT_CHOSEN = "collect.chosen"
    COLLECT_UNLINKED = "collect.unlinked"
    COLLECT_ROW_BEFORE_COMMIT = "collect.row_before_commit"
    COLLECT_ROW_AFTER_COMMIT = "collect.row_after_commit"
    COLLECT_ORPHAN_BEFORE_COMMIT = "collect.orphan_before_commit"
    COLLECT_ORPHAN_AFTER_COMMIT = "collect.orphan_after_commit"


OnStep: TypeAlias = Callable[[Step], None]


def ignore_step(_step: Step) -> None:
    """The listener in production: nobody."""
