"""Packing: how rows share the sequences that a step takes.

Owns the chunks of continued pre-training and the count of tokens that each way of packing keeps. The rows of a
chunk follow one another without a border: what does not fit goes on in the next chunk, over rows, and the last
chunk is as short as what is left. So every token is in exactly one chunk. TRL's own ways are options.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from switchyard.trainer.data import TruncationReport
from switchyard.trainer.token_rows import TokenRow


class Packing(StrEnum):
    """How rows share sequences; the last three are TRL's names."""

    NONE = "none"
    CHUNKS = "chunks"
    BFD = "bfd"
    BFD_SPLIT = "bfd_split"
    WRAPPED = "wrapped"

    @property
    def is_trls(self) -> bool:
        """Whether TRL packs."""
        return self in {Packing.BFD, Packing.BFD_SPLIT, Packing.WRAPPED}

    @property
    def keeps_borders(self) -> bool:
        """Whether rows of one sequence do not see each other, which the base must be able to do."""
        return self in {Packing.BFD, Packing.BFD_SPLIT}


def chunks(rows: Iterable[TokenRow], length: int) -> Iterator[TokenRow]:
    """Cuts rows into chunks.

    Args:
        rows: Rows in their order.
        length: Tokens of each chunk; the last may have fewer.
    """
    ids: list[int] = []
    labels: list[int] = []
    for row in rows:
        ids.extend(row.ids)
        labels.extend(row.labels)
        whole = len(ids) - len(ids) % length
        for start in range(0, whole, length):
            yield TokenRow(tuple(ids[start : start + length]), tuple(labels[start : start + length]))
        del ids[:whole], labels[:whole]
    if ids:
        yield TokenRow(tuple(ids), tuple(labels))


def packing_report(
    rows: Sequence[TokenRow], sequences: Sequence[TokenRow], packing: Packing, length: int
) -> TruncationReport:
    """Says what packing made of rows.

    Args:
        rows: The rows as they were given.
        sequences: What they became.
        packing: How.
        length: Tokens of the longest sequence that is allowed.
    """
    is_cut = packing is Packing.BFD
    tokens = sum(len(one.ids) for one in sequences)
    return TruncationReport(
        rows=len(rows),
        dropped=0,
        cut=sum(len(row.ids) > length for row in rows) if is_cut else 0,
        tokens=tokens,
        trained_tokens=sum(one.trained_tokens for one in sequences),
        sequences=len(sequences),
        lost_tokens=sum(len(row.ids) for row in rows) - tokens,
    )
