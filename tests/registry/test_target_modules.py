"""Targets named in a configuration are those that PEFT would adapt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from handmade import MODULES, TENSORS, lora_config
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.validation.adapter_config import parse_adapter_config
from switchyard.registry.validation.base_table import BaseTable
from switchyard.registry.validation.target_modules import expected_modules
from switchyard.registry.verdicts import Findings, Reason

PATHS = (*MODULES, "lm_head", "model.embed_tokens")
NAMES = st.sampled_from(
    [
        "q_proj",
        "up_proj",
        "self_attn.k_proj",
        "proj",
        "layers.0.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
        "nothing",
        "lm_head",
        "embed_tokens",
        "model.embed_tokens",
    ]
)


def expected(**changes: Any) -> tuple[set[str] | None, Findings]:
    findings = Findings()
    config = parse_adapter_config(json.dumps(lora_config(**changes)).encode())
    return expected_modules(config, BaseTable(MODULES, TENSORS), findings), findings


@settings(max_examples=300)
@given(
    targets=st.lists(NAMES, min_size=1, max_size=3, unique=True),
    excluded=st.lists(NAMES, max_size=2, unique=True),
    layers=st.none() | st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    pattern=st.sampled_from([None, "layers", ["h", "layers"], "blocks", []]),
    kept=st.lists(NAMES, max_size=1),
)
def test_equal_to_peft(targets: list[str], excluded: list[str], layers: Any, pattern: Any, kept: list[str]) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists

    options = {"target_modules": targets, "exclude_modules": excluded, "layers_to_transform": layers}
    options["modules_to_save"] = kept
    config = LoraConfig(task_type="CAUSAL_LM")
    for name, value in {**options, "layers_pattern": pattern}.items():
        setattr(config, name, value)
    matched = {path: check_target_module_exists(config, path) for path in PATHS}
    oracle = {path for path, match in matched.items() if match and not isinstance(match, _ExcludedModule)}
    found, findings = expected(**options, layers_pattern=pattern)
    assert found == oracle
    assert bool(findings.faults) == (not oracle)


def test_a_pattern_gives_no_expectation() -> None:
    assert expected(target_modules=".*q_proj")[0] is None
    assert expected(exclude_modules=".*k_proj")[0] is None


@pytest.mark.parametrize("targets", [[], None, ["nothing"]])
def test_no_target_is_a_fault(targets: list[str] | None) -> None:
    _, findings = expected(target_modules=targets)
    assert [verdict.reason for verdict in findings.faults] == [Reason.NO_TARGETS]


def test_a_name_without_effect_is_a_warning() -> None:
    found, findings = expected(target_modules=["q_proj", "query_key_value"])
    assert found == {path for path in MODULES if path.endswith("q_proj")}
    assert [verdict.reason for verdict in findings.warnings] == [Reason.TARGET_UNMATCHED]
