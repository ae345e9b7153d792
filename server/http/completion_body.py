"""The body of `POST /v1/completions` and the draft that it becomes.

OpenAI's fields with OpenAI's defaults, and by the names of gRPC what OpenAI
does not have. A field that is not served is refused by its name; bounds are
admission's, so that every face refuses the same values.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from switchyard.registry.strict_json import Json
from switchyard.server.calls.draft import (
    SAMPLING_NUMBERS,
    AdapterTarget,
    BaseTarget,
    RequestDraft,
    SamplingDraft,
    StoppingDraft,
    Target,
)
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.errors import FieldFault, InvalidField
from switchyard.server.http.body import model_faults

DEFAULT_TEMPERATURE: Final = 1.0
DEFAULT_MAX_TOKENS: Final = 16


def _one_prompt(value: Json) -> Json:
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise PydanticCustomError("unsupported", "several prompts in one request; send one request for each")
        value = value[0]
    if isinstance(value, str) or (isinstance(value, list) and all(type(one) is int for one in value)):
        return value
    raise ValueError("expected a text, or a list of token ids")


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


_ID_DIGITS: Final = 12
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


class CompletionBody(BaseModel):
    """One request for completions; see docs/openai.md for each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    prompt: Annotated[str | list[int], BeforeValidator(_one_prompt)]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    best_of: int | None = None
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_stops)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], BeforeValidator(_biases)] | None = None
    logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    echo: Never = None
    suffix: Never = None
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

    @classmethod
    def read(cls, mapping: dict[str, Json]) -> CompletionBody:
        """Takes a mapping.

        Raises:
            InvalidField: fields that are not served, are missing or have another type; all of them.
        """
        try:
            body = cls.model_validate(mapping)
        except ValidationError as error:
            raise InvalidField(model_faults(error, cls)) from None
        if body.stream_options is not None and not body.stream:
            message = "is for streams only; set `stream` or leave it out"
            raise InvalidField((FieldFault("stream_options", FieldReason.UNSUPPORTED, message),))
        return body

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def draft(self, base_name: str, request_id: str) -> RequestDraft:
        """What the caller asked for.

        Args:
            base_name: the model that is the base without an adapter.
            request_id: the server's name for the request.
        """
        return RequestDraft(
            target=target_of(self.model, base_name),
            prompt=self.prompt if isinstance(self.prompt, str) else None,
            prompt_tokens=tuple(self.prompt) if isinstance(self.prompt, list) else None,
            sampling=self._sampling(),
            stopping=StoppingDraft(
                max_tokens=self.max_tokens if self.max_tokens is not None else DEFAULT_MAX_TOKENS,
                min_tokens=self.min_tokens,
                stop=tuple(self.stop or ()),
                stop_token_ids=tuple(self.stop_token_ids or ()),
                ignore_eos=bool(self.ignore_eos),
            ),
            priority=self.priority,
            request_id=request_id,
            session_key=self.user or "",
        )

    def _sampling(self) -> SamplingDraft:
        given = self.model_dump(include=set(SAMPLING_NUMBERS), exclude_none=True)
        numbers = {"temperature": DEFAULT_TEMPERATURE} | given
        return SamplingDraft(
            **numbers,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            allowed_token_ids=tuple(self.allowed_token_ids or ()),
            banned_token_ids=tuple(self.banned_token_ids or ()),
        )


def target_of(model: str, base_name: str) -> Target:
    """Who is asked by the name of a model: the base's name means the base, everything else is a ref."""
    return BaseTarget() if model == base_name else AdapterTarget(model)
