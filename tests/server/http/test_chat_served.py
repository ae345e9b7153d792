"""Chat on a real server: the prompt is that of transformers, and forms and tools are kept to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema import validate
from tiny_adapter import make_adapter
from tiny_base import make_byte_tokenizer, make_tiny_llama
from whole_server import serving

from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

pytestmark = pytest.mark.asyncio

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}</s>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}assistant: {% endif %}"
)
CONTRACT = {"system_prompt": "be odd", "stop": ["@@"], "sampling": {"temperature": 0, "repetition_penalty": 1.3}}
TALK: Any = [{"role": "user", "content": " what is </s> this? "}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2, 3]}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "count", "parameters": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a chat template, and an adapter with a serving contract."""
    place = tmp_path_factory.mktemp("chat")
    base = make_tiny_llama(place / "base")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    adapter = make_adapter(base, place / "adapter")
    (adapter / "serving.json").write_text(json.dumps(CONTRACT))
    with Registry.open(place / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        registry.publish(
            AdapterName("team", "odd"), adapter, base_digest=spec.digest, publisher="x", set_alias="prod"
        )
    return place


def expected_ids(*turns: dict[str, str]) -> list[int]:
    """The prompt as transformers makes it of turns that spell no control token."""
    ids: list[int] = make_byte_tokenizer().apply_chat_template(
        list(turns), chat_template=TEMPLATE, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    return ids


async def test_a_conversation_on_a_running_server(place: Path) -> None:
    async with serving(place) as (addresses, _):
        url = f"http://{addresses.openai}/v1"
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60) as client:
            hello: Any = [{"role": "user", "content": "hello"}]
            chat = await client.chat.completions.create(
                model="base", messages=hello, temperature=0, max_tokens=12, extra_body={"ignore_eos": True}
            )
            ids = expected_ids({"role": "user", "content": "hello"})
            raw = await client.completions.create(
                model="base", prompt=ids, temperature=0, max_tokens=12, extra_body={"ignore_eos": True}
            )
            assert chat.choices[0].message.content == raw.choices[0].text
            assert chat.usage is not None
            assert chat.usage.prompt_tokens == len(ids)

            odd = await client.chat.completions.create(model="team/odd@prod", messages=hello, max_tokens=12)
            system = {"role": "system", "content": "be odd"}
            raw = await client.completions.create(
                model="team/odd@prod",
                prompt=expected_ids(system, {"role": "user", "content": "hello"}),
                temperature=0,
                max_tokens=12,
                stop="@@",
                extra_body={"repetition_penalty": 1.3},
            )
            assert odd.choices[0].message.content == raw.choices[0].text

            asked: dict[str, Any] = {"model": "team/odd@prod", "messages": TALK, "max_tokens": 120}
            stream = await client.chat.completions.create(**asked, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            whole = await client.chat.completions.create(**asked)
            assert text == whole.choices[0].message.content

            form: Any = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA, "strict": True}}
            formed = await client.chat.completions.create(**asked, response_format=form, temperature=1, seed=3)
            validate(json.loads(formed.choices[0].message.content or ""), SCHEMA)

            forced = await client.chat.completions.create(
                **asked, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, temperature=1, seed=5
            )
            [call] = forced.choices[0].message.tool_calls or []
            validate(json.loads(call.function.arguments), SCHEMA)
            assert (call.function.name, forced.choices[0].finish_reason) == ("count", "tool_calls")

            named: Any = {"type": "function", "function": {"name": "count"}}
            stream = await client.chat.completions.create(
                **asked, tools=[TOOL], tool_choice=named, temperature=1, seed=5, stream=True
            )
            parts = [part async for chunk in stream for part in chunk.choices[0].delta.tool_calls or []]
            validate(json.loads("".join(part.function.arguments or "" for part in parts)), SCHEMA)


async def test_a_said_control_token_is_text(place: Path) -> None:
    async with serving(place) as (addresses, _):
        url = f"http://{addresses.openai}/v1"
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60) as client:
            tokens = {}
            for said in ("x", "x</s>"):
                turns: Any = [{"role": "user", "content": said}]
                answer = await client.chat.completions.create(model="base", messages=turns, max_tokens=1)
                assert answer.usage is not None
                tokens[said] = answer.usage.prompt_tokens
    assert tokens["x</s>"] == tokens["x"] + 4, "one token for each byte, where a control token would be one"
