"""Does an adapter fit its base model? Names, shapes, ranks, values.

Takes what the gate and the config reader have passed and compares it with the
base model's module table. The values are scanned in the same pass that takes
the file's digest, so the bytes that were checked are the bytes that are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from switchyard.registry.digest import DigestWriter
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from switchyard.registry.records import AdapterShape
from switchyard.registry.validation.adapter_config import AdapterConfig, matching_key
from switchyard.registry.validation.gate import DTYPES, LoraHeader
from switchyard.registry.validation.safetensors_header import TensorEntry
from switchyard.registry.validation.target_modules import expected_modules
from switchyard.registry.verdicts import Findings, Reason

# Largest finite float16: an entry of the update beyond it cannot be held in half precision.
UPDATE_LIMIT = 65504.0
_SCAN_BYTES = 4 << 20
_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_EMBEDDING_PARTS = ("embed", "wte", "lm_head", "word_embeddings")


@dataclass(frozen=True, slots=True)
class _Bits:
    """How an element type keeps its magnitude: without the sign bit, larger bits mean a larger value.

    Attributes:
        unsigned: the little-endian integer of the same width.
        magnitude: mask without the sign bit.
        infinity: bits of infinity; everything from here on is not finite.
        value: turns the bits of a finite magnitude into a number.
    """

    unsigned: npt.DTypeLike
    magnitude: int
    infinity: int
    value: Callable[[int], float]


def _float32_of(bits: int) -> float:
    return float(np.array([bits], dtype="<u4").view("<f4")[0])


_BITS = {
    "F32": _Bits("<u4", 0x7FFF_FFFF, 0x7F80_0000, _float32_of),
    "F16": _Bits("<u2", 0x7FFF, 0x7C00, lambda bits: float(np.array([bits], dtype="<u2").view("<f2")[0])),
    "BF16": _Bits("<u2", 0x7FFF, 0x7F80, lambda bits: _float32_of(bits << 16)),
}


def check_base_fit(header: LoraHeader, modules: Mapping[str, tuple[int, int]], findings: Findings) -> None:
    """Compares names and shapes with the base model.

    Args:
        header: what the weights file holds.
        modules: module path to (in_features, out_features) of the base model.
        findings: receives every fault.
    """
    for module, pair in header.pairs.items():
        at = f"{ADAPTER_WEIGHTS}#{module}"
        features = modules.get(module)
        found = (pair.a.shape[1], pair.b.shape[0])
        if features is None:
            _refuse_module(module, at, findings)
        elif found != features:
            message = (
                f"maps {found[0]} to {found[1]} features, the base model's layer {features[0]} to "
                f"{features[1]}; publish it for the base model it was trained on"
            )
            findings.fault(Reason.BASE_MISMATCH, at, message)


def _refuse_module(module: str, at: str, findings: Findings) -> None:
    if any(part in module.rpartition(".")[2] for part in _EMBEDDING_PARTS):
        message = "adapters of the embedding and of the output head are not served; leave them out"
        findings.fault(Reason.FEATURE_UNSUPPORTED, at, message)
    else:
        message = "the base model has no such linear layer; was the adapter trained on another model?"
        findings.fault(Reason.TENSOR_NAME, at, message)


def check_config_fit(
    header: LoraHeader, config: AdapterConfig, modules: Mapping[str, tuple[int, int]], findings: Findings
) -> None:
    """Compares ranks and targets of the weights with the configuration.

    Args:
        header: what the weights file holds.
        config: what the adapter's configuration says.
        modules: module path to (in_features, out_features) of the base model.
        findings: receives every fault and warning.
    """
    for module, pair in header.pairs.items():
        if pair.rank != config.rank_of(module):
            message = f"rank {pair.rank} in the file, {config.rank_of(module)} in {ADAPTER_CONFIG}"
            findings.fault(Reason.RANK_MISMATCH, f"{ADAPTER_WEIGHTS}#{module}", message)
    for name, pattern in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        used = {matching_key(pattern, module) for module in header.pairs}
        for key in pattern:
            if key not in used:
                message = "decides nothing: no adapted module ends with it, or an earlier key matches first"
                findings.warn(Reason.TARGET_UNMATCHED, f"{ADAPTER_CONFIG}#{name}.{key}", message)
    expected = expected_modules(config, modules, findings)
    if expected is None:
        return
    for module in sorted(expected - set(header.pairs)):
        message = "the configuration targets this module but the file has no lora_A and lora_B for it"
        findings.fault(Reason.TENSORS_MISSING, f"{ADAPTER_WEIGHTS}#{module}", message)
    for module in sorted(set(header.pairs) & set(modules) - expected):
        message = "the file has tensors for this module but the configuration does not target it"
        findings.fault(Reason.TENSOR_NAME, f"{ADAPTER_WEIGHTS}#{module}", message)


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over all values has found.

    Attributes:
        digest: of the bytes that were scanned.
        largest: tensor name to the largest finite magnitude in it.
    """

    digest: str
    largest: Mapping[str, float]


def scan_values(fd: int, header: LoraHeader, findings: Findings) -> Scan:
    """Reads every value once, takes the digest and looks for values that are not finite.

    The header is not read again: the digest is of the header that was checked.

    Args:
        fd: the weights file that `header` was read from.
        header: what it holds.
        findings: receives every fault.
    """
    writer = DigestWriter()
    writer.write(header.header.raw)
    largest = {
        tensor.name: _scan_tensor(fd, len(header.header.raw), tensor, writer, findings) for tensor in header.tensors
    }
    return Scan(writer.digest, largest)


def check_updates(header: LoraHeader, config: AdapterConfig, scan: Scan, findings: Findings) -> None:
    """Bounds what each module's update can reach, and warns when no update does anything."""
    has_effect = False
    for module, pair in header.pairs.items():
        scaling = config.scaling_of(module)
        # Each entry of B @ A is a sum of `rank` products.
        bound = abs(scaling) * pair.rank * scan.largest[pair.a.name] * scan.largest[pair.b.name]
        has_effect = has_effect or bound > 0
        if bound > UPDATE_LIMIT:
            message = (
                f"scaling {scaling:g} times the largest weights can reach {bound:.3g}; "
                f"expected at most {UPDATE_LIMIT:g}. Did training diverge?"
            )
            findings.fault(Reason.SCALE_RANGE, f"{ADAPTER_WEIGHTS}#{module}", message)
    if not has_effect:
        message = "every update is zero: answers are those of the base model"
        findings.warn(Reason.NO_EFFECT, ADAPTER_WEIGHTS, message)


def _scan_tensor(fd: int, data_start: int, tensor: TensorEntry, writer: DigestWriter, findings: Findings) -> float:
    """Returns the largest finite magnitude of a tensor; values that are not finite are a fault."""
    bits = _BITS[tensor.dtype]
    largest, not_finite = 0, 0
    position = tensor.start_bytes
    while position < tensor.stop_bytes:
        chunk = os.pread(fd, min(_SCAN_BYTES, tensor.stop_bytes - position), data_start + position)
        if not chunk:
            break
        writer.write(chunk)
        position += len(chunk)
        whole = len(chunk) - len(chunk) % DTYPES[tensor.dtype]
        magnitude = np.frombuffer(chunk[:whole], dtype=bits.unsigned) & bits.magnitude
        beyond = magnitude >= bits.infinity
        count = int(np.count_nonzero(beyond))
        not_finite += count
        finite = magnitude[~beyond] if count else magnitude
        largest = max(largest, int(finite.max(initial=0)))
    if not_finite:
        message = f"{not_finite} value(s) are NaN or infinite; train again with a lower learning rate"
        findings.fault(Reason.NON_FINITE, f"{ADAPTER_WEIGHTS}#{tensor.name}", message)
    return bits.value(largest)


def shape_of(header: LoraHeader, config: AdapterConfig) -> AdapterShape:
    """Describes the weights of an adapter that has passed."""
    dtypes = sorted({_DTYPE_NAMES[tensor.dtype] for tensor in header.tensors})
    weights_bytes = sum(tensor.stop_bytes - tensor.start_bytes for tensor in header.tensors)
    return AdapterShape(
        rank=max(pair.rank for pair in header.pairs.values()),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in header.pairs})),
        features=config.features,
        dtype="+".join(dtypes),
        parameter_count=sum(tensor.shape[0] * tensor.shape[1] for tensor in header.tensors),
        weights_bytes=weights_bytes,
    )
