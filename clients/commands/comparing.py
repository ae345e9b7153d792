"""`compare`: adapters and their base, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from switchyard.clients.asking import Asking
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands.generation_options import MaxTokens, Seed, Stop
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.comparing import Compared, Contender, ask_all, settle, standings
from switchyard.clients.comparison_page import ComparisonPage, standings_table
from switchyard.clients.failure import FAILED
from switchyard.clients.prompts import Prompt, read_prompts
from switchyard.clients.render import console, print_json_line
from switchyard.clients.where import ServerOption


def compare(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Adapters: ns/name@alias or ns/name:7.")],
    prompts: Annotated[
        Path, typer.Option(metavar="FILE", help="One prompt per line; .jsonl: objects with prompt and completion.")
    ],
    base: Annotated[bool, typer.Option("--base/--no-base", help="Ask the base model too.")] = True,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N prompts.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    seed: Seed = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the same prompts to several adapters and the base, and show the answers side by side.

    Names are resolved once, before the first prompt. With --json one object per prompt as it is answered, then
    one with the standings. An answer is exact when it is the `completion` of its line, outer white space apart.
    Ends with 1 when an answer failed.
    """
    asked = read_prompts(prompts)[:limit]
    common: Asking = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens, "stop": list(stop or ())}
    contenders, rows = asyncio.run(
        _compare(server or DEFAULT_ADDRESS, refs, asked, common, base=base, as_json=as_json)
    )
    found = standings(contenders, rows)
    print_json_line({"standings": found}) if as_json else console().print(standings_table(found))
    if any(one.failed for one in found):
        raise typer.Exit(FAILED)


async def _compare(
    address: str, refs: Sequence[str], prompts: Sequence[Prompt], common: Asking, *, base: bool, as_json: bool
) -> tuple[tuple[Contender, ...], list[Compared]]:
    async with AsyncInferenceClient(address) as client:
        contenders = await settle(client, refs, base=base, first=prompts[0], common=common)
        if as_json:
            return contenders, [await _tell(client, contenders, prompt, common) for prompt in prompts]
        rows = []
        with ComparisonPage(contenders, console()) as page:
            for prompt in prompts:
                page.begin(prompt)
                rows.append(await ask_all(client, contenders, prompt, common, page.heard))
                page.end(rows[-1])
        return contenders, rows


async def _tell(
    client: AsyncInferenceClient, contenders: Sequence[Contender], prompt: Prompt, common: Asking
) -> Compared:
    found = await ask_all(client, contenders, prompt, common, lambda place, text: None)
    print_json_line(found)
    return found
