"""Verifications for people: what `switchyard train --verify` prints."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.trainer.verifying import TOLERANCE, Verdict, Verified

_WORDS: Final = {
    Verdict.IDENTICAL: ("identical", "green", "weights and config have the same bytes as the lock's"),
    Verdict.CLOSE: ("close", "yellow", f"other bytes, and every score within {TOLERANCE:.0%}"),
    Verdict.DIFFERENT: ("DIFFERENT", "red", f"a score is more than {TOLERANCE:.0%} away"),
}


def print_verification(found: Verified, console: Console) -> None:
    """Prints the verdict, the scores beside each other, and what may explain a difference."""
    word, style, meaning = _WORDS[found.verdict]
    console.print(Text.assemble((word, f"bold {style}"), f": {meaning}"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("score")
    table.add_column("lock", justify="right")
    table.add_column("now", justify="right")
    for name, (old, new) in found.scores.items():
        table.add_row(name, _shown(old), _shown(new))
    console.print(table)
    for name in found.files:
        console.print(Text(f"differs: {name}"), soft_wrap=True)
    for one in found.differences:
        console.print(Text(one, style="dim"), soft_wrap=True)
    console.print(Text(f"the new run is in {found.output}", style="dim"), soft_wrap=True)


def _shown(score: float | None) -> str:
    return "–" if score is None else f"{score:.6f}"
