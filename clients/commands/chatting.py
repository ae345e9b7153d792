"""`chat`: a conversation with an adapter or the base model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.chat_answers import ChatAnswer
from switchyard.clients.commands import generation_options as options
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.conversation import Chatting, Message
from switchyard.clients.inference import InferenceClient
from switchyard.clients.render import console, print_json, safe
from switchyard.clients.where import ServerOption

Who = Annotated[str, typer.Argument(metavar="REF", help="Adapter that answers; `base` for the base model.")]
Said = Annotated[
    str | None,
    typer.Argument(metavar="TEXT", help="What is said; without it, each line of standard input.", show_default=False),
]


def chat(
    who: Who,
    said: Said = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.", show_default=False)] = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    session_key: options.SessionKey = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to an adapter or the base model.

    Without a text each line of standard input is a turn, and the conversation goes on until it ends. Answers come on
    standard output; what produced them, exactly, on standard error. With --json each answer is one JSON document.
    """
    asking: Chatting = {"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens}
    asking |= {"base": True} if who == "base" else {"adapter": who}
    if session_key is not None:
        asking["session_key"] = session_key
    turns = [Message("system", system)] if system is not None else []
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        for line in [said] if said is not None else _lines():
            turns.append(Message("user", line))
            answer = _answer(client, turns, asking, as_json=as_json)
            turns.append(answer.message)


def _lines() -> Iterator[str]:
    """Lines of standard input that are not empty, with a prompt where a person writes them."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _answer(client: InferenceClient, turns: list[Message], asking: Chatting, *, as_json: bool) -> ChatAnswer:
    if as_json:
        answer = client.chat(turns, **asking)
        print_json(answer)
        return answer
    with client.stream_chat(turns, **asking) as stream:
        for text in stream:
            sys.stdout.write(safe(text, lines=True))
            sys.stdout.flush()
    answer = stream.answer
    sys.stdout.write("\n")
    sys.stdout.flush()
    told = f"{answer.served_by.label} · {answer.usage.completion_tokens} tokens"
    console(stderr=True).print(Text(told), style="dim", soft_wrap=True)
    return answer
