"""`serving.json`: what publishing takes, what it refuses with all faults at once, and whose ranges it has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from switchyard.registry.serving_contract import SAMPLING_RANGES, ServingContract, contract_of, read_contract
from switchyard.registry.verdicts import Findings
from switchyard.server.calls.parameters import RANGES

WHOLE: dict[str, Any] = {
    "chat_template": "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "system_prompt": "be brief",
    "stop": ["\n\n"],
    "sampling": {"temperature": 0.5, "top_k": 4},
    "output_schema": {"type": "object"},
    "max_context_tokens": 512,
}


def test_every_field_is_read() -> None:
    assert contract_of(json.dumps(WHOLE).encode()) == ServingContract(
        chat_template=WHOLE["chat_template"],
        system_prompt="be brief",
        stop=("\n\n",),
        sampling={"temperature": 0.5, "top_k": 4},
        output_schema='{"type":"object"}',
        max_context_tokens=512,
    )
    assert contract_of(b"{}") == ServingContract()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"no", "is not JSON"),
        (b"[]", "is a list"),
        ({"template": "x"}, "is no field"),
        ({"chat_template": "{% if %}"}, "line 1"),
        ({"chat_template": "{{" + "(" * 4000 + ")" * 4000 + "}}"}, "is"),
        ({"chat_template": "x" * 70_000}, "70000 bytes"),
        ({"chat_template": ""}, "0 bytes"),
        ({"system_prompt": 3}, "is a int"),
        ({"stop": []}, "1 to 8 texts"),
        ({"stop": ["a", ""]}, "[1] has 0 bytes"),
        ({"sampling": {"top_p": 2, "seed": 1, "top_k": 0.5}}, "top_p is '2', expected 0.001 to 1"),
        ({"sampling": {"temperature": True}}, "temperature is"),
        ({"sampling": 3}, "is a int"),
        ({"output_schema": "x"}, "is a str"),
        ({"max_context_tokens": 0}, "number of tokens"),
        ({"max_context_tokens": True}, "number of tokens"),
    ],
)
def test_what_is_refused(document: object, said: str) -> None:
    findings = Findings()
    read_contract(document if isinstance(document, bytes) else json.dumps(document).encode(), findings)
    assert said in findings.faults[0].message
    assert findings.faults[0].subject.startswith("serving.json")


def test_all_faults_are_told_at_once() -> None:
    wrong = {"template": "x", "stop": "x", "sampling": {"seed": 1, "top_p": 0}, "max_context_tokens": -1}
    findings = Findings()
    read_contract(json.dumps(wrong).encode(), findings)
    assert [one.subject.partition("#")[2].strip("'") for one in findings.faults] == [
        "template",
        "max_context_tokens",
        "sampling",
        "stop",
    ]
    assert "seed" in findings.faults[2].message
    assert "top_p" in findings.faults[2].message


@pytest.mark.parametrize("name", SAMPLING_RANGES)
def test_a_range_lies_within_that_of_requests(name: str) -> None:
    assert all(RANGES[f"sampling.{name}"].holds(end) for end in SAMPLING_RANGES[name])
