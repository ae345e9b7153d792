"""A whole server in this process, with its OpenAI-compatible face, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from switchyard.server import main
from switchyard.server.config import ServerConfig


@asynccontextmanager
async def serving(place: Path, **changes: Any) -> AsyncIterator[tuple[main.Addresses, asyncio.Task[int]]]:
    """Serves the base and the registry of a place until the block ends."""
    ports = {"port": 0, "health_port": 0, "http_port": 0, "openai_port": 0}
    settings = {"base": str(place / "base"), "registry": place / "registry", "threads": 1, **ports, **changes}
    ready: asyncio.Future[main.Addresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(main.serve(ServerConfig.model_validate(settings), ready.set_result))
    await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield ready.result(), task
    finally:
        task.cancel()
        await asyncio.wait({task})
