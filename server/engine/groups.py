"""The answers of one request, which share its prompt, its sink and its one terminal event."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from switchyard.server.engine.detokenize import Detokenizer
from switchyard.server.engine.gate import sequence_ids
from switchyard.server.engine.ports import EventSink, TextDecoder
from switchyard.server.engine.prefix_cache import BlockKey
from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.sequence import Sequence
from switchyard.server.engine.types import FinishedEvent, GenerateRequest, Timing, TokenEvent


@dataclass(slots=True, eq=False)
class RequestGroup:
    """One request and the sequences that answer it.

    When more answers are made than given, which ones are given is known at the
    end only, so their events are held back until then.

    Attributes:
        request: what was asked.
        sink: where its events go.
        sequences: one per answer that is made, in order of `choice`.
        unfinished: how many of them still run or wait.
    """

    request: GenerateRequest
    sink: EventSink
    sequences: tuple[Sequence, ...]
    unfinished: int
    _held: dict[str, list[TokenEvent]] = field(default_factory=dict)

    @property
    def holds_back(self) -> bool:
        """Whether more answers are made than given."""
        return self.request.best_of > self.request.n

    @property
    def completion_tokens(self) -> int:
        """Tokens produced, over all answers."""
        return sum(len(sequence.output) for sequence in self.sequences)

    @property
    def first_token_s(self) -> float | None:
        """When the first token of any answer was chosen, on the engine's clock."""
        return min((s.first_token_s for s in self.sequences if s.first_token_s is not None), default=None)

    @property
    def has_started(self) -> bool:
        """Whether any answer has been in the batch; the first one goes first."""
        return self.sequences[0].started_s is not None

    def put(self, sequence: Sequence, event: TokenEvent) -> list[TokenEvent]:
        """Takes the newest output of one answer; returns what may be shown of it now."""
        if not self.holds_back:
            return [event]
        self._held.setdefault(sequence.sequence_id, []).append(replace(event, prompt_logprobs=()))
        # The prompt is the same whichever answers are given, and so are its scores.
        return [TokenEvent("", (), 0, (), event.prompt_logprobs)] if event.prompt_logprobs else []

    def finished(self) -> tuple[list[TokenEvent], FinishedEvent]:
        """What is shown at the end: the events held back, and the terminal one."""
        given = self._given()
        events = [
            replace(event, index=index)
            for index, sequence in enumerate(given)
            for event in self._held.get(sequence.sequence_id, ())
        ]
        choices = tuple(sequence.result(index) for index, sequence in enumerate(given))
        terminal = FinishedEvent(
            choices[0].reason,
            len(self.request.prompt_tokens),
            self.completion_tokens,
            self.timing(),
            choices[0].matched_stop,
            choices if len(choices) > 1 else (),
            self.sequences[0].cached_tokens,
            self.sequences[0].vector,
        )
        return events, terminal

    def timing(self) -> Timing:
        """Where its time went; over several answers, from the first start to the last token."""
        first = self.sequences[0]
        started = min((s.started_s for s in self.sequences if s.started_s is not None), default=first.accepted_s)
        token = self.first_token_s if self.first_token_s is not None else started
        last = max((s.last_token_s for s in self.sequences if s.last_token_s is not None), default=token)
        return Timing(
            queue_s=started - first.accepted_s,
            adapter_wait_s=first.adapter_wait_s,
            time_to_first_token_s=token - first.accepted_s,
            decode_s=last - token,
        )

    def _given(self) -> list[Sequence]:
        """The most probable answers first, where there is a choice; by `choice` where there is none."""
        if not self.holds_back:
            return list(self.sequences)
        return sorted(self.sequences, key=lambda sequence: (-sequence.logprob, sequence.choice))[: self.request.n]


def make_group(
    request: GenerateRequest,
    sink: EventSink,
    decoder: TextDecoder,
    block_keys: tuple[BlockKey, ...],
    *,
    arrival: int,
    accepted_s: float,
) -> RequestGroup:
    """The group of an accepted request, with every sequence waiting.

    Args:
        request: what was asked.
        sink: where its events go.
        decoder: turns tokens into text.
        block_keys: keys of the whole blocks of the prompt; empty when they are not cached.
        arrival: its number in order of acceptance.
        accepted_s: engine time of acceptance.
    """
    sequences = tuple(
        Sequence(
            sequence_id=sequence_id,
            request=request,
            choice=choice,
            sampling=_sampling_of(request, choice),
            arrival=arrival,
            accepted_s=accepted_s,
            detokenizer=Detokenizer(decoder, request.stopping.stop),
            block_keys=block_keys,
        )
        for choice, sequence_id in enumerate(sequence_ids(request))
    )
    return RequestGroup(request, sink, sequences, len(sequences))


def _sampling_of(request: GenerateRequest, choice: int) -> SamplingParams:
    """The prompt is scored once; ranking needs log-probabilities that the caller may not have asked for."""
    sampling = request.sampling
    if choice:
        sampling = replace(sampling, prompt_logprobs=None)
    if request.best_of > request.n and sampling.logprobs is None:
        sampling = replace(sampling, logprobs=0)
    return sampling
