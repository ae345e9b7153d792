"""Messages and tools as OpenAI writes them, and the conversation that they become."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from switchyard.registry.strict_json import Json
from switchyard.server.chat.conversation import Role, Tool, ToolCall, ToolChoice, ToolMode, Turn
from switchyard.server.http.sampling_fields import Never


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _one_text(value: Json) -> Json:
    """Content as one text: parts of text are joined, and parts of other kinds are refused by their name."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a text or a list of parts")
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str):
            raise ValueError("expected parts with a type")
        if kind != "text":
            raise PydanticCustomError("unsupported", "a part of another kind than text is not served; send text")
        text = part.get("text")
        if set(part) != {"type", "text"} or not isinstance(text, str):
            raise ValueError("expected a part of text to have `type` and `text`")
        texts.append(text)
    return "".join(texts)


class CalledFunction(_Strict):
    """The function of a call: its name, and arguments as JSON text."""

    name: str
    arguments: str


class SentCall(_Strict):
    """A call that an assistant's message made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


_ROLES: Final = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
}


class Message(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_one_text)] = None
    name: str | None = None
    tool_calls: list[SentCall] | None = None
    tool_call_id: str | None = None
    # What an answer has and a program sends back as it got it.
    refusal: Never = None
    audio: Never = None
    function_call: Never = None
    annotations: Never = None

    def turn(self) -> Turn:
        """The turn of a conversation."""
        calls = tuple(ToolCall(one.id, one.function.name, one.function.arguments) for one in self.tool_calls or ())
        return Turn(_ROLES[self.role], self.content, self.name or "", calls, self.tool_call_id or "")


class OfferedFunction(_Strict):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class OfferedTool(_Strict):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: OfferedFunction

    def tool(self) -> Tool:
        """The tool of a conversation; without parameters it takes none."""
        parameters = _schema(self.function.parameters) or {"type": "object", "properties": {}}
        return Tool(self.function.name, self.function.description or "", parameters)


class NamedFunction(_Strict):
    """Names a function."""

    name: str


class NamedChoice(_Strict):
    """Asks for one function."""

    type: Literal["function"]
    function: NamedFunction


SentChoice = Literal["none", "auto", "required"] | NamedChoice


def tool_choice(choice: SentChoice | None, *, parallel: bool) -> ToolChoice:
    """What an answer has to do with the tools; left out it may call them."""
    if isinstance(choice, NamedChoice):
        return ToolChoice(ToolMode.NAMED, choice.function.name, parallel)
    return ToolChoice(ToolMode(choice) if choice is not None else ToolMode.AUTO, "", parallel)


class SentSchema(_Strict):
    """A JSON schema with a name, which says nothing to the model."""

    name: str
    description: str | None = None
    schema_: dict[str, object] | None = None
    strict: bool | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=lambda name: name.rstrip("_"))


class ResponseFormat(_Strict):
    """What the answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SentSchema | None = None

    def wanted(self) -> dict[str, Json] | None:
        """The schema that the answer is kept to; None for any text."""
        if self.type == "json_object":
            return {"type": "object"}
        return _schema(self.json_schema.schema_) or {} if self.json_schema is not None else None


def _schema(value: dict[str, object] | None) -> dict[str, Json] | None:
    """A mapping that came out of JSON, as JSON."""
    schema: dict[str, Json] | None = value  # type: ignore[assignment]  # pydantic has no type for any JSON
    return schema
