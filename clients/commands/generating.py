"""`generate`: asking an adapter, the base model or a composition."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from switchyard.clients.answers import Answer
from switchyard.clients.asking import Asking
from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands import generation_options as options
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.inference import InferenceClient
from switchyard.clients.render import console, logprobs_table, print_json, safe, served_line
from switchyard.clients.where import ServerOption


def generate(
    context: typer.Context,
    first: options.First,
    second: options.Second = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model, without any adapter.")] = False,
    compose: options.Compose = None,
    method: options.Method = None,
    density: options.Density = None,
    method_seed: options.MethodSeed = None,
    majority_sign: options.MajoritySign = None,
    svd_rank: options.SvdRank = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    typical_p: options.TypicalP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    logit_bias: options.LogitBias = None,
    allow_token: options.AllowToken = None,
    ban_token: options.BanToken = None,
    seed: options.Seed = None,
    n: options.Answers = None,
    best_of: options.BestOf = None,
    logprobs: options.Logprobs = None,
    prompt_logprobs: options.PromptLogprobs = None,
    max_tokens: options.MaxTokens = None,
    min_tokens: options.MinTokens = None,
    stop: options.Stop = None,
    stop_token: options.StopToken = None,
    ignore_eos: options.IgnoreEos = False,
    json_schema: options.JsonSchema = None,
    regex: options.Regex = None,
    grammar: options.Grammar = None,
    choice: options.Choice = None,
    priority: options.Priority = None,
    session_key: options.SessionKey = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show text as it comes.")] = True,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask an adapter, the base model or a composition.

    Text comes on standard output; what produced it, exactly, on standard error.
    """
    ref, prompt = _ref_and_prompt(context, first, second, named=not base and not compose)
    # Every parameter above is in the context under its name: options are read together, in one place.
    asking = options.asking_of(context, ref)
    with InferenceClient(server or DEFAULT_ADDRESS) as client:
        _answer(client, prompt, asking, stream=stream and not as_json, as_json=as_json)


def _answer(client: InferenceClient, prompt: str, asking: Asking, *, stream: bool, as_json: bool) -> None:
    """Prints the text, then what produced it."""
    if as_json:
        print_json(client.generate(prompt, **asking))
        return
    several = (asking.get("n") or 1) > 1
    if stream and not several:
        answer = _show_while_it_comes(client, prompt, asking)
    else:
        answer = client.generate(prompt, **asking)
        _show_whole(answer)
    sys.stdout.write("\n")
    sys.stdout.flush()
    _show_logprobs(answer)
    console(stderr=True).print(Text(served_line(answer)), style="dim", soft_wrap=True)


def _show_whole(answer: Answer) -> None:
    """One answer as it is; several under their numbers."""
    if not answer.choices:
        sys.stdout.write(safe(answer.text, lines=True))
        return
    numbered = [f"[{one.index}] {one.text}" for one in answer.choices]
    sys.stdout.write(safe("\n".join(numbered), lines=True))


def _show_logprobs(answer: Answer) -> None:
    """Tables of what was asked for, on standard error: what comes on standard output is the text."""
    errors = console(stderr=True)
    if answer.prompt_logprobs:
        errors.print(logprobs_table("prompt", answer.prompt_logprobs))
    for one in answer.choices:
        if one.logprobs:
            errors.print(logprobs_table(f"answer {one.index}", one.logprobs))
    if answer.logprobs and not answer.choices:
        errors.print(logprobs_table("answer", answer.logprobs))


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
