"""Every kind of adapter that the trainer can publish, as sections of a recipe on the tiny base."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WHOLE = {"method": "none"}
"""Quantisation of bases that are served as they are."""

_PAIRS = [{"prompt": f"say {number}:", "completion": "abcdefg"[number % 7] * 3} for number in range(64)]


@dataclass(frozen=True)
class Kind:
    """One way to train.

    Attributes:
        sections: what a recipe says beside the base and the length of training.
        rows: the training data.
    """

    sections: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=lambda: _PAIRS)

    @property
    def quantization(self) -> str:
        """What the server must hold the base in."""
        return str(self.sections.get("quantization", {}).get("method", "nf4"))

    def write(self, directory: Path, base: Path, name: str) -> Path:
        """Writes recipe and data; returns the recipe's path."""
        directory.mkdir()
        (directory / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        train = {"max_steps": 5, "batch_size": 8, "learning_rate": 0.02, "max_length": 64}
        recipe = {
            "name": name,
            "base": {"path": str(base)},
            **self.sections,
            "data": {"train": "train.jsonl"} | self.sections.get("data", {}),
            "train": train | self.sections.get("train", {}),
        }
        path = directory / "recipe.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        return path


def lora(**keys: Any) -> Kind:
    return Kind({"lora": {"r": 8, "alpha": 16, **keys}})


_BETTER = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "bcd"} for row in _PAIRS]
_JUDGED = [
    {"prompt": row["prompt"], "completion": "bcd" if place % 2 else row["completion"], "label": place % 2 == 0}
    for place, row in enumerate(_PAIRS)
]


def preferring(method: str, rows: list[dict[str, Any]]) -> Kind:
    shape = "feedback" if method == "kto" else "preference"
    return Kind({"lora": {"r": 8, "alpha": 16}, "method": {"name": method}, "data": {"format": shape}}, rows)


KINDS: dict[str, Kind] = {
    "lora": lora(),
    "dropout": lora(dropout=0.1),
    "rslora": lora(rslora=True),
    "rank-and-alpha-patterns": lora(rank_pattern={"q_proj": 4, "*.1.mlp.*": 16}, alpha_pattern={"k_proj": 3.5}),
    "some-layers": lora(layers=[1]),
    "path-patterns": lora(targets=["*.mlp.*", "q_proj"], exclude=["model.layers.0.*_proj"]),
    "bias-of-adapted-layers": lora(bias="lora_only"),
    "bias-of-all-layers": lora(bias="all"),
    "dora": lora(dora=True),
    "gaussian": lora(init="gaussian"),
    "loftq": lora(init="loftq"),
    "eva": lora(init="eva"),
    "pissa": Kind({"lora": {"r": 8, "alpha": 16, "init": "pissa"}, "quantization": WHOLE}),
    "olora": Kind(
        {
            "lora": {"r": 8, "alpha": 16, "init": "olora", "rslora": True, "rank_pattern": {"q_proj": 4}},
            "quantization": WHOLE,
        }
    ),
    "ia3": Kind({"adapter": {"kind": "ia3"}, "train": {"learning_rate": 0.3}}),
    "ia3-of-named-layers": Kind(
        {
            "adapter": {"kind": "ia3", "targets": ["*.1.*_proj"], "feedforward": ["*.1.mlp.down_proj"]},
            "train": {"learning_rate": 0.3},
        }
    ),
    "int8": Kind({"lora": {"r": 8, "alpha": 16}, "quantization": {"method": "int8"}}),
    "neftune": Kind({"lora": {"r": 8, "alpha": 16}, "train": {"neftune_alpha": 5}}),
    "adamw-8bit": Kind({"lora": {"r": 64, "alpha": 64}, "train": {"optimizer": "adamw_8bit"}}),
    "dpo": preferring("dpo", _BETTER),
    "orpo": preferring("orpo", _BETTER),
    "kto": preferring("kto", _JUDGED),
    "bfloat16-adapter": Kind({"lora": {"r": 8}, "train": {"adapter_dtype": "bfloat16"}}),
}
"""By name, which is also the adapter's."""
