"""What steps take, so that prompts do not hold up the answers that are under way.

A step with prefills is as long as its decodes and its prefills together, and
nobody who streams gets a token before it ends. Both are measured apart: decodes
by how many there are, prefills by the token beside them.
"""

from __future__ import annotations

from typing import Final

_NEWEST_SHARE: Final = 0.2
"""Weight of the newest step in the moving averages, which so look back on about five of their kind."""


class StepCost:
    """Moving averages over the steps that have run; engine thread only."""

    def __init__(self) -> None:
        self._decodes_s: dict[int, float] = {}
        self._prefill_token_s: float | None = None

    def ran(self, decodes: int, prefill_tokens: int, duration_s: float) -> None:
        """Notes a step.

        Args:
            decodes: sequences that got their next token.
            prefill_tokens: prompt tokens that were computed beside them.
            duration_s: of the step, in seconds.
        """
        if not prefill_tokens:
            self._decodes_s[decodes] = _moved(self._decodes_s.get(decodes), duration_s)
            return
        beside_s = self._expected_s(decodes)
        if beside_s is not None:
            token_s = max(0.0, duration_s - beside_s) / prefill_tokens
            self._prefill_token_s = _moved(self._prefill_token_s, token_s)

    def prefill_tokens_beside(self, decodes: int, prefills: int, share: float) -> int | None:
        """Prompt tokens that take at most `share` of a step with so many decodes.

        Where more wait for their first token than for their next, prefills may take a share by heads instead: a few
        streams do not hold up a crowd.

        Args:
            decodes: sequences that get their next token in the step.
            prefills: sequences of the batch that have no first token yet.
            share: of the step's time, above 0.

        Returns:
            None without a bound: nobody waits for the step's end, or too little was measured.
        """
        decodes_s = self._expected_s(decodes)
        if not decodes or share >= 1.0 or not decodes_s or not self._prefill_token_s:
            return None
        times_decodes = max(share / (1.0 - share), prefills / decodes)
        return int(decodes_s * times_decodes / self._prefill_token_s)

    def _expected_s(self, decodes: int) -> float | None:
        """What so many decodes take: as measured, or as of the number nearest to it."""
        if not decodes:
            return 0.0
        known = min(self._decodes_s, key=lambda number: (abs(number - decodes), number), default=None)
        return None if known is None else self._decodes_s[known]


def _moved(average: float | None, newest: float) -> float:
    return newest if average is None else average + _NEWEST_SHARE * (newest - average)
