"""The fields that completions and chat completions share, and the draft's parts that they become."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from switchyard.registry.strict_json import Json
from switchyard.server.calls.draft import SAMPLING_NUMBERS, AdapterTarget, BaseTarget, SamplingDraft, Target

_ID_DIGITS: Final = 12


def _stops(value: Json) -> Json:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise ValueError("expected a text or a list of texts")


def _biases(value: Json) -> Json:
    if not isinstance(value, dict) or not all(_is_number(bias) for bias in value.values()):
        raise ValueError("expected a mapping from token ids to numbers")
    wrong = [key for key in value if not (key.isascii() and key.isdigit() and len(key) < _ID_DIGITS)]
    if wrong:
        raise ValueError(f"{wrong[0][:40]!r} is not a token id; {len(wrong)} of {len(value)} keys are none")
    return value


def _never(value: Json) -> Json:
    if value:
        raise PydanticCustomError("unsupported", "not served; leave it out")
    return None


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Never = Annotated[None, BeforeValidator(_never)]
"""A field of OpenAI's that is known and not served; what means `off` is taken."""


class StreamOptions(BaseModel):
    """How a stream is written.

    Attributes:
        include_usage: a last chunk without choices that tells the usage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: Never = None


class SamplingFields(BaseModel):
    """What both kinds of completions take; see docs/openai.md for each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_stops)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], BeforeValidator(_biases)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    allowed_token_ids: list[int] | None = None
    banned_token_ids: list[int] | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, logprobs: int | None) -> SamplingDraft:
        """How tokens are to be chosen.

        Args:
            logprobs: of how many tokens the logprobs are reported; None for none.
        """
        given = self.model_dump(include=set(SAMPLING_NUMBERS) - {"logprobs"}, exclude_none=True)
        return SamplingDraft(
            **given,
            logprobs=logprobs,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            allowed_token_ids=tuple(self.allowed_token_ids or ()),
            banned_token_ids=tuple(self.banned_token_ids or ()),
        )


def target_of(model: str, base_name: str) -> Target:
    """Who is asked by the name of a model: the base's name means the base, everything else is a ref."""
    return BaseTarget() if model == base_name else AdapterTarget(model)
