"""`tokenize`, `score`, `embed`: what a model makes of a text without continuing it; and `abort`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands.chatting import Who
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.inference import InferenceClient
from switchyard.clients.reading import POOLINGS, Vectors
from switchyard.clients.render import console, lined_table, logprobs_table, print_json, row, safe
from switchyard.clients.where import ServerOption

TextArgument = Annotated[str, typer.Argument(metavar="TEXT", help="A text; - reads standard input.")]
_SHOWN_TEXTS = 12
_SHOWN_CHARACTERS = 32


def tokenize(text: TextArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print the token ids of a text, as the model of a server reads it."""
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        ids = client.tokenize(_read(text))
    if as_json:
        print_json(ids)
    else:
        typer.echo(" ".join(map(str, ids)))


def score(
    who: Who,
    text: TextArgument,
    top: Annotated[int, typer.Option(metavar="K", help="Show the K most probable tokens too.")] = 0,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how probable a model finds a text, token by token."""
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        if who == "base":
            found = client.score(_read(text), base=True, top=top)
        else:
            found = client.score(_read(text), adapter=who, top=top)
    if as_json:
        print_json(found)
        return
    console().print(logprobs_table("text", found.tokens))
    typer.echo(f"sum of logprobs {found.total_logprob:.4f} · perplexity {found.perplexity:.4g}")
    console(stderr=True).print(Text(found.served_by.label), style="dim", soft_wrap=True)


def embed(
    who: Who,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts; - reads standard input.")],
    pooling: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{' or '.join(POOLINGS)}; last is usual.", show_default=False),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare texts by their vectors: the cosine of each pair. --json has the vectors themselves."""
    said = [_read(text) for text in texts]
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        if who == "base":
            found = client.embed(said, base=True, pooling=pooling)
        else:
            found = client.embed(said, adapter=who, pooling=pooling)
    if as_json:
        print_json(found)
        return
    _show_cosines(said, found)
    told = f"{found.served_by.label} · {len(found.vectors[0])} numbers each · {found.usage.prompt_tokens} tokens"
    console(stderr=True).print(Text(told), style="dim", soft_wrap=True)


def abort(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Name of the request, as its caller gave it.")],
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a request of yours that is under way; its caller is told so."""
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        aborted = client.abort(request_id)
    if as_json:
        print_json({"aborted": aborted})
    else:
        typer.echo("aborted" if aborted else "no request of yours has this name now")
    if not aborted:
        raise typer.Exit(1)


def _show_cosines(texts: list[str], found: Vectors) -> None:
    shown = texts[:_SHOWN_TEXTS]
    table = lined_table("", *(str(place) for place in range(1, len(shown) + 1)), "text")
    for place, text in enumerate(shown):
        cosines = [f"{found.cosine(place, other):.3f}" for other in range(len(shown))]
        row(table, str(place + 1), *cosines, safe(text[:_SHOWN_CHARACTERS]))
    console().print(table)
    if len(texts) > len(shown):
        typer.echo(f"the first {len(shown)} of {len(texts)} texts; --json has all vectors")


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text
