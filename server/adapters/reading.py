"""From the tensors of a PEFT file to what they do to each module of the base.

The names in a file decide nothing here: they were checked against the base's
modules at publish, and a name without a place in the layout is an error, never
skipped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.registry.validation.gate import WEIGHTS_LIMITS
from switchyard.registry.validation.safetensors_header import TensorEntry, check_header, header_in
from switchyard.registry.validation.tensor_names import Role, parse_tensor_name
from switchyard.registry.verdicts import Findings
from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.layout import GroupLayout, ModulePlace

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PAIRS = {False: (Role.A, Role.B), True: (Role.EMBEDDING_A, Role.EMBEDDING_B)}
_BIASES = (Role.ADAPTED_BIAS, Role.BIAS)

# The adapters of one base have the same few hundred names.
_parsed_name = lru_cache(maxsize=8192)(parse_tensor_name)


@dataclass(frozen=True, slots=True)
class HostModule:
    """What one version does to one module, as its file has it; what is None changes nothing.

    Attributes:
        path: the module, as the base model names it.
        place: where it sits.
        a: [r, in_features], dtype of the file.
        b: [out_features, r], dtype of the file.
        scaling: factor of B A: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA.
        magnitude: [out_features], DoRA's length of each row of the weight.
        input_gain: [in_features], of (IA)3.
        output_gain: [out_features], of (IA)3.
        bias: [out_features], instead of the base's.
        weight: the module's own weight instead of the base's.
    """

    path: str
    place: ModulePlace
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    scaling: float = 0.0
    magnitude: torch.Tensor | None = None
    input_gain: torch.Tensor | None = None
    output_gain: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    weight: torch.Tensor | None = None

    @property
    def not_summable(self) -> tuple[str, ...]:
        """What it does besides adding B A; the deltas of several versions can be summed, these cannot."""
        others = {
            "dora": self.magnitude,
            "(IA)3": self.input_gain if self.input_gain is not None else self.output_gain,
            "bias": self.bias,
            "modules_to_save": self.weight,
        }
        return tuple(name for name, tensor in others.items() if tensor is not None)


def tensors_of(content: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, as views of its bytes where those lie on their boundaries.

    Safe for any bytes: the header is read as strictly as at the registry's gate.

    Args:
        content: [size_bytes] uint8, the whole file; must live, and stay as it is, as long as the tensors.

    Raises:
        AdapterUnpackable: it is no such file.
    """
    raw = header_in(content.numpy().data, WEIGHTS_LIMITS)
    entries = _entries(raw, len(content))
    data = content[len(raw) :]
    numbers = {dtype: _numbers(data, _DTYPES[dtype]) for dtype in {entry.dtype for entry in entries}}
    return {entry.name: _tensor(entry, data, numbers[entry.dtype]) for entry in entries}


def _numbers(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """All of the data as numbers of one dtype."""
    # torch wants numbers on their boundaries; writers pad the header so that they are.
    aligned = data.clone() if data.data_ptr() % dtype.itemsize else data
    return aligned[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)


def _tensor(entry: TensorEntry, data: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    first, off_boundary = divmod(entry.start_bytes, numbers.itemsize)
    if off_boundary:
        return data[entry.start_bytes : entry.stop_bytes].clone().view(numbers.dtype).view(entry.shape)
    strides = (entry.shape[1], 1) if len(entry.shape) > 1 else (1,)
    # One call of torch instead of two for each of some hundred tensors.
    return numbers.as_strided(entry.shape, strides, numbers.storage_offset() + first)


# Adapters that were trained alike have the same header, byte for byte.
@lru_cache(maxsize=16)
def _entries(raw: bytes, size_bytes: int) -> tuple[TensorEntry, ...]:
    findings = Findings()
    header = check_header(raw, size_bytes, "weights", WEIGHTS_LIMITS, findings)
    if header is None:
        faults = "; ".join(f"{fault.subject}: {fault.message}" for fault in findings.faults)
        raise AdapterUnpackable(f"the weights are no safetensors file with known element types: {faults}")
    return header.tensors


def host_modules(
    tensors: Mapping[str, torch.Tensor], layout: GroupLayout, config: AdapterConfig, weight: float
) -> Iterator[HostModule]:
    """Sorts the tensors of one file by module.

    Args:
        tensors: the file's tensors by name.
        layout: where modules sit.
        config: what the file's configuration says.
        weight: factor of the whole adapter in its selection.

    Raises:
        AdapterUnpackable: a name or a module is unknown, a factor is missing, or a shape does not fit.
    """
    by_module: dict[str, dict[Role, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        parsed = _parsed_name(name)
        if parsed is None:
            raise AdapterUnpackable(f"tensor {name!r} belongs to no feature that is served")
        by_module[parsed.module][parsed.role] = tensor
    for path, own in by_module.items():
        place = layout.places.get(path)
        if place is None:
            raise AdapterUnpackable(f"module {path!r} has {sorted(own)} but no place in the resident base")
        yield _module(path, place, own, config.scaling_of(path) * weight if _PAIRS[place.embeds][0] in own else 0.0)


def _module(path: str, place: ModulePlace, own: dict[Role, torch.Tensor], scaling: float) -> HostModule:
    role_a, role_b = _PAIRS[place.embeds]
    a, b = own.pop(role_a, None), own.pop(role_b, None)
    rank = 0 if a is None else a.shape[0]
    width = (place.in_features, place.out_features) if place.embeds else (place.out_features, place.in_features)
    gain = own.pop(Role.GAIN, None)
    # A single column of gains multiplies outputs, a single row inputs.
    on_output = gain is not None and gain.shape[1] == 1
    module = HostModule(
        path=path,
        place=place,
        a=_shaped(path, role_a, a, (rank, place.in_features)),
        b=_shaped(path, role_b, b, (place.out_features, rank)),
        scaling=scaling,
        magnitude=_shaped(path, Role.MAGNITUDE, own.pop(Role.MAGNITUDE, None), (place.out_features,)),
        input_gain=None if gain is None or on_output else _flat(path, gain, place.in_features),
        output_gain=_flat(path, gain, place.out_features) if gain is not None and on_output else None,
        bias=next((_shaped(path, r, own.pop(r), (place.out_features,)) for r in _BIASES if r in own), None),
        weight=_shaped(path, Role.WEIGHT, own.pop(Role.WEIGHT, None), width),
    )
    if own or (a is None) != (b is None) or (module.magnitude is not None and a is None):
        half = [role for role, tensor in ((role_a, a), (role_b, b)) if tensor is None]
        raise AdapterUnpackable(f"module {path!r}: {sorted(own)} do not belong there, or {half} are missing")
    return module


def _flat(path: str, gain: torch.Tensor, features: int) -> torch.Tensor:
    flat = gain.flatten()
    if len(flat) != features:
        raise AdapterUnpackable(f"module {path!r}: {len(flat)} gains for {features} features")
    return flat


def _shaped(path: str, role: Role, tensor: torch.Tensor | None, expected: tuple[int, ...]) -> torch.Tensor | None:
    if tensor is not None and tuple(tensor.shape) != expected:
        raise AdapterUnpackable(f"module {path!r}: {role} has shape {tuple(tensor.shape)}, expected {expected}")
    return tensor
