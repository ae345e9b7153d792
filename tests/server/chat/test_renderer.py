"""The process of templates: what it gives, and what becomes of templates that take too much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from switchyard.server.chat import renderer as renderer_module
from switchyard.server.chat.renderer import TemplateRenderer
from switchyard.server.errors import ChatTemplateFailed, InvalidField, RenderersBusy, TurnsRefused

pytestmark = pytest.mark.asyncio

TURNS: list[Any] = [{"role": "user", "content": "hé <s>"}]
ECHO = "{{ bos_token }}{{ messages[0].content }}"


@pytest_asyncio.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    made = TemplateRenderer({"bos_token": "<s>"}, 1000)
    yield made
    await made.close()


async def test_a_prompt_and_where_it_comes_from(renderer: TemplateRenderer) -> None:
    got = await renderer.render(ECHO, TURNS, [])
    assert got.text == "<s>hé <s>"
    assert got.masked.startswith("<s>")
    assert got.masked.count("<s>") == 1


@pytest.mark.parametrize(
    ("template", "error", "said"),
    [
        ("{{ raise_exception('two users in a row') }}", TurnsRefused, "two users in a row"),
        ("{{ messages.nothing.there }}", ChatTemplateFailed, "UndefinedError"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            ChatTemplateFailed,
            "than 0.5 s",
        ),
        ("{{ ('a' * 999999999) | length }}", ChatTemplateFailed, "memory"),
        ("{{ messages[0].content.split('h')[1] + 'x' }}", ChatTemplateFailed, "with other words"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ChatTemplateFailed, "too deep"),
        ("{% for a in range(9999) %}abc{% endfor %}", InvalidField, "more than 1000 characters"),
    ],
)
async def test_a_template_that_fails_leaves_the_next_one_alone(
    renderer: TemplateRenderer, template: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer_module, "RENDER_S", 0.5)
    with pytest.raises(error, match=said):
        await renderer.render(template, TURNS, [])
    monkeypatch.setattr(renderer_module, "RENDER_S", 5.0)
    assert (await renderer.render(ECHO, TURNS, [])).text == "<s>hé <s>"


async def test_who_would_wait_too_long_is_told(renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_module, "_WAITING", 0)
    with pytest.raises(RenderersBusy):
        await renderer.render(ECHO, TURNS, [])


async def test_the_process_finds_no_secret_of_the_server(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_TOKEN", "canary")
    await renderer.render(ECHO, TURNS, [])
    process = renderer._process
    assert process is not None
    assert b"canary" not in Path(f"/proc/{process.pid}/environ").read_bytes()
