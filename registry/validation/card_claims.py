"""What a README claims about its base model, compared with the base it is published for.

A card is for people, and the digests decide. A card that names another base is still worth a warning:
one of the two is wrong, and whoever reads the card will believe it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from switchyard.registry.verdicts import Findings, Reason, shown

# As the Hub reads it: the text begins with a line of three hyphens, and a second one ends the block.
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FRONT_MATTER_CHARACTERS = 64 << 10


def check_card(name: str, text: str, base_name: str, base_digest: str, findings: Findings) -> None:
    """Warns when the front matter names another base model; anything unreadable claims nothing.

    Args:
        name: the file, for findings.
        text: all of it.
        base_name: what the base model is called; empty when unknown.
        base_digest: identity of the base model; empty when unknown.
        findings: receives the warning.
    """
    claimed, digest = _claims(text)
    if digest and base_digest and digest != base_digest:
        message = f"says that the base model is {shown(digest)}; it is published for {base_digest}"
        findings.warn(Reason.CARD_BASE, name, message)
    elif claimed and base_name and _short(base_name) not in {_short(base) for base in claimed}:
        listed = ", ".join(shown(base) for base in claimed)
        message = f"says that the base model is {listed}; it is published for {shown(base_name)}"
        findings.warn(Reason.CARD_BASE, name, message)


def _claims(text: str) -> tuple[list[str], str]:
    """Returns the names and the digest of the base model that a card states."""
    found = _FRONT_MATTER.match(text[:_FRONT_MATTER_CHARACTERS])
    if found is None:
        return [], ""
    # Imported here: most cards that are checked have no front matter.
    import yaml

    try:
        fields = yaml.safe_load(found[1])
    # Nesting beyond Python's stack is an error of neither YAML nor value.
    except (yaml.YAMLError, ValueError, RecursionError):
        return [], ""
    if not isinstance(fields, dict):
        return [], ""
    base, own = fields.get("base_model"), fields.get("switchyard")
    names = base if isinstance(base, list) else [base]
    digest = own.get("base_digest") if isinstance(own, dict) else ""
    return [name for name in names if isinstance(name, str)], digest if isinstance(digest, str) else ""


def _short(name: str) -> str:
    """The last part of a repository id or of a path: an owner or a folder in front makes no other model."""
    return PurePosixPath(name.strip()).name.casefold()
