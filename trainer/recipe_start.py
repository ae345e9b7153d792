"""The recipe's beginning: nothing, or the weights of a version that is there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class StartSection(Section):
    """Goes on from a published version instead of beginning anew; it becomes the parent in the lineage."""

    version: str | None = None
    """Version whose weights the adapter begins with: `ns/name@alias`, `ns/name:7` or `ns/name@sha256:…`. Base and
    shape have to be the same."""

    registry: Annotated[Path | None, Field(strict=False)] = None
    """Registry directory that has the version; relative to the recipe file."""

    server: str | None = None
    """Address of a server that has the version; give one of both."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """A version needs one place, and a place a version."""
        places = [name for name in ("registry", "server") if given.get(name) is not None]
        if given.get("version") is None:
            return ["`start.registry` and `start.server` say where `start.version` is; give it"] if places else []
        return (
            [] if len(places) == 1 else ["`start.version` needs exactly one of `start.registry` and `start.server`"]
        )
