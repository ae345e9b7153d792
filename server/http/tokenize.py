"""`POST /tokenize`: the prompt that a text or a conversation becomes, without an answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from switchyard.server.calls.answering import Answering
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.draft import RequestDraft
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import generation_needs
from switchyard.server.chat.conversation import Conversation
from switchyard.server.errors import FieldFault, InvalidField
from switchyard.server.http.body import read_mapping, validated
from switchyard.server.http.chat_turns import Message, OfferedTool
from switchyard.server.http.completion_answers import model_name
from switchyard.server.http.endpoint import Call
from switchyard.server.http.sampling_fields import target_of


class TokenizeBody(BaseModel):
    """A text, or a conversation, for one model."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[OfferedTool] | None = None

    def draft(self, base_name: str) -> RequestDraft:
        """What the caller wants to be read.

        Raises:
            InvalidField: both or neither was sent, or tools without a conversation.
        """
        if (self.prompt is None) is (self.messages is None):
            message = "send one of the two, `prompt` or `messages`"
            raise InvalidField((FieldFault("prompt", FieldReason.ENCODING, message),))
        if self.messages is None and self.tools is not None:
            raise InvalidField((FieldFault("tools", FieldReason.UNSUPPORTED, "are for `messages` only"),))
        conversation = None
        if self.messages is not None:
            turns = tuple(message.turn() for message in self.messages)
            conversation = Conversation(turns, tuple(one.tool() for one in self.tools or ()))
        return RequestDraft(target_of(self.model, base_name), prompt=self.prompt, conversation=conversation)


class Tokenizing:
    """Answers calls about prompts; belongs to one event loop."""

    def __init__(self, answering: Answering, base_name: str) -> None:
        """Takes what makes prompts, and the model that is the base without an adapter."""
        self._answering = answering
        self._base_name = base_name

    async def create(self, call: Call) -> Response:
        """Answers one call.

        Raises:
            ServerError: the prompt cannot be made.
            RegistryError: the model names nothing that the caller may use, or the registry failed.
        """
        draft = validated(TokenizeBody, await read_mapping(call.request)).draft(self._base_name)
        if (caller := CALLER.get()) is not None:
            require(generation_needs(draft.target), caller)
        prompt, served = await self._answering.render(draft)
        return JSONResponse(
            {
                "model": model_name(served, self._base_name),
                "count": len(prompt.tokens),
                "tokens": list(prompt.tokens),
                "prompt": prompt.text,
            }
        )
