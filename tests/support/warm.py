"""Imported by the process that test processes are forked from: whatever is imported late is there already.

Files that Python opens for itself are no part of what the crash tests count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trials  # noqa: F401
from handmade import write_adapter, write_base
from registry_actor import open_registry, publish

from switchyard.registry.base_model import describe_base

with tempfile.TemporaryDirectory() as scratch, open_registry(Path(scratch) / "registry") as registry:
    registry.register_base(describe_base(write_base(Path(scratch) / "base")))
    publish(registry, write_adapter(Path(scratch) / "adapter"), "key", set_alias="prod")
