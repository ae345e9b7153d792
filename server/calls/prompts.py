"""From what was said to token ids: text, ids, or a conversation through its chat template.

Text never becomes a control token, whoever wrote it; only templates write those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from switchyard.registry.serving_contract import ServingContract
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.server.calls.draft import RequestDraft
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.ports import Tokenizer
from switchyard.server.chat.conversation import Conversation, tool_data, turn_data
from switchyard.server.chat.origin import Mixed, segments
from switchyard.server.chat.renderer import Rendered
from switchyard.server.errors import ChatTemplateMissing, FieldFault, InvalidField, PromptEmpty

_T = TypeVar("_T")

INLINE_CHARACTERS: Final = 2048
"""Text up to here is tokenised on the event loop: it costs less than the way to a thread and back."""


class Renderer(Protocol):
    """Runs chat templates."""

    async def render(self, template: str, turns: list[Json], tools: list[Json]) -> Rendered:
        """Makes a prompt of a conversation; see `TemplateRenderer.render`."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads.

    Attributes:
        tokens: its token ids.
        text: as text; None where ids were sent.
    """

    tokens: tuple[int, ...]
    text: str | None


class Prompts:
    """Makes prompts of drafts; belongs to one event loop."""

    def __init__(self, tokenizer: Tokenizer, executor: Executor, renderer: Renderer) -> None:
        """Wires the parts.

        Args:
            tokenizer: of the resident base model.
            executor: a bounded pool for long prompts.
            renderer: runs chat templates.
        """
        self.tokenizer = tokenizer
        self._executor = executor
        self._renderer = renderer

    async def of(self, draft: RequestDraft, contract: ServingContract) -> Prompt:
        """The prompt of a draft whose fields are in range.

        Raises:
            PromptEmpty: it has no tokens.
            InvalidField: it has tokens that the base does not embed, or control tokens that were said.
            ChatTemplateMissing, TurnsRefused, ChatTemplateFailed, RenderersBusy: see `TemplateRenderer.render`.
        """
        if draft.prompt_tokens is not None:
            return Prompt(draft.prompt_tokens, None)
        if draft.conversation is not None:
            prompt = await self._of_conversation(draft.conversation, contract)
        else:
            text = draft.prompt or ""
            prompt = Prompt(tuple(await self._encoded(text)), text)
        if not prompt.tokens:
            raise PromptEmpty(f"the prompt's {len(prompt.text or '')} characters give no tokens; send other text")
        if (last := max(prompt.tokens)) >= self.tokenizer.vocab_size:
            message = f"the text gives token {last}, but the base model embeds 0..{self.tokenizer.vocab_size - 1}"
            raise InvalidField((FieldFault("prompt", FieldReason.TOKEN_ID, message),))
        return prompt

    async def _encoded(self, text: str) -> Sequence[int]:
        if len(text) <= INLINE_CHARACTERS:
            return self.tokenizer.encode(text)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.tokenizer.encode, text)

    async def _of_conversation(self, conversation: Conversation, contract: ServingContract) -> Prompt:
        template = contract.chat_template or self.tokenizer.chat_template
        if not template:
            raise ChatTemplateMissing(
                "neither the adapter nor the base has a chat template; publish the adapter with one in serving.json, "
                "or send a prompt instead of messages"
            )
        arguments = {call.call_id: _value(call.arguments) for turn in conversation.turns for call in turn.tool_calls}
        turns: list[Json] = [turn_data(turn, arguments) for turn in conversation.turns]
        tools: list[Json] = [tool_data(tool) for tool in conversation.offered]
        self._refuse_control_keys(turns, tools)
        rendered = await self._renderer.render(template, turns, tools)
        try:
            parts = segments(rendered.text, rendered.masked, self.tokenizer.control_tokens)
        except Mixed as error:
            raise InvalidField((FieldFault("messages", FieldReason.ENCODING, str(error)),)) from None
        if len(rendered.text) <= INLINE_CHARACTERS:
            tokens = self.tokenizer.encode_parts(parts)
        else:
            loop = asyncio.get_running_loop()
            tokens = await loop.run_in_executor(self._executor, self.tokenizer.encode_parts, parts)
        return Prompt(tuple(tokens), rendered.text)

    def _refuse_control_keys(self, turns: list[Json], tools: list[Json]) -> None:
        """Names of members are not masked, so they must spell no control token."""
        control = self.tokenizer.control_tokens
        for field, tree in (("messages", turns), ("tools", tools)):
            if any(token in key for key in _keys(tree) for token in control):
                message = "the name of a member spells a control token of the base; give it another name"
                raise InvalidField((FieldFault(field, FieldReason.ENCODING, message),))


def _keys(tree: Json) -> list[str]:
    if isinstance(tree, dict):
        return [*tree, *(key for value in tree.values() for key in _keys(value))]
    return [key for value in tree for key in _keys(value)] if isinstance(tree, list) else []


def _value(arguments: str) -> Json:
    """Arguments as the mapping that templates expect; what bounds have let through is one."""
    try:
        return parse_json(arguments.encode("utf-8", "surrogatepass"))
    except JsonRefused:
        return arguments
