"""How measured durations are spread: counts in buckets, which several servers can add up.

A bucket is an eighth of a power of two wide, so a quantile is known to 9 % of
itself, whatever the scale. Ranks, not means: one caller who waited a minute
must not decide about a version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LEAST_S = 1e-6
_PER_DOUBLING = 8
_MOST_S = LEAST_S * 2**30
"""1,074 s: where the last bucket, number 240, begins."""


def bucket_of(duration_s: float) -> int:
    """Returns the bucket of a duration; what is too short or too long goes to the first or the last."""
    if not duration_s > LEAST_S:
        return 0
    return int(_PER_DOUBLING * math.log2(min(duration_s, _MOST_S) / LEAST_S))


def lower_s(bucket: int) -> float:
    """Returns where a bucket begins, in seconds; it ends where the next one begins."""
    return LEAST_S * 2 ** (bucket / _PER_DOUBLING)


@dataclass(frozen=True, slots=True)
class Spread:
    """Durations, counted.

    Attributes:
        counts: bucket to how many fell into it; buckets with none are left out.
    """

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many durations were measured."""
        return sum(self.counts.values())

    def bucket_at(self, rank: int) -> int | None:
        """Returns the bucket of the duration of a rank, counted from 1, the shortest first; None beyond them."""
        if rank < 1:
            return None
        below = 0
        for bucket in sorted(self.counts):
            below += self.counts[bucket]
            if below >= rank:
                return bucket
        return None

    def quantile_s(self, share: float) -> float | None:
        """Returns the duration that a share of all does not exceed, to the middle of its bucket; None without any."""
        bucket = self.bucket_at(max(1, math.ceil(share * self.count)))
        return None if bucket is None else lower_s(bucket) * 2 ** (0.5 / _PER_DOUBLING)


def merged(spreads: Iterable[Spread]) -> Spread:
    """Returns the durations of all together."""
    counts: dict[int, int] = {}
    for spread in spreads:
        for bucket, count in spread.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return Spread(counts)
