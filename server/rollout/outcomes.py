"""How the answers of each side of an alias ended, counted since the alias last moved.

Every answer that was asked for by an alias is counted, whether a rollout goes
on or not: one that has begun a moment ago must not miss its first answers, and
the memory is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from switchyard.registry.rollout.spread import Spread, bucket_of
from switchyard.registry.rollout.tally import Tallies, Tally
from switchyard.server.engine.types import AdapterPart, ErrorEvent, FinishedEvent, GenerateRequest
from switchyard.server.errors import AdapterError, DeadlineExceeded, NumericFault, ServerError

MOST_ALIASES: Final = 1024
"""Generations of aliases that are counted at once; the one asked for longest ago goes first."""


class Fault(Enum):
    """What a failure says about a version."""

    FAILED = "failed"
    NOT_FINITE = "not_finite"


FAULTS: Final[tuple[tuple[type[ServerError], Fault], ...]] = (
    (NumericFault, Fault.NOT_FINITE),
    (AdapterError, Fault.FAILED),
    # A version that has become slow ends like this, too; so does a busy server, for both sides alike.
    (DeadlineExceeded, Fault.FAILED),
)
"""Errors that count against the version. Every other is the caller's or the server's own."""


@dataclass(frozen=True, slots=True)
class AliasGeneration:
    """An alias between two moves.

    Attributes:
        namespace: owner of the adapter's name.
        adapter: the adapter.
        alias: the alias.
        generation: which of its moves came last.
    """

    namespace: str
    adapter: str
    alias: str
    generation: int


@dataclass(slots=True)
class _Counts:
    answers: int = 0
    failures: int = 0
    not_finite: int = 0
    ttft: dict[int, int] = field(default_factory=dict)
    itl: dict[int, int] = field(default_factory=dict)

    def tally(self) -> Tally:
        return Tally(self.answers, self.failures, self.not_finite, Spread(dict(self.ttft)), Spread(dict(self.itl)))


class Outcomes:
    """Counts; belongs to one event loop. Satisfies `AnswerObserver`."""

    def __init__(self) -> None:
        self._counts: OrderedDict[AliasGeneration, tuple[_Counts, _Counts]] = OrderedDict()

    def answered(self, request: GenerateRequest, event: FinishedEvent | ErrorEvent) -> None:
        """A request ended."""
        selection = request.adapter
        if selection is None or len(selection.parts) != 1:
            # A composition is no version's alone.
            return
        (part,) = selection.parts
        if isinstance(event, ErrorEvent):
            self.unanswerable(part, event.error)
        elif part.alias:
            self._answered_well(self._side(part), event, answers=request.best_of)

    def unanswerable(self, part: AdapterPart, error: ServerError) -> None:
        """A version could not answer; refused before acceptance or failed after."""
        fault = next((fault for cls, fault in FAULTS if isinstance(error, cls)), None)
        if fault is None or not part.alias:
            return
        counts = self._side(part)
        counts.answers += 1
        counts.failures += 1
        counts.not_finite += fault is Fault.NOT_FINITE

    def tallies(self, where: AliasGeneration) -> Tallies:
        """What was counted of both sides."""
        sides = self._counts.get(where)
        return Tallies(sides[0].tally(), sides[1].tally()) if sides is not None else Tallies()

    def _side(self, part: AdapterPart) -> _Counts:
        where = AliasGeneration(part.namespace, part.adapter, part.alias, part.alias_generation)
        sides = self._counts.setdefault(where, (_Counts(), _Counts()))
        self._counts.move_to_end(where)
        if len(self._counts) > MOST_ALIASES:
            self._counts.popitem(last=False)
        return sides[part.canary]

    @staticmethod
    def _answered_well(counts: _Counts, event: FinishedEvent, answers: int) -> None:
        counts.answers += 1
        timing = event.timing
        ttft = bucket_of(timing.time_to_first_token_s)
        counts.ttft[ttft] = counts.ttft.get(ttft, 0) + 1
        gaps = event.completion_tokens // answers - 1
        if gaps > 0:
            itl = bucket_of(timing.decode_s / gaps)
            counts.itl[itl] = counts.itl.get(itl, 0) + 1
