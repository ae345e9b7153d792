"""The page of the parity matrix: how each feature is served on each architecture."""

from __future__ import annotations

from collections.abc import Mapping

Cells = Mapping[tuple[str, str], str]
"""By (feature, architecture): `mixed`, or why it is refused."""

_INTRO = """\
# What is served exactly

Made by `make parity-matrix`; `tests/parity/test_matrix.py` fails when a run finds something else.

Tiny random models in NF4 with double quantisation, float32 activations, on a CPU. Every kind of adapter is made and
saved by PEFT, and read again by plain PEFT on the same quantised base in a process of its own; its logits and greedy
tokens are the reference.

- **mixed**: served in one batch with adapters of every other kind and rows of the base. Each logit is within
  {tolerance:g} of PEFT's (their standard deviation is about 1), and each greedy token is PEFT's wherever PEFT's two
  best logits are more than {twice:g} apart. Tokens and the bits of their logits are the same alone, in the mixed
  batch, with the prompt in chunks of 64 tokens, from the prefix cache, streamed, and after preemption.
- **refused**: answered with an error that names the reason below the table; nothing is ever left out silently.

"""


def render(cells: Cells, tolerance: float) -> str:
    """The page in Markdown."""
    features = list(dict.fromkeys(feature for feature, _ in cells))
    architectures = list(dict.fromkeys(architecture for _, architecture in cells))
    reasons = list(dict.fromkeys(cell for cell in cells.values() if cell != "mixed"))
    names = {"mixed": "mixed"} | {reason: f"refused [{index}]" for index, reason in enumerate(reasons, 1)}
    lines = [f"| | {' | '.join(architectures)} |", f"|---|{'---|' * len(architectures)}"]
    for feature in features:
        row = " | ".join(names[cells[feature, architecture]] for architecture in architectures)
        lines.append(f"| {feature} | {row} |")
    notes = [f"[{index}] {reason}" for index, reason in enumerate(reasons, 1)]
    text = _INTRO.format(tolerance=tolerance, twice=2 * tolerance) + "\n".join(lines) + "\n"
    return text + ("\n" + "\n\n".join(notes) + "\n" if notes else "")


def column(page: str, architecture: str) -> dict[str, str]:
    """What a page says of one architecture, `mixed` or `refused`, by feature."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    index = rows[0].index(architecture)
    return {row[0]: row[index].partition(" ")[0] for row in rows[2:]}
