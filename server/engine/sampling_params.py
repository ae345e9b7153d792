"""How a token is chosen, and when an answer ends.

Values only: what each one means to a row of logits is in
`switchyard.server.model.sampling`; docs/generation.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.server.engine.structure import Grammar


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen; every value is validated before it gets here.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: probability mass to keep, (0, 1].
        top_k: tokens to keep; 0 keeps all.
        seed: seed of this request's own random stream.
        min_p: least probability to keep, as a fraction of the largest; 0 keeps all.
        typical_p: mass of the locally typical set to keep, (0, 1].
        repetition_penalty: divides positive and multiplies negative logits of tokens seen in prompt or answer.
        presence_penalty: taken once from the logit of each token of the answer.
        frequency_penalty: taken from a token's logit once for each time the answer has it.
        logit_bias: what to add to the logits of single tokens, by token id.
        allowed_token_ids: tokens that may be chosen; empty allows all.
        banned_token_ids: tokens that are never chosen.
        logprobs: how many of the most probable tokens to report with each chosen one; None reports nothing.
        prompt_logprobs: the same for each token of the prompt after the first.
        grammar: what the text has to match; None allows every text.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class StoppingParams:
    """When an answer ends.

    Attributes:
        max_tokens: most tokens to produce.
        stop: strings before which the text ends.
        ignore_eos: go on past the end-of-sequence token.
        min_tokens: no token that ends the answer is chosen before this many others.
        stop_token_ids: tokens that end the answer, as the end-of-sequence token does.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()

    def ending(self, eos_token_ids: frozenset[int]) -> frozenset[int]:
        """Tokens that end this answer, on a model that ends with `eos_token_ids`."""
        ending = frozenset(self.stop_token_ids)
        return ending if self.ignore_eos else ending | eos_token_ids
