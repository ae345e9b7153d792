"""The held-out rows through a server's `Generate`: the adapter, and the base with and without examples in the prompt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from material import FORMS
from measured_run import ONE_THREAD

from switchyard.clients.asking import Asking
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.demo.children import Children, wait_for_facts
from switchyard.trainer.demo.rows import Row

READY_S = 120.0
CONCURRENCY = 16
MAX_TOKENS = 64
EXAMPLES = 4
BASE_ROWS = 200
"""The base is asked fewer rows: it is right in none or few of them, and 200 tell that well enough."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One series of questions.

    Attributes:
        name: what its answers are filed under.
        prompts: what is asked.
        asking: who is asked.
    """

    name: str
    prompts: Sequence[str]
    asking: Asking


def lanes_of(rows: dict[str, list[Row]], examples: Sequence[Row]) -> list[Lane]:
    """Returns every series: each form for its adapter, and the plain form for the base without and with examples."""
    shown = "".join(f"{row.prompt}{row.completion}\n" for row in examples[:EXAMPLES])
    plain = [row.prompt for row in rows["plain"][:BASE_ROWS]]
    asked = [
        Lane(form.name, [row.prompt for row in rows[form.name]], Asking(adapter=f"{form.adapter}@candidate"))
        for form in FORMS
    ]
    asked.append(Lane("base zero-shot", plain, Asking(base=True)))
    # An answer with examples goes on with the next one; what counts is its first line.
    few = Asking(base=True, stop=["\n"])
    return [*asked, Lane("base few-shot", [shown + prompt for prompt in plain], few)]


def ask_through_server(place: Path, lanes: Sequence[Lane]) -> dict[str, object]:
    """Serves a seed's base, publishes its adapters, and asks every lane once; answers are kept in `place`.

    Returns:
        Answers by lane, and under `served_by` the version that gave the adapter's.
    """
    record = place / "answers.json"
    if not record.exists():
        found = _asked(place, lanes)
        partial = record.with_suffix(".part")
        partial.write_text(json.dumps(found, ensure_ascii=False, indent=0))
        partial.rename(record)
    answers: dict[str, object] = json.loads(record.read_text())
    return answers


def _asked(place: Path, lanes: Sequence[Lane]) -> dict[str, object]:
    logs, ready = place / "logs", place / "server.json"
    logs.mkdir(exist_ok=True)
    ready.unlink(missing_ok=True)
    with Children(logs) as children:
        arguments = ["--base", str(place / "base"), "--registry", str(place / "registry"), "--ready-file", str(ready)]
        limits = ["--max-sequences", str(CONCURRENCY), "--max-context-tokens", "512", "--threads", "1"]
        ports = ["--port", "0", "--health-port", "0", "--http-port", "0"]
        server = children.start("server", ["serve", *arguments, *limits, *ports], environment=ONE_THREAD)
        address = str(wait_for_facts(server, ready, READY_S)["grpc"])
        for form in FORMS:
            where = [str(place / form.name / "run"), form.adapter, "--alias", "candidate", "--server", address]
            children.run(f"push-{form.name}", ["push", *where])
        return asyncio.run(_ask_all(address, lanes))


async def _ask_all(address: str, lanes: Sequence[Lane]) -> dict[str, object]:
    turns = asyncio.Semaphore(CONCURRENCY)
    served: set[str] = set()
    async with AsyncInferenceClient(address) as client:

        async def ask(lane: Lane, prompt: str) -> str:
            async with turns:
                answer = await client.generate(prompt, temperature=0.0, max_tokens=MAX_TOKENS, **lane.asking)
            if lane.asking.get("adapter"):
                served.add(f"{answer.served_by.label}, {answer.served_by.quantization}")
            return answer.text

        found: dict[str, object] = {}
        for lane in lanes:
            found[lane.name] = await asyncio.gather(*(ask(lane, prompt) for prompt in lane.prompts))
    return {**found, "served_by": sorted(served)}
