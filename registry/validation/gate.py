"""The header gate: what an adapter's weights file may look like before a byte of it is used.

Standard library only, so that it can run where nothing else can be imported.
Only `base_model.model.<module>.lora_A.weight` and `...lora_B.weight` pass: any
other key could reach the base model or another adapter once it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from switchyard.registry.validation.safetensors_header import Header, HeaderLimits, TensorEntry, read_header
from switchyard.registry.verdicts import Findings, Reason, shown

DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
RANK_LIMIT = 256
_LIMITS = HeaderLimits(header_bytes=1 << 20, tensors=4096, dimension=1 << 20, axes=2, dtypes=DTYPES)
_LORA_KEY = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,200})\.lora_([AB])\.weight\Z")
# Parts of keys that belong to features of PEFT which are not served.
_FEATURE_KEYS = {
    "lora_magnitude_vector": "DoRA",
    "lora_embedding_A": "LoRA on an embedding",
    "lora_embedding_B": "LoRA on an embedding",
    "lora_A.bias": "bias on LoRA",
    "lora_B.bias": "bias on LoRA",
    "modules_to_save": "modules_to_save",
    "token_adapter": "trainable_token_indices",
}


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module: the update is `scaling * B @ A`.

    Attributes:
        a: `[rank, in_features]`.
        b: `[out_features, rank]`.
    """

    a: TensorEntry
    b: TensorEntry

    @property
    def rank(self) -> int:
        """Inner dimension of the product."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class LoraHeader:
    """A weights file that has passed the gate.

    Attributes:
        pairs: module path in the base model to its factors, sorted by path.
        header: every tensor in file order, and the bytes that say so.
    """

    pairs: Mapping[str, LoraPair]
    header: Header

    @property
    def tensors(self) -> tuple[TensorEntry, ...]:
        """Every tensor in file order, covering the data exactly."""
        return self.header.tensors


def read_lora_header(fd: int, subject: str, findings: Findings) -> LoraHeader | None:
    """Passes an open weights file through the gate.

    Args:
        fd: descriptor of a regular file.
        subject: what to call the file in findings.
        findings: receives every fault.

    Returns:
        The header, or None when a fault was found.
    """
    header = read_header(fd, subject, _LIMITS, findings)
    if header is None:
        return None
    halves: dict[str, dict[str, TensorEntry]] = {}
    sound = True
    for tensor in header.tensors:
        match = _LORA_KEY.match(tensor.name)
        if match is None:
            sound = False
            _refuse_key(tensor.name, subject, findings)
        else:
            halves.setdefault(match[1], {})[match[2]] = tensor
    pairs: dict[str, LoraPair] = {}
    for module, half in sorted(halves.items()):
        pair = _pair(module, half, subject, findings)
        sound = sound and pair is not None
        if pair is not None:
            pairs[module] = pair
    return LoraHeader(pairs, header) if sound else None


def _refuse_key(name: str, subject: str, findings: Findings) -> None:
    at = f"{subject}#{shown(name)}"
    for part, feature in _FEATURE_KEYS.items():
        if f".{part}" in name:
            findings.fault(Reason.FEATURE_UNSUPPORTED, at, f"{feature} is not served; train without it")
            return
    findings.fault(
        Reason.TENSOR_NAME,
        at,
        "expected only base_model.model.<module>.lora_A.weight and .lora_B.weight; "
        "save with PEFT's save_pretrained and nothing else in the file",
    )


def _pair(module: str, half: dict[str, TensorEntry], subject: str, findings: Findings) -> LoraPair | None:
    at = f"{subject}#{module}"
    if len(half) < 2:
        missing = "lora_B" if "A" in half else "lora_A"
        findings.fault(Reason.TENSORS_MISSING, at, f"{missing}.weight is missing; both factors are needed")
        return None
    a, b = half["A"], half["B"]
    if a.shape[0] != b.shape[1]:
        findings.fault(
            Reason.RANK_MISMATCH,
            at,
            f"lora_A is {list(a.shape)} and lora_B is {list(b.shape)}: ranks {a.shape[0]} and {b.shape[1]} differ",
        )
        return None
    if a.shape[0] > RANK_LIMIT:
        findings.fault(Reason.RANK, at, f"rank {a.shape[0]}; expected at most {RANK_LIMIT}")
        return None
    return LoraPair(a, b)
