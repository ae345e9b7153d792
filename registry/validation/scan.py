"""The values of an adapter: finite, and of a size that half precision can hold.

They are scanned in the same pass that takes the file's digest, so the bytes
that were checked are the bytes that are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from switchyard.registry.digest import DigestWriter
from switchyard.registry.manifest import ADAPTER_WEIGHTS
from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.registry.validation.config_fields import LORA
from switchyard.registry.validation.gate import DTYPES, AdapterHeader
from switchyard.registry.validation.safetensors_header import TensorEntry
from switchyard.registry.verdicts import Findings, Reason

# Largest finite float16: a value or an entry of the update beyond it cannot be held in half precision.
UPDATE_LIMIT = 65504.0
_SCAN_BYTES = 4 << 20


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


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over all values has found.

    Attributes:
        digest: of the bytes that were scanned.
        largest: tensor name to the largest finite magnitude in it.
    """

    digest: str
    largest: Mapping[str, float]


def scan_values(fd: int, header: AdapterHeader, findings: Findings) -> Scan:
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


def check_updates(header: AdapterHeader, config: AdapterConfig, scan: Scan, findings: Findings) -> None:
    """Bounds every value and what each module's update can reach, and warns when no update does anything."""
    in_factors = {entry.name for pair in header.factors.values() for entry in (pair.a, pair.b)}
    for tensor in header.tensors:
        largest = scan.largest[tensor.name]
        if tensor.name not in in_factors and largest > UPDATE_LIMIT:
            message = f"the largest value is {largest:.3g}; expected at most {UPDATE_LIMIT:g}. Did training diverge?"
            findings.fault(Reason.SCALE_RANGE, f"{ADAPTER_WEIGHTS}#{tensor.name}", message)
    # What replaces a parameter may do something whatever its values are.
    has_effect = len(in_factors) < len(header.tensors)
    # Factors under another method's configuration have no scaling; they are a fault already.
    scaled = header.factors if config.method == LORA else {}
    for module, pair in scaled.items():
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
