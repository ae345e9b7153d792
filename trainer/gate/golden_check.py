"""The golden check: a published version says through the server what PEFT said, before an alias names it.

Owns the comparison over the wire. The server computes the whole sequence with the version's adapter, and its log
probabilities are held against those that travel with the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from switchyard.trainer.gate.golden import TOP, Golden, GoldenPrompt, largest_difference

if TYPE_CHECKING:
    from switchyard.clients.inference import InferenceClient
    from switchyard.clients.logprobs import TokenLogprob


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What a server made of golden prompts.

    Attributes:
        prompts: How many were asked.
        difference: The largest difference of a log probability, in nats.
        tolerance: What counts as equal.
    """

    prompts: int
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the server says what PEFT said."""
        return self.difference <= self.tolerance


def check_golden(client: InferenceClient, ref: str, golden: Golden) -> GoldenResult:
    """Asks a server every golden prompt of a version.

    Args:
        client: Of the server.
        ref: The version, by its digest.
        golden: Its golden prompts.

    Raises:
        ClientError: If the server does not answer.
    """
    worst = max(largest_difference(prompt, _served(client, ref, prompt)) for prompt in golden.prompts)
    return GoldenResult(len(golden.prompts), worst, golden.tolerance)


def _served(client: InferenceClient, ref: str, prompt: GoldenPrompt) -> list[Mapping[int, float]]:
    answer = client.generate(
        prompt.token_ids, adapter=ref, max_tokens=1, temperature=0.0, prompt_logprobs=TOP, logprobs=None
    )
    # The first token of a prompt has no place: nothing predicts it.
    return [_by_token(place) for place in answer.prompt_logprobs[prompt.prompt_tokens - 1 :]]


def _by_token(place: TokenLogprob) -> Mapping[int, float]:
    return {place.token_id: place.logprob} | {one.token_id: one.logprob for one in place.top}
