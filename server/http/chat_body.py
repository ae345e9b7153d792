"""The body of `POST /v1/chat/completions` and the draft that it becomes."""

from __future__ import annotations

from typing import Final

from switchyard.registry.digest import canonical_json
from switchyard.registry.strict_json import Json
from switchyard.server.calls.draft import RequestDraft, SamplingDraft, StoppingDraft
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.chat.conversation import Conversation
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.errors import FieldFault, InvalidField
from switchyard.server.http.body import validated
from switchyard.server.http.chat_turns import Message, OfferedTool, ResponseFormat, SentChoice, tool_choice
from switchyard.server.http.sampling_fields import Never, SamplingFields, target_of

DEFAULT_TEMPERATURE: Final = 1.0


class ChatBody(SamplingFields):
    """One request for chat completions; see docs/openai.md for each field."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[OfferedTool] | None = None
    tool_choice: SentChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    audio: Never = None
    function_call: Never = None
    functions: Never = None
    metadata: Never = None
    modalities: Never = None
    prediction: Never = None
    reasoning_effort: Never = None
    service_tier: Never = None
    store: Never = None
    web_search_options: Never = None
    chat_template: Never = None
    chat_template_kwargs: Never = None

    @classmethod
    def read(cls, mapping: dict[str, Json]) -> ChatBody:
        """Takes a mapping.

        Raises:
            InvalidField: fields that are not served, are missing, contradict or have another type; all of them.
        """
        body = validated(cls, mapping)
        if faults := body._contradictions():
            raise InvalidField(faults)
        return body

    def draft(self, base_name: str, request_id: str) -> RequestDraft:
        """What the caller asked for.

        Args:
            base_name: the model that is the base without an adapter.
            request_id: the server's name for the request.
        """
        choice = tool_choice(self.tool_choice, parallel=self.parallel_tool_calls is not False)
        conversation = Conversation(
            turns=tuple(message.turn() for message in self.messages),
            tools=tuple(one.tool() for one in self.tools or ()),
            choice=choice,
        )
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        schema = self.response_format.wanted() if self.response_format is not None else None
        return RequestDraft(
            target=target_of(self.model, base_name),
            conversation=conversation,
            sampling=self.sampling((self.top_logprobs or 0) if self.logprobs else None),
            stopping=StoppingDraft(
                max_tokens=limit,
                min_tokens=self.min_tokens,
                stop=tuple(self.stop or ()),
                stop_token_ids=tuple(self.stop_token_ids or ()),
                ignore_eos=bool(self.ignore_eos),
            ),
            structure=None
            if schema is None
            else Structure(StructureKind.JSON_SCHEMA, (canonical_json(schema).decode(),)),
            priority=self.priority,
            request_id=request_id,
            session_key=self.user or "",
            sampling_defaults=SamplingDraft(temperature=DEFAULT_TEMPERATURE),
        )

    def _contradictions(self) -> tuple[FieldFault, ...]:
        """Fields that say nothing without others, or two things at once."""
        forced = self.tool_choice is not None and self.tool_choice not in ("none", "auto")
        has_schema = self.response_format is not None and self.response_format.json_schema is not None
        wants_schema = self.response_format is not None and self.response_format.type == "json_schema"
        found = {
            "max_tokens": (
                self.max_tokens is not None and self.max_completion_tokens is not None,
                "is the older name of max_completion_tokens; send one of them",
            ),
            "top_logprobs": (
                self.top_logprobs is not None and not self.logprobs,
                "is for logprobs only; set `logprobs` or leave it out",
            ),
            "parallel_tool_calls": (
                self.parallel_tool_calls is False and not forced,
                "cannot be kept to while the model is free to call tools; choose a function or `required`",
            ),
            "tools": (
                not forced and self.tool_choice != "none" and any(one.function.strict for one in self.tools or ()),
                "`strict` cannot be kept to while the model is free to call tools; choose a function or `required`",
            ),
            "response_format.json_schema": (
                has_schema is not wants_schema,
                "belongs to the type json_schema, and to no other",
            ),
        }
        return tuple(
            FieldFault(name, FieldReason.UNSUPPORTED, text) for name, (wrong, text) in found.items() if wrong
        )
