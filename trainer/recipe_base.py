"""The recipe's base model: where it is found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class BaseSection(Section):
    """Which base model the adapter is trained on: exactly one of `path` and `hub`."""

    path: Annotated[Path | None, Field(strict=False)] = None
    """Directory with config.json, *.safetensors and a tokenizer; relative to the recipe file."""

    hub: str | None = None
    """Repository on the Hugging Face Hub, e.g. `Qwen/Qwen2.5-0.5B-Instruct`."""

    revision: str | None = None
    """Commit, branch or tag on the Hub; only with `hub`."""

    name: str | None = None
    """What the base is called in manifests; the directory's or repository's name by default."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Exactly one source, and a revision only of a repository."""
        found = []
        if (given.get("path") is None) == (given.get("hub") is None):
            found.append("give exactly one of `path` (a directory) and `hub` (a repository)")
        if given.get("revision") is not None and given.get("hub") is None:
            found.append("`revision` belongs to `hub`; a directory has none")
        return found
