"""From the fields of a draft that is in range to what the engine is told."""

from __future__ import annotations

import secrets
from dataclasses import fields, replace

from switchyard.server.calls.draft import SAMPLING_NUMBERS, SamplingDraft, StoppingDraft
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.parameters import MAX_LOGPROBS
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.structure import Grammar
from switchyard.server.errors import ContextLength, FieldFault, InvalidField

_OF_A_TOKEN = frozenset(SAMPLING_NUMBERS) & {one.name for one in fields(SamplingParams)}


def sampling_params(draft: SamplingDraft, grammar: Grammar | None) -> SamplingParams:
    """How tokens are chosen; what was not set takes its default, and the seed is drawn."""
    given = {name: value for name in _OF_A_TOKEN if (value := getattr(draft, name)) is not None}
    params = SamplingParams(
        seed=secrets.randbits(64),
        logit_bias=tuple(sorted(draft.logit_bias.items())),
        allowed_token_ids=tuple(sorted(set(draft.allowed_token_ids))),
        banned_token_ids=tuple(sorted(set(draft.banned_token_ids))),
        grammar=grammar,
    )
    return replace(params, **given)


def answers_asked(draft: SamplingDraft) -> tuple[int, int]:
    """How many answers are given, and how many are made."""
    n = draft.n if draft.n is not None else 1
    return n, draft.best_of if draft.best_of is not None else n


def stopping_params(
    draft: StoppingDraft, prompt_tokens: int, *, context_tokens: int, default_max_tokens: int
) -> StoppingParams:
    """When the answer ends.

    Args:
        draft: what was asked.
        prompt_tokens: tokens of the prompt.
        context_tokens: tokens that prompt and answer may have together.
        default_max_tokens: answer length when the caller names none and the context allows it.

    Raises:
        ContextLength: prompt and answer do not fit the context.
    """
    room = context_tokens - prompt_tokens
    wanted = draft.max_tokens
    least = wanted if wanted is not None else max(1, draft.min_tokens or 0)
    if room < least:
        answer = f" and max_tokens {wanted}" if wanted is not None else f" and at least {least} for the answer"
        raise ContextLength(
            f"the prompt has {prompt_tokens} tokens{answer}; the context of this server holds {context_tokens}, "
            f"so {max(0, room)} are left for the answer; shorten the prompt or ask for fewer"
        )
    return StoppingParams(
        max_tokens=wanted if wanted is not None else max(least, min(default_max_tokens, room)),
        stop=draft.stop,
        ignore_eos=draft.ignore_eos,
        min_tokens=draft.min_tokens or 0,
        stop_token_ids=tuple(sorted(set(draft.stop_token_ids))),
    )


def check_logprobs(draft: SamplingDraft, prompt_tokens: int, max_tokens: int) -> None:
    """Refuses more logprobs than fit one message.

    Raises:
        InvalidField: there may be too many of them.
    """
    _, made = answers_asked(draft)
    of_prompt = prompt_tokens * (draft.prompt_logprobs + 1) if draft.prompt_logprobs is not None else 0
    of_answers = made * max_tokens * (draft.logprobs + 1) if draft.logprobs is not None else 0
    if of_prompt + of_answers > MAX_LOGPROBS:
        name = "logprobs" if of_answers >= of_prompt else "prompt_logprobs"
        message = (
            f"up to {of_prompt} logprobs of the prompt and {of_answers} of the answers are more than the "
            f"{MAX_LOGPROBS} that one request may have; ask for fewer of them, or for fewer tokens"
        )
        raise InvalidField((FieldFault(f"sampling.{name}", FieldReason.LIMIT, message),))
