"""`generate` and `status`: asking a running server."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Never

import typer
from rich.text import Text

from switchyard.clients.admin import AdminClient
from switchyard.clients.answers import Answer
from switchyard.clients.asking import Asking
from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.inference import InferenceClient
from switchyard.clients.render import console, print_json, safe, served_line, server_table, states_table
from switchyard.clients.where import ServerOption


def generate(
    context: typer.Context,
    first: Annotated[
        str, typer.Argument(metavar="REF", help="Adapter that answers; left out with --base and --compose.")
    ],
    second: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to continue; - reads standard input.", show_default=False),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model, without any adapter.")] = False,
    compose: Annotated[
        list[str] | None,
        typer.Option(metavar="REF=WEIGHT", help="Apply several adapters together; give it once per adapter."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the most probable token.", show_default=False)
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Probability mass to keep.", show_default=False)] = None,
    top_k: Annotated[int | None, typer.Option(help="Tokens to keep; 0: all.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the text reproducible.", show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.", show_default=False)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End before this text; may be repeated.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show text as it comes.")] = True,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask an adapter, the base model or a composition.

    Text comes on standard output; what produced it, exactly, on standard error.
    """
    ref, prompt = _ref_and_prompt(context, first, second, named=not base and not compose)
    asking = Asking(
        adapter=ref,
        base=base,
        composition=[_weighted(context, one) for one in compose] if compose else None,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop or [],
    )
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        _answer(client, prompt, asking, stream=stream and not as_json, as_json=as_json)


def status(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Show a server: load, limits, resident adapters."""
    with AdminClient(server or DEFAULT_ADDRESS) as client:
        info, load, states = client.info(), client.load(), client.adapters()
    if as_json:
        print_json({"info": info, "load": load, "adapters": states})
        return
    output = console()
    output.print(server_table(info, load))
    if states:
        output.print()
        output.print(states_table(states))


def _answer(client: InferenceClient, prompt: str, asking: Asking, *, stream: bool, as_json: bool) -> None:
    """Prints the text, then what produced it."""
    if as_json:
        print_json(client.generate(prompt, **asking))
        return
    if stream:
        answer = _show_while_it_comes(client, prompt, asking)
    else:
        answer = client.generate(prompt, **asking)
        sys.stdout.write(safe(answer.text, lines=True))
    sys.stdout.write("\n")
    sys.stdout.flush()
    console(stderr=True).print(Text(served_line(answer)), style="dim", soft_wrap=True)


def _show_while_it_comes(client: InferenceClient, prompt: str, asking: Asking) -> Answer:
    with client.stream(prompt, **asking) as answers:
        for text in answers:
            sys.stdout.write(safe(text, lines=True))
            sys.stdout.flush()
    return answers.answer


def _ref_and_prompt(context: typer.Context, first: str, second: str | None, *, named: bool) -> tuple[str | None, str]:
    """Reads `REF PROMPT`, or `PROMPT` alone when an option says who answers."""
    if named == (second is None):
        wanted = "a ref and a prompt" if named else "only a prompt, because --base or --compose says who answers"
        found = "one argument" if second is None else "two arguments"
        raise typer.BadParameter(f"found {found}, expected {wanted}.", ctx=context, param_hint="[REF] PROMPT")
    prompt = second if second is not None else first
    return (first if named else None), sys.stdin.read() if prompt == "-" else prompt


def _weighted(context: typer.Context, text: str) -> tuple[str, float]:
    match = re.fullmatch(r"([^=]+)=([^=]+)", text)
    try:
        return (match[1], float(match[2])) if match else _refuse_weight(context, text)
    except ValueError:
        return _refuse_weight(context, text)


def _refuse_weight(context: typer.Context, text: str) -> Never:
    raise typer.BadParameter(
        f"found {text!r}, expected a ref and its weight, like ns/name@prod=0.7.",
        ctx=context,
        param_hint="--compose",
    )
