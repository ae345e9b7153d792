"""How long a request would take, from what the last steps have taken.

Only steps are measured during which others waited for room: they show what the
server can do, while an idle server shows only what it was asked. Without such
steps there is no forecast, and nothing is refused for its deadline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from switchyard.server.engine.types import GenerateRequest
from switchyard.server.engine.wait_reason import WaitReason

_STEP_SHARE: Final = 0.05
"""Weight of the newest step in the moving averages, which so look back on about twenty."""

_ANSWER_SHARE: Final = 0.1
_MEASURED_STEPS: Final = 20
_LONGEST_STRETCH: Final = 10.0
_CAUTION: Final = 1.2
"""A forecast is an average; answers that are started and end too late cost more than answers refused."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What the server does when it is busy.

    Attributes:
        tokens_per_s: prompt and output tokens per second, over all sequences.
        step_s: duration of a step, in seconds.
        stretch: time in the batch over the time that the steps of one request alone would take.
        output_tokens: tokens of an answer that ended by itself; None while there was none.
    """

    tokens_per_s: float
    step_s: float
    stretch: float = 1.0
    output_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a forecast rests on.

    Attributes:
        is_busy: whether the last plan left somebody out for want of room.
        rates: what was measured; None while that is too little.
    """

    is_busy: bool = False
    rates: Rates | None = None


class ServiceForecast:
    """Measured by the engine thread; read by any.

    Attributes:
        is_busy: see `Outlook`.
        rates: see `Outlook`.
    """

    def __init__(self, chunk_tokens: int) -> None:
        self.is_busy = False
        self.rates: Rates | None = None
        self._chunk_tokens = chunk_tokens
        self._tokens = 0.0
        self._duration_s = 0.0
        self._steps = 0
        self._stretch = 1.0
        self._output_tokens: float | None = None

    @property
    def outlook(self) -> Outlook:
        """What it rests on now."""
        return Outlook(self.is_busy, self.rates)

    def adopt(self, outlook: Outlook) -> None:
        """Takes what another forecast has measured."""
        self.is_busy, self.rates = outlook.is_busy, outlook.rates

    def planned(self, waiting: Iterable[WaitReason]) -> None:
        """Notes why the next step leaves sequences out."""
        self.is_busy = any(reason.shows_load for reason in waiting)

    def step(self, duration_s: float, tokens: int) -> None:
        """Notes the duration of the step that was planned last."""
        if not self.is_busy:
            return
        self._steps += 1
        share = max(_STEP_SHARE, 1 / self._steps)
        self._tokens += share * (tokens - self._tokens)
        self._duration_s += share * (duration_s - self._duration_s)
        if self._steps >= _MEASURED_STEPS and self._duration_s > 0:
            self.rates = Rates(self._tokens / self._duration_s, self._duration_s, self._stretch, self._output_tokens)

    def ended(self, request: GenerateRequest, completion_tokens: int, service_s: float, *, by_itself: bool) -> None:
        """Notes an answer that was completed.

        Args:
            request: what was asked.
            completion_tokens: tokens produced.
            service_s: seconds from its first step to its last.
            by_itself: whether the model ended it, before its limit.
        """
        if by_itself:
            known = self._output_tokens
            self._output_tokens = (
                completion_tokens if known is None else known + _ANSWER_SHARE * (completion_tokens - known)
            )
        if self.rates is None:
            return
        alone_s = self._steps_of(request, completion_tokens) * self.rates.step_s
        stretch = min(max(service_s / alone_s, 1.0), _LONGEST_STRETCH)
        self._stretch += _ANSWER_SHARE * (stretch - self._stretch)
        self.rates = replace(self.rates, stretch=self._stretch, output_tokens=self._output_tokens)

    def work_tokens(self, request: GenerateRequest) -> float:
        """Tokens that all answers of a request are expected to take, prompts included."""
        answers = max(request.n, request.best_of)
        return answers * (len(request.prompt_tokens) + self._expected_output(request))

    def service_s(self, request: GenerateRequest) -> float:
        """Seconds that a request is expected to spend in the batch; 0 without a forecast."""
        rates = self.rates
        if rates is None:
            return 0.0
        steps = self._steps_of(request, self._expected_output(request))
        return _CAUTION * steps * rates.step_s * rates.stretch

    def wait_s(self, work_ahead_tokens: float) -> float:
        """Seconds until that much work is done; 0 without a forecast."""
        return _CAUTION * work_ahead_tokens / self.rates.tokens_per_s if self.rates is not None else 0.0

    def is_hopeless(self, request: GenerateRequest, now: float) -> bool:
        """Whether a request that starts now is expected to miss its deadline."""
        return request.deadline_s is not None and now + self.service_s(request) > request.deadline_s

    def _expected_output(self, request: GenerateRequest) -> float:
        """Nobody knows where an answer will end; the limit and the others' mean bound it."""
        usual = self.rates.output_tokens if self.rates is not None else None
        longest = request.stopping.max_tokens
        return longest if request.stopping.ignore_eos or usual is None else min(longest, usual)

    def _steps_of(self, request: GenerateRequest, output_tokens: float) -> float:
        return max(1.0, len(request.prompt_tokens) / self._chunk_tokens) + output_tokens
