"""Making prompts of conversations: the worker process, its limits, and who waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from switchyard.registry.strict_json import Json
from switchyard.server.errors import ChatTemplateFailed, FieldFault, InvalidField, RenderersBusy, TurnsRefused

RENDER_S: Final = 2.0
"""Seconds that one conversation may take, both renderings together."""

_START_S: Final = 20.0
_WAITING: Final = 64
_LINE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt.

    Attributes:
        text: as the model is to read it.
        masked: the same with everything masked that was said; see `switchyard.server.chat.origin`.
    """

    text: str
    masked: str


class TemplateRenderer:
    """Renders one conversation at a time in a process of its own; belongs to one event loop."""

    def __init__(self, variables: dict[str, Json], most_characters: int) -> None:
        """Starts nothing yet.

        Args:
            variables: what templates may name beside the conversation, e.g. `bos_token`.
            most_characters: longest prompt.
        """
        self._variables = variables
        self._most_characters = most_characters
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def render(self, template: str, turns: list[Json], tools: list[Json]) -> Rendered:
        """Makes a prompt of a conversation.

        Raises:
            TurnsRefused: the template does not take such a conversation.
            InvalidField: the prompt is longer than is tokenised.
            ChatTemplateFailed: the template is wrong, or takes too much time or memory.
            RenderersBusy: as many conversations wait as may.
        """
        if self._waiting >= _WAITING:
            raise RenderersBusy(f"{self._waiting} conversations wait for their template, the limit; try again later")
        asked = {
            "template": template,
            "turns": turns,
            "tools": tools,
            "variables": self._variables,
            "most_characters": self._most_characters,
        }
        self._waiting += 1
        try:
            async with self._turn:
                told = await self._ask(json.dumps(asked).encode() + b"\n")
        finally:
            self._waiting -= 1
        return rendered_of(told)

    async def close(self) -> None:
        """Ends the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, line: bytes) -> dict[str, str]:
        done = False
        try:
            process = await self._started()
            async with asyncio.timeout(RENDER_S):
                said = await _exchange(process, line)
            done = said != b""
        except TimeoutError:
            raise ChatTemplateFailed(f"the chat template took more than {RENDER_S:g} s; mend the template") from None
        finally:
            # Also when the caller goes while it renders: the next one would read this answer.
            if not done:
                await self.close()
        if not done:
            raise ChatTemplateFailed("the chat template ended its process; mend the template")
        answer: dict[str, str] = json.loads(said)
        return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "switchyard.server.chat.render_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_LINE_BYTES,
                # Nothing of the server's surroundings: a template must find no secret there.
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TZ", "LANG") if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
            # Loading Python is not the first conversation's time.
            async with asyncio.timeout(_START_S):
                await _exchange(self._process, _HELLO)
        return self._process


_HELLO: Final = (
    json.dumps({"template": "", "turns": [], "tools": [], "variables": {}, "most_characters": 0}).encode() + b"\n"
)


async def _exchange(process: asyncio.subprocess.Process, line: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise ChatTemplateFailed("the process of chat templates has no pipes")
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(line)
        await process.stdin.drain()
    return await process.stdout.readline()


def rendered_of(told: dict[str, str]) -> Rendered:
    """What a worker has told.

    Raises:
        ServerError: see `TemplateRenderer.render`.
    """
    if "refused" in told:
        raise TurnsRefused(f"the chat template does not take this conversation: {told['refused']}")
    if "too_long" in told:
        raise InvalidField(
            (FieldFault("messages", "PROMPT_BYTES", f"{told['too_long']}; send fewer or shorter ones"),)
        )
    if "failed" in told:
        raise ChatTemplateFailed(f"the chat template cannot be rendered: {told['failed']}; mend the template")
    return Rendered(told["text"], told["masked"])
