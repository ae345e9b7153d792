"""`adapter_config.json`: understood, harmless, or refused by name; and understood as PEFT understands it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from handmade import MODULES, lora_config
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.errors import VersionRefused
from switchyard.registry.validation.adapter_config import matching_key, parse_adapter_config, read_adapter_config
from switchyard.registry.validation.config_fields import IA3, LORA, REFUSED_FIELDS, RULES
from switchyard.registry.verdicts import Findings, Reason

PATHS = sorted(MODULES)


def found(config: dict[str, Any] | bytes | str) -> tuple[set[tuple[Reason, str]], set[tuple[Reason, str]]]:
    """Faults and warnings as (reason, field)."""
    text = json.dumps(config) if isinstance(config, dict) else config
    findings = Findings()
    read = read_adapter_config(text.encode() if isinstance(text, str) else text, findings)
    assert (read is None) == bool(findings.faults)
    faults, warnings = (
        {(verdict.reason, verdict.subject.partition("#")[2]) for verdict in verdicts}
        for verdicts in (findings.faults, findings.warnings)
    )
    return faults, warnings


def test_what_peft_writes_is_read() -> None:
    from peft import LoraConfig

    written = LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=["q_proj"],
        use_rslora=True,
        task_type="CAUSAL_LM",
        rank_pattern={"v_proj": 4, "layers.1.self_attn.q_proj": 2},
        alpha_pattern={"v_proj": 3.5},
    ).to_dict()
    document = json.loads(json.dumps(written, default=lambda value: getattr(value, "value", None) or sorted(value)))
    config = parse_adapter_config(json.dumps(document).encode())
    assert (config.rank, config.alpha, config.use_rslora) == (8, 32.0, True)
    assert config.target_modules == ("q_proj",)
    assert config.features == ("alpha_pattern", "rank_pattern", "rslora")
    assert found(document) == (set(), set())


def test_every_field_of_peft_has_a_rule() -> None:
    """A new release of PEFT with a new field must fail here, not change answers in silence."""
    from peft import IA3Config, LoraConfig

    for method, kind in ((LORA, LoraConfig), (IA3, IA3Config)):
        rules = RULES[method]
        known = REFUSED_FIELDS | set(rules.off_only) | rules.no_effect | rules.read
        assert {field.name for field in fields(kind)} - known == set(), method


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"auto_mapping": {"parent_library": "os"}}, Reason.CONFIG_FIELD_REFUSED),
        ({"auto_map": {"x": "y"}}, Reason.CONFIG_FIELD_REFUSED),
        ({"megatron_config": {"x": 1}}, Reason.CONFIG_FIELD_REFUSED),
        ({"megatron_core": "megatron.evil"}, Reason.CONFIG_FIELD_REFUSED),
        ({"corda_config": {"cache_file": "/etc/passwd"}}, Reason.CONFIG_FIELD_REFUSED),
        ({"lora_ga_config": {"x": 1}}, Reason.CONFIG_FIELD_REFUSED),
        ({"eva_config": {"x": 1}}, Reason.CONFIG_FIELD_REFUSED),
        ({"loftq_config": {"loftq_bits": 4}}, Reason.CONFIG_FIELD_REFUSED),
        ({"peft_type": "XLORA"}, Reason.FEATURE_UNSUPPORTED),
        ({"peft_type": "PREFIX_TUNING"}, Reason.FEATURE_UNSUPPORTED),
        ({"peft_type": None}, Reason.FEATURE_UNSUPPORTED),
        ({"task_type": "SEQ_CLS"}, Reason.FEATURE_UNSUPPORTED),
        ({"init_lora_weights": "pissa_niter_4"}, Reason.FEATURE_UNSUPPORTED),
        ({"init_lora_weights": "olora"}, Reason.FEATURE_UNSUPPORTED),
        ({"init_lora_weights": 1}, Reason.FEATURE_UNSUPPORTED),
        ({"use_dora": 1}, Reason.CONFIG_VALUE),
        ({"use_qalora": True}, Reason.FEATURE_UNSUPPORTED),
        ({"bias": "some"}, Reason.CONFIG_VALUE),
        ({"bias": True}, Reason.CONFIG_VALUE),
        ({"lora_bias": True}, Reason.FEATURE_UNSUPPORTED),
        ({"fan_in_fan_out": "yes"}, Reason.CONFIG_VALUE),
        ({"modules_to_save": "lm_head"}, Reason.CONFIG_VALUE),
        ({"modules_to_save": ["(.+)+Z"]}, Reason.PATTERN),
        ({"ensure_weight_tying": True}, Reason.FEATURE_UNSUPPORTED),
        ({"layer_replication": [[0, 2], [1, 2]]}, Reason.FEATURE_UNSUPPORTED),
        ({"target_parameters": ["mlp.experts"]}, Reason.FEATURE_UNSUPPORTED),
        ({"trainable_token_indices": [1]}, Reason.FEATURE_UNSUPPORTED),
        ({"alora_invocation_tokens": [1]}, Reason.FEATURE_UNSUPPORTED),
        ({"arrow_config": {"x": 1}}, Reason.FEATURE_UNSUPPORTED),
        ({"use_bdlora": {"x": 1}}, Reason.FEATURE_UNSUPPORTED),
        ({"a_field_of_the_future": True}, Reason.FEATURE_UNSUPPORTED),
        ({"\u202eevil": [1]}, Reason.FEATURE_UNSUPPORTED),
        ({"r": 0}, Reason.RANK),
        ({"r": -1}, Reason.RANK),
        ({"r": "8"}, Reason.RANK),
        ({"r": True}, Reason.RANK),
        ({"r": 8.0}, Reason.RANK),
        ({"r": 257}, Reason.RANK),
        ({"r": 50_000_000}, Reason.RANK),
        ({"r": None}, Reason.RANK),
        ({"rank_pattern": {"q_proj": 1000}}, Reason.RANK),
        ({"lora_alpha": "16"}, Reason.CONFIG_VALUE),
        ({"lora_alpha": None}, Reason.CONFIG_VALUE),
        ({"lora_alpha": True}, Reason.CONFIG_VALUE),
        ({"lora_alpha": 10**400}, Reason.CONFIG_VALUE),
        ({"alpha_pattern": {"q_proj": "x"}}, Reason.CONFIG_VALUE),
        ({"rank_pattern": ["q_proj"]}, Reason.CONFIG_VALUE),
        ({"use_rslora": "yes"}, Reason.CONFIG_VALUE),
        ({"target_modules": {"q_proj": 1}}, Reason.CONFIG_VALUE),
        ({"target_modules": ["q_proj"] * 5_000}, Reason.CONFIG_VALUE),
        ({"layers_to_transform": [0, -1]}, Reason.CONFIG_VALUE),
        ({"target_modules": ["(.+)+Z"]}, Reason.PATTERN),
        ({"target_modules": "x" * 5_000}, Reason.PATTERN),
        ({"rank_pattern": {"(.+)+Z": 4}}, Reason.PATTERN),
        ({"alpha_pattern": {"^q_proj$": 4}}, Reason.PATTERN),
        ({"layers_pattern": "(.+)+"}, Reason.PATTERN),
    ],
    ids=lambda value: str(value)[:60],
)
def test_refused_by_name(change: dict[str, Any], reason: Reason) -> None:
    faults, _ = found(lora_config(**change))
    assert {fault for fault, _ in faults} == {reason}
    (subject,) = {subject for _, subject in faults}
    assert subject.isprintable()
    assert subject.startswith(next(iter(change))) or "u202e" in subject


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.CONFIG_JSON),
        ("[]", Reason.CONFIG_JSON),
        ("\ufeff{}", Reason.CONFIG_JSON),
        ("[" * 100_000, Reason.CONFIG_JSON),
        ('{"lora_alpha": NaN}', Reason.CONFIG_JSON),
        ('{"lora_alpha": 1e999}', Reason.CONFIG_JSON),
        ('{"r": ' + "1" * 5_000 + "}", Reason.CONFIG_JSON),
        ('{"lora_alpha": 16, "lora_alpha": 1}', Reason.DUPLICATE_KEY),
        ('{"x": "' + "y" * (1 << 20) + '"}', Reason.CONFIG_SIZE),
    ],
    ids=lambda value: str(value)[:30],
)
def test_documents_that_are_refused(text: str, reason: Reason) -> None:
    assert {fault for fault, _ in found(text)[0]} == {reason}


def test_every_fault_is_listed_at_once() -> None:
    faults, _ = found(lora_config(r=0, lora_bias=True, auto_mapping={"x": 1}, lora_alpha="x", target_modules=["a b"]))
    assert {fault for fault, _ in faults} == {
        Reason.RANK,
        Reason.FEATURE_UNSUPPORTED,
        Reason.CONFIG_FIELD_REFUSED,
        Reason.CONFIG_VALUE,
        Reason.PATTERN,
    }


def test_names_and_paths_of_the_base_are_never_used() -> None:
    for place in (None, "/etc/passwd", "http://10.0.0.1/x", "attacker/evil-lora"):
        assert found(lora_config(base_model_name_or_path=place)) == (set(), set())


def test_an_unknown_field_that_is_empty_is_a_warning() -> None:
    assert found(lora_config(of_the_future=None)) == (set(), {(Reason.FIELD_IGNORED, "of_the_future")})


def test_a_pattern_of_targets_is_a_warning_and_never_runs() -> None:
    faults, warnings = found(lora_config(target_modules=r"(.+)+Z"))
    assert faults == set()
    assert warnings == {(Reason.TARGETS_FROM_TENSORS, "target_modules")}
    assert parse_adapter_config(json.dumps(lora_config(target_modules="all-linear")).encode()).target_modules is None


def test_refusal_carries_the_verdicts() -> None:
    with pytest.raises(VersionRefused, match=r"RANK adapter_config\.json#r"):
        parse_adapter_config(json.dumps(lora_config(r=0)).encode())


KEYS = st.lists(
    st.sampled_from(
        [
            "q_proj",
            "proj",
            "self_attn.q_proj",
            "self.attn.q.proj",
            "layers.1.self_attn.q_proj",
            "mlp.up_proj",
            "v_proj",
            "model.layers.0.self_attn.k_proj",
            "q.proj",
            "_proj",
            ".q_proj",
            "1.mlp.down_proj",
            "rs.0.mlp.up_proj",
        ]
    ),
    unique=True,
)


@settings(max_examples=200)
@given(keys=KEYS, path=st.sampled_from(PATHS))
def test_keys_match_as_in_peft(keys: list[str], path: str) -> None:
    from peft.utils.other import get_pattern_key

    expected = get_pattern_key(keys, path)
    assert matching_key(dict.fromkeys(keys, 1), path) == (expected if expected in keys else None)


@settings(max_examples=60)
@given(keys=KEYS, use_rslora=st.booleans())
def test_rank_and_scaling_are_those_of_peft(keys: list[str], use_rslora: bool) -> None:
    """Source of the oracle: `LoraModel._create_and_replace` and `LoraLayer.update_layer`."""
    from peft.utils.other import get_pattern_key

    ranks = {key: 2 + index for index, key in enumerate(keys)}
    alphas = {key: 1.5 * index for index, key in enumerate(reversed(keys))}
    document = lora_config(rank_pattern=ranks, alpha_pattern=alphas, use_rslora=use_rslora)
    config = parse_adapter_config(json.dumps(document).encode())
    for path in PATHS:
        rank = ranks.get(get_pattern_key(ranks.keys(), path), 8)
        alpha = alphas.get(get_pattern_key(alphas.keys(), path), 16)
        assert config.rank_of(path) == rank
        assert config.scaling_of(path) == pytest.approx(alpha / (rank**0.5 if use_rslora else rank), rel=1e-15)
