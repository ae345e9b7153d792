"""Export: the adapter as PEFT's files, written so that half an adapter cannot exist.

Owns the bytes of an adapter directory. PEFT's own writer leaks the base's local path, and lists target
modules in an order that differs from process to process; here the same weights always give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.trainer.errors import TrainingDiverged

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from switchyard.trainer.initialisation import Factors

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
CARD_FILE: Final = "README.md"


def adapter_files(
    model: PeftModel, base: BaseModelSpec, revision: str | None, first: Factors | None = None
) -> dict[str, bytes]:
    """Returns the files that PEFT loads, by name.

    Args:
        model: The trained model.
        base: What it was trained on; its name stands in the config.
        revision: The base's revision on the Hub, or None.
        first: Factors that are taken out again, because the adapter began with a part of the base's weights.

    Raises:
        TrainingDiverged: If a weight is not finite.
    """
    import safetensors.torch
    from peft import get_peft_model_state_dict

    from switchyard.trainer.initialisation import plain_config, plain_weights

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    config = model.peft_config["default"].to_dict()
    if first is not None:
        weights, config = plain_weights(weights, first), plain_config(config)
    _require_finite(weights)
    config |= {
        "base_model_name_or_path": base.name,
        "revision": revision,
        "inference_mode": True,
        **_said_for_good(config),
    }
    return {
        CONFIG_FILE: document_bytes(config),
        WEIGHTS_FILE: safetensors.torch.save(weights, metadata={"format": "pt"}),
    }


def _said_for_good(config: Mapping[str, object]) -> dict[str, object]:
    """Returns the fields that PEFT's own writer leaves to the process, or to a beginning that is over."""
    found: dict[str, object] = {}
    for name in ("target_modules", "feedforward_modules"):
        if config.get(name) is not None:
            found[name] = sorted(config[name])  # type: ignore[call-overload]
    # The weights are whole. PEFT would change the base again, or look for a tokenizer at a local path.
    begun = {
        "init_lora_weights": True,
        "eva_config": None,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
    }
    return found | {name: value for name, value in begun.items() if name in config}


def document_bytes(document: Mapping[str, object]) -> bytes:
    """Returns a JSON document for people and programs: sorted keys, two spaces, a final newline."""
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _require_finite(weights: Mapping[str, torch.Tensor]) -> None:
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if bad:
        raise TrainingDiverged(
            f"{len(bad)} of {len(weights)} adapter tensors are not finite, first {bad[0]}; nothing was exported. "
            "Lower train.learning_rate or use quantization.compute_dtype: float32"
        )
