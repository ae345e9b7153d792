"""What one record means: from the shapes of training data to prompt and completion.

Owns each format's keys and its rules. A record becomes rows or a list of all that is wrong with it; nothing is
guessed, and no unknown key is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from switchyard.trainer.data_files import ROW_BYTES


class DataFormat(StrEnum):
    """What the rows of a file look like."""

    PROMPT_COMPLETION = "prompt-completion"
    ALPACA = "alpaca"
    CHAT = "chat"
    SHAREGPT = "sharegpt"
    TEXT = "text"
    PREFERENCE = "preference"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One example: the model is given `prompt` and learns `completion`; both are text, or both are turns.

    Plain text is a completion that nothing is given for.

    Attributes:
        prompt: What is given.
        completion: What is learnt; of two answers the better one.
        rejected: The worse answer, where two are compared.
        is_good: Whether the answer is one to be given, where that is what is known.
    """

    prompt: str | tuple[Message, ...]
    completion: str | tuple[Message, ...]
    rejected: str | tuple[Message, ...] | None = None
    is_good: bool | None = None

    def document(self) -> dict[str, object]:
        """Returns the row as JSON, in the form that TRL reads too."""
        prompt, completion = _plain(self.prompt), _plain(self.completion)
        if self.rejected is not None:
            return {"prompt": prompt, "chosen": completion, "rejected": _plain(self.rejected)}
        label: dict[str, object] = {} if self.is_good is None else {"label": self.is_good}
        return {"prompt": prompt, "completion": completion, **label}


def _plain(part: str | tuple[Message, ...]) -> object:
    return part if isinstance(part, str) else [{"role": one.role, "content": one.content} for one in part]


Found = tuple[list[Row], list[str]]
"""Rows, and faults; one of both is empty."""

_ROLES: Final = {role: role for role in ("system", "user", "assistant")}
_SHAREGPT_ROLES: Final = _ROLES | {"human": "user", "gpt": "assistant"}
ALPACA_PROMPT: Final = "Human: {question}\n\nAssistant: "
"""Prompt of an alpaca row where the recipe does not say another."""


def rows_of(value: object, shape: DataFormat, alpaca_prompt: str = ALPACA_PROMPT) -> Found:
    """Returns the rows of one record, or all that is wrong with it."""
    keys = FORMAT_KEYS[shape]
    if not isinstance(value, dict):
        names = f"keys {' and '.join(keys)}" if len(keys) > 1 else f"key {keys[0]}"
        return [], [f"found {type(value).__name__}, expected an object with the {names}"]
    optional = {"input"} if shape is DataFormat.ALPACA else set()
    faults = [f"`{key}` is missing" for key in keys if key not in value and key not in optional]
    named = " and ".join([", ".join(keys[:-1]), keys[-1]]) if len(keys) > 1 else keys[0]
    faults += [f"unknown key `{key}`; the keys are {named}" for key in value if key not in keys]
    rows, more = _READERS[shape](value, alpaca_prompt)
    faults += more
    size = sum(_size(row.prompt) + _size(row.completion) + _size(row.rejected or "") for row in rows[-1:])
    if size > ROW_BYTES:
        faults.append(f"has {size:,} bytes; a row has at most {ROW_BYTES:,}")
    return ([], faults) if faults else (rows, [])


def _size(part: str | tuple[Message, ...]) -> int:
    return len(part.encode()) if isinstance(part, str) else sum(len(one.content.encode()) for one in part)


def _texts(value: Mapping[str, object], *keys: str) -> list[str]:
    return [
        f"`{key}` is {type(value[key]).__name__}, expected text"
        for key in keys
        if key in value and not isinstance(value[key], str)
    ]


def _pair(value: Mapping[str, object], _: str) -> Found:
    faults = _texts(value, "prompt", "completion")
    if value.get("completion") == "":
        faults.append("`completion` is empty, so there is nothing to learn")
    return [Row(str(value.get("prompt", "")), str(value.get("completion", "")))], faults


def _alpaca(value: Mapping[str, object], template: str) -> Found:
    value = {key: one for key, one in value.items() if key != "input" or one is not None}
    faults = _texts(value, "instruction", "input", "output")
    if value.get("output") == "":
        faults.append("`output` is empty, so there is nothing to learn")
    parts = (str(value.get("instruction", "")).strip(), str(value.get("input", "")).strip())
    question = "\n".join(part for part in parts if part)
    if not question and "instruction" in value:
        faults.append("`instruction` and `input` are both empty")
    return [Row(template.replace("{question}", question), str(value.get("output", "")))], faults


def _chat(value: Mapping[str, object], _: str) -> Found:
    return _conversation(value, "messages", "role", "content", _ROLES)


def _sharegpt(value: Mapping[str, object], _: str) -> Found:
    return _conversation(value, "conversations", "from", "value", _SHAREGPT_ROLES)


def _text(value: Mapping[str, object], _: str) -> Found:
    faults = _texts(value, "text")
    if not faults and "text" in value and not str(value["text"]).strip():
        faults.append("`text` is empty, so there is nothing to learn")
    return [Row("", str(value.get("text", "")))], faults


def _preference(value: Mapping[str, object], _: str) -> Found:
    rows, faults = _answered(value, "chosen", "rejected")
    if not faults and value.get("chosen") == value.get("rejected"):
        faults.append("`chosen` and `rejected` are the same, so there is nothing to prefer")
    return rows, faults


def _feedback(value: Mapping[str, object], _: str) -> Found:
    rows, faults = _answered(value, "completion")
    label = value.get("label")
    if "label" in value and not isinstance(label, bool):
        faults.append(f"`label` is {type(label).__name__}, expected true (a good answer) or false")
    return [Row(row.prompt, row.completion, is_good=label is True) for row in rows], faults


def _answered(value: Mapping[str, object], *answers: str) -> Found:
    """Reads a prompt of text or of turns, and the answers to it, which are text."""
    faults = _texts(value, *answers)
    faults += [f"`{key}` is empty" for key in answers if value.get(key) == ""]
    prompt: str | tuple[Message, ...] = str(value.get("prompt", ""))
    texts = [str(value.get(key, "")) for key in answers]
    if isinstance(value.get("prompt"), list):
        # An answer makes a conversation of the prompt, whose rules are known.
        whole = [*value["prompt"], {"role": "assistant", "content": texts[0] or "?"}]  # type: ignore[misc]
        turns, more = _conversation({"prompt": whole}, "prompt", "role", "content", _ROLES)
        prompt = turns[-1].prompt if turns else ()
        said = [(Message("assistant", text),) for text in texts]
        return [Row(prompt, said[0], said[1] if len(said) > 1 else None)], faults + more
    return [Row(prompt, texts[0], texts[1] if len(texts) > 1 else None)], faults + _texts(value, "prompt")


def _conversation(
    value: Mapping[str, object], key: str, role_key: str, text_key: str, roles: Mapping[str, str]
) -> Found:
    turns = value.get(key, ())
    if not isinstance(turns, list):
        return [], [f"`{key}` is {type(turns).__name__}, expected a list of turns"] if key in value else []
    messages: list[Message] = []
    faults: list[str] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or set(turn) != {role_key, text_key}:
            faults.append(f"turn {number} is not an object of exactly `{role_key}` and `{text_key}`")
        elif not isinstance(turn[text_key], str) or not turn[text_key]:
            faults.append(f"turn {number}: `{text_key}` is not text, or is empty")
        elif turn[role_key] not in roles:
            faults.append(f"turn {number}: `{role_key}` is {str(turn[role_key])[:40]!r}, expected {', '.join(roles)}")
        else:
            messages.append(Message(roles[turn[role_key]], turn[text_key]))
    faults += _order_faults(messages) if not faults else []
    # Each answer is learnt once, with everything that was said before it.
    answers = [index for index, one in enumerate(messages) if one.role == "assistant"]
    return [Row(tuple(messages[:index]), (messages[index],)) for index in answers], faults


def _order_faults(messages: list[Message]) -> list[str]:
    if not messages:
        return ["holds no turns"]
    faults = []
    if any(one.role == "system" for one in messages[1:]):
        faults.append("a system turn comes after the first")
    spoken = [one.role for one in messages if one.role != "system"]
    if any(role != ("user", "assistant")[index % 2] for index, role in enumerate(spoken)):
        faults.append("user and assistant do not take turns, beginning with the user")
    elif not spoken or spoken[-1] != "assistant":
        faults.append("the last turn is not the assistant's, so there is nothing to learn from it")
    return faults


FORMAT_KEYS: Final[Mapping[DataFormat, tuple[str, ...]]] = {
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DataFormat.ALPACA: ("instruction", "input", "output"),
    DataFormat.CHAT: ("messages",),
    DataFormat.SHAREGPT: ("conversations",),
    DataFormat.TEXT: ("text",),
    DataFormat.PREFERENCE: ("prompt", "chosen", "rejected"),
    DataFormat.FEEDBACK: ("prompt", "completion", "label"),
}
_READERS: Final[Mapping[DataFormat, Callable[[Mapping[str, object], str], Found]]] = {
    DataFormat.PROMPT_COMPLETION: _pair,
    DataFormat.ALPACA: _alpaca,
    DataFormat.CHAT: _chat,
    DataFormat.SHAREGPT: _sharegpt,
    DataFormat.TEXT: _text,
    DataFormat.PREFERENCE: _preference,
    DataFormat.FEEDBACK: _feedback,
}
