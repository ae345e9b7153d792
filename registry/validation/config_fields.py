"""The fields of `adapter_config.json`, and what is done with each.

Field lists: `peft.LoraConfig` and `peft.IA3Config` of PEFT 0.21; a test holds
them complete, so that a new release cannot change answers in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from switchyard.registry.strict_json import Json

LORA: Final = "LORA"
IA3: Final = "IA3"
BIAS_NONE: Final = "none"
BIASES: Final = (BIAS_NONE, "lora_only", "all")

REFUSED_FIELDS: Final = frozenset(
    {"auto_map", "auto_mapping", "corda_config", "eva_config", "loftq_config", "lora_ga_config", "megatron_config"}
)
"""Fields that make PEFT import code, read paths or change the base model."""

PLAIN_INITS: Final[tuple[Json, ...]] = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations after which the base model the adapter was trained on is the published one."""

_EVERYWHERE: Final = frozenset({"base_model_name_or_path", "inference_mode", "peft_version", "revision"})


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What is done with the fields of one method.

    Attributes:
        read: fields that decide something.
        no_effect: fields that only say how training began, or which tool wrote the file.
        off_only: fields whose feature is not served, with the values under which it is off.
    """

    read: frozenset[str]
    no_effect: frozenset[str]
    off_only: Mapping[str, tuple[Json, ...]]


RULES: Final = {
    LORA: FieldRules(
        read=frozenset(
            {
                "alpha_pattern",
                "bias",
                "exclude_modules",
                "fan_in_fan_out",
                "init_lora_weights",
                "layers_pattern",
                "layers_to_transform",
                "lora_alpha",
                "megatron_core",
                "modules_to_save",
                "peft_type",
                "r",
                "rank_pattern",
                "target_modules",
                "task_type",
                "use_dora",
                "use_rslora",
            }
        ),
        no_effect=_EVERYWHERE | {"lora_dropout", "qalora_group_size", "runtime_config"},
        off_only={
            "alora_invocation_tokens": (None,),
            "arrow_config": (None,),
            "ensure_weight_tying": (False, None),
            "kasa_config": (None,),
            "layer_replication": (None,),
            "lora_bias": (False, None),
            "monteclora_config": (None,),
            "target_parameters": (None, []),
            "trainable_token_indices": (None, [], {}),
            "use_bdlora": (None, False),
            "use_qalora": (False, None),
            "velora_config": (None,),
        },
    ),
    IA3: FieldRules(
        read=frozenset(
            {
                "exclude_modules",
                "fan_in_fan_out",
                "feedforward_modules",
                "modules_to_save",
                "peft_type",
                "target_modules",
                "task_type",
            }
        ),
        no_effect=_EVERYWHERE | {"init_ia3_weights"},
        off_only={},
    ),
}
"""By `peft_type`."""
