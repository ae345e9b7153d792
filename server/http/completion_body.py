"""The body of `POST /v1/completions` and the draft that it becomes.

OpenAI's fields with OpenAI's defaults, and by the names of gRPC what OpenAI
does not have. A field that is not served is refused by its name; bounds are
admission's, so that every face refuses the same values.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from switchyard.registry.strict_json import Json
from switchyard.server.calls.draft import RequestDraft, SamplingDraft, StoppingDraft
from switchyard.server.http.body import validated
from switchyard.server.http.sampling_fields import Never, SamplingFields, target_of

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


class CompletionBody(SamplingFields):
    """One request for completions; see docs/openai.md for each field."""

    prompt: Annotated[str | list[int], BeforeValidator(_one_prompt)]
    best_of: int | None = None
    logprobs: int | None = None
    echo: Never = None
    suffix: Never = None

    @classmethod
    def read(cls, mapping: dict[str, Json]) -> CompletionBody:
        """Takes a mapping.

        Raises:
            InvalidField: fields that are not served, are missing or have another type; all of them.
        """
        return validated(cls, mapping)

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
            sampling=self.sampling(self.logprobs),
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
            sampling_defaults=SamplingDraft(temperature=DEFAULT_TEMPERATURE),
        )
