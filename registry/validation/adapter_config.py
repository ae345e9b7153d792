"""A strict reader of PEFT's `adapter_config.json`.

PEFT's own loader imports modules that the file names, runs its patterns as
regular expressions and changes the base model for some `init_lora_weights`.
Here every field is either understood, known to have no effect on a trained
adapter, or refused by name; a field that nobody knows is refused unless it is
empty. The fields are in `config_fields`.

Patterns are never run as regular expressions. Keys of `rank_pattern` and
`alpha_pattern` are taken when they are plain module names, and then match as
PEFT matches them (`peft.utils.other.get_pattern_key`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.registry.errors import VersionRefused
from switchyard.registry.manifest import ADAPTER_CONFIG
from switchyard.registry.strict_json import DuplicateKey, Json, JsonRefused, parse_json
from switchyard.registry.validation.config_fields import (
    BIAS_NONE,
    BIASES,
    IA3,
    LORA,
    PLAIN_INITS,
    REFUSED_FIELDS,
    RULES,
    FieldRules,
)
from switchyard.registry.validation.config_values import ConfigValues, is_literal
from switchyard.registry.verdicts import Findings, Reason, shown

CONFIG_LIMIT_BYTES = 1 << 20
# A tuple: what the file says may be something that no set takes.
_TASKS = (None, "CAUSAL_LM")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What `adapter_config.json` says about an adapter.

    Attributes:
        rank: of modules that no key of `rank_pattern` matches; 0 for (IA)^3, which has none.
        alpha: of modules that no key of `alpha_pattern` matches.
        rank_pattern: literal module name to rank, in file order.
        alpha_pattern: literal module name to alpha, in file order.
        use_rslora: scale by alpha / sqrt(rank) instead of alpha / rank.
        target_modules: literal module names; None when the file has a pattern or `all-linear`.
        exclude_modules: literal module names; None when the file has a pattern.
        layers: numbers of the only layers adapted; None for all.
        layers_pattern: names before the layer number; empty for any.
        method: `LORA` or `IA3`.
        use_dora: the factors change directions; lengths are in magnitudes of their own.
        bias: `none`, `lora_only` or `all`: which biases the adapter replaces.
        modules_to_save: literal ends of the paths of modules that the adapter replaces.
        feedforward: literal ends of paths whose (IA)^3 gains act on inputs; None when the file has a pattern.
        features: names of the optional features in use, sorted.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    target_modules: tuple[str, ...] | None = ()
    exclude_modules: tuple[str, ...] | None = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    method: str = LORA
    use_dora: bool = False
    bias: str = BIAS_NONE
    modules_to_save: tuple[str, ...] = ()
    feedforward: tuple[str, ...] | None = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the optional features in use, sorted."""
        used = {
            "alpha_pattern": bool(self.alpha_pattern),
            "bias": self.bias != BIAS_NONE,
            "dora": self.use_dora,
            "ia3": self.method == IA3,
            "modules_to_save": bool(self.modules_to_save),
            "rank_pattern": bool(self.rank_pattern),
            "rslora": self.use_rslora,
        }
        return tuple(name for name, is_used in used.items() if is_used)

    def rank_of(self, module: str) -> int:
        """Returns the rank of a module, given by its path in the base model."""
        key = matching_key(self.rank_pattern, module)
        return self.rank if key is None else self.rank_pattern[key]

    def scaling_of(self, module: str) -> float:
        """Returns the factor of `B @ A` for a module: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

        Source: https://arxiv.org/abs/2106.09685 section 4.1 and https://arxiv.org/abs/2312.03732.
        """
        key = matching_key(self.alpha_pattern, module)
        alpha = self.alpha if key is None else self.alpha_pattern[key]
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def matching_key(pattern: Mapping[str, object], module: str) -> str | None:
    """Returns the first key, in file order, that matches the end of a module path, or None."""
    return next((key for key in pattern if _matches(key, module)), None)


def _matches(key: str, module: str) -> bool:
    """Tells whether the module ends with the key, after a dot or from its beginning.

    PEFT makes a regular expression of the key; in a plain name only the dot means something else there.
    """
    start = len(module) - len(key)
    if start < 0 or (start > 0 and module[start - 1] != "."):
        return False
    return all(expected in (".", found) for expected, found in zip(key, module[start:], strict=True))


def parse_adapter_config(data: bytes) -> AdapterConfig:
    """Reads `adapter_config.json`.

    Raises:
        VersionRefused: a fault in the file, all of them listed.
    """
    findings = Findings()
    config = read_adapter_config(data, findings)
    if config is None:
        raise VersionRefused(findings.faults)
    return config


def read_adapter_config(data: bytes, findings: Findings) -> AdapterConfig | None:
    """Reads `adapter_config.json` and records every fault and warning.

    Returns:
        The configuration, or None when there is a fault.
    """
    before = len(findings.faults)
    document = _document(data, findings)
    if document is None:
        return None
    _check_features(document, findings)
    values = ConfigValues(document, findings)
    config = _ia3_config(values) if document.get("peft_type") == IA3 else _lora_config(values)
    return config if len(findings.faults) == before else None


def _ia3_config(values: ConfigValues) -> AdapterConfig:
    values.flag("fan_in_fan_out")
    return AdapterConfig(
        rank=0,
        alpha=0.0,
        target_modules=values.targets("target_modules"),
        exclude_modules=values.targets("exclude_modules"),
        method=IA3,
        modules_to_save=values.module_names("modules_to_save"),
        feedforward=values.targets("feedforward_modules"),
    )


def _lora_config(values: ConfigValues) -> AdapterConfig:
    # What the base's weights look like; the loader of PEFT corrects it by what it finds.
    values.flag("fan_in_fan_out")
    return AdapterConfig(
        rank=values.rank("r"),
        alpha=values.alpha("lora_alpha"),
        rank_pattern=values.rank_pattern("rank_pattern"),
        alpha_pattern=values.alpha_pattern("alpha_pattern"),
        use_rslora=values.flag("use_rslora"),
        target_modules=values.targets("target_modules"),
        exclude_modules=values.targets("exclude_modules"),
        layers=values.layers("layers_to_transform"),
        layers_pattern=values.layer_names("layers_pattern"),
        use_dora=values.flag("use_dora"),
        bias=values.choice("bias", BIASES),
        modules_to_save=values.module_names("modules_to_save"),
    )


def _document(data: bytes, findings: Findings) -> dict[str, Json] | None:
    if len(data) > CONFIG_LIMIT_BYTES:
        findings.fault(
            Reason.CONFIG_SIZE, ADAPTER_CONFIG, f"{len(data)} bytes; expected at most {CONFIG_LIMIT_BYTES}"
        )
        return None
    try:
        document = parse_json(data)
    except DuplicateKey as error:
        findings.fault(Reason.DUPLICATE_KEY, ADAPTER_CONFIG, str(error))
        return None
    except JsonRefused as error:
        findings.fault(Reason.CONFIG_JSON, ADAPTER_CONFIG, f"not valid JSON: {error}")
        return None
    if not isinstance(document, dict):
        findings.fault(Reason.CONFIG_JSON, ADAPTER_CONFIG, "expected a JSON object")
        return None
    return document


def _check_features(document: Mapping[str, Json], findings: Findings) -> None:
    method = document.get("peft_type")
    rules = RULES.get(method) if isinstance(method, str) else None
    if rules is None:
        _unsupported(findings, "peft_type", method, f"only {' and '.join(RULES)} are served")
        rules = RULES[LORA]
    if document.get("task_type") not in _TASKS:
        _unsupported(findings, "task_type", document.get("task_type"), "only CAUSAL_LM is served")
    init = document.get("init_lora_weights", True)
    if not any(init is plain or (isinstance(init, str) and init == plain) for plain in PLAIN_INITS):
        hint = (
            "this initialisation changes the base model's weights; convert the adapter with "
            "save_pretrained(path_initial_model_for_weight_conversion=...) and publish the result"
        )
        _unsupported(findings, "init_lora_weights", init, hint)
    for name, value in document.items():
        _check_field(name, value, rules, findings)


def _check_field(name: str, value: Json, rules: FieldRules, findings: Findings) -> None:
    at = f"{ADAPTER_CONFIG}#{name}" if is_literal(name) else f"{ADAPTER_CONFIG}#{shown(name)}"
    if name in REFUSED_FIELDS:
        if value not in (None, {}):
            findings.fault(Reason.CONFIG_FIELD_REFUSED, at, "makes the loader import code or read files; remove it")
    elif name == "megatron_core":
        if value not in (None, "megatron.core"):
            findings.fault(Reason.CONFIG_FIELD_REFUSED, at, "names a module to import; remove it")
    elif name in rules.off_only:
        if not any(value is off or (value == off and type(value) is type(off)) for off in rules.off_only[name]):
            _unsupported(findings, name, value, "this feature is not served; train without it")
    elif name not in rules.no_effect | rules.read:
        if value in (None, False, "", [], {}):
            findings.warn(Reason.FIELD_IGNORED, at, "unknown, and empty")
        else:
            findings.fault(
                Reason.FEATURE_UNSUPPORTED,
                at,
                f"unknown field with value {shown(value)}; it could change the answers",
            )


def _unsupported(findings: Findings, name: str, value: Json, hint: str) -> None:
    findings.fault(Reason.FEATURE_UNSUPPORTED, f"{ADAPTER_CONFIG}#{name}", f"{shown(value)}: {hint}")
