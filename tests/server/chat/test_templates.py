"""Templates render as transformers renders them, and can do nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from switchyard.server.chat.conversation import Conversation, Role, Tool, ToolCall, Turn, tool_data, turn_data
from switchyard.server.chat.templates import Refused, render_both

HERMES = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(last=none) %}
{%- for message in messages %}
    {%- if message.role == 'system' and tools %}{%- continue %}{%- endif %}
    {%- set ns.last = message.role %}
    {%- if message.role == 'assistant' %}
        {%- generation %}
        {{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1].lstrip('\\n') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
        {%- endgeneration %}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>' + message.content | trim + '</tool_response><|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.last != 'assistant' %}{{- bos_token }}<|im_start|>assistant
{% endif %}"""

WEATHER = Tool("weather", "in a <city>", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = ToolCall("c1", "weather", '{"city": "Köln"}')
TALK = Conversation(
    (
        Turn(Role.SYSTEM, "Be brief."),
        Turn(Role.USER, 'Is it "warm"?\n\\o/ '),
        Turn(Role.ASSISTANT, "<think>hm</think>\nlet me see", tool_calls=(CALL,)),
        Turn(Role.TOOL, " 12 °C ", tool_call_id="c1"),
    ),
    (WEATHER,),
)


def data_of(talk: Conversation) -> tuple[list[Any], list[Any]]:
    turns: list[Any] = [turn_data(turn, {"c1": {"city": "Köln"}}) for turn in talk.turns]
    return turns, [tool_data(tool) for tool in talk.offered]


@pytest.mark.parametrize("talk", [TALK, Conversation(TALK.turns[:2])], ids=["tools", "no tools"])
def test_the_prompt_is_that_of_transformers(talk: Conversation) -> None:
    turns, tools = data_of(talk)
    [expected], _ = render_jinja_template(
        [copy.deepcopy(turns)], tools=tools or None, chat_template=HERMES, add_generation_prompt=True, bos_token="<s>"
    )
    text, _ = render_both(HERMES, turns, tools, {"bos_token": "<s>"}, 10_000)
    assert text == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% set ns = namespace(_x=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{% include 'x' %}",
        "{{ range(1000000) }}",
        "{{ nothing.there }}",
    ],
)
def test_what_a_template_may_not_do(template: str) -> None:
    with pytest.raises((TemplateError, OverflowError, TypeError)):
        render_both(template, [{"role": "user", "content": "x"}], [], {}, 100)


def test_a_template_says_what_it_does_not_take() -> None:
    with pytest.raises(Refused, match="no system turns"):
        render_both("{{ raise_exception('no system turns') }}", [], [], {}, 100)


def test_a_prompt_that_grows_too_long_is_stopped() -> None:
    with pytest.raises(OverflowError, match="more than 100 characters"):
        render_both("{% for _ in range(99999) %}ab{% endfor %}", [], [], {}, 100)
