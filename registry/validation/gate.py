"""The header gate: what an adapter's weights file may look like before a byte of it is used.

Standard library only, so that it can run where nothing else can be imported.
Only the names that PEFT writes for what is served pass (see `tensor_names`):
any other key could reach the base model or another adapter once it is loaded.
What a name is about is compared with the base model later, in `checks`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.registry.validation.safetensors_header import Header, HeaderLimits, TensorEntry, read_header
from switchyard.registry.validation.tensor_names import AXES, Role, TensorName, parse_tensor_name, refused_feature
from switchyard.registry.verdicts import Findings, Reason, shown

DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
RANK_LIMIT = 256
WEIGHTS_LIMITS = HeaderLimits(header_bytes=1 << 20, tensors=4096, dimension=1 << 20, axes=(1, 2), dtypes=DTYPES)
_PAIRS = ((Role.A, Role.B), (Role.EMBEDDING_A, Role.EMBEDDING_B))


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module: the update is `scaling * B @ A`.

    Attributes:
        a: `[rank, in_features]`; of an embedding `[rank, entries]`.
        b: `[out_features, rank]`; of an embedding `[width, rank]`.
    """

    a: TensorEntry
    b: TensorEntry

    @property
    def rank(self) -> int:
        """Inner dimension of the product."""
        return self.a.shape[0]

    @property
    def features(self) -> tuple[int, int]:
        """What A takes and B gives."""
        return self.a.shape[1], self.b.shape[0]


@dataclass(frozen=True, slots=True)
class AdapterHeader:
    """A weights file that has passed the gate.

    Attributes:
        header: every tensor in file order, and the bytes that say so.
        pairs: path of a linear layer to its factors, sorted by path.
        embeddings: path of an embedding to its factors, sorted by path.
        magnitudes: path to DoRA's magnitudes, `[out_features]`.
        gains: path to (IA)^3's gains, `[1, in_features]` or `[out_features, 1]`.
        biases: path of an adapted layer to the bias that replaces the base's, `[out_features]`.
        copies: parameter name to what replaces the base's parameter of that name.
    """

    header: Header
    pairs: Mapping[str, LoraPair] = field(default_factory=dict)
    embeddings: Mapping[str, LoraPair] = field(default_factory=dict)
    magnitudes: Mapping[str, TensorEntry] = field(default_factory=dict)
    gains: Mapping[str, TensorEntry] = field(default_factory=dict)
    biases: Mapping[str, TensorEntry] = field(default_factory=dict)
    copies: Mapping[str, TensorEntry] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[TensorEntry, ...]:
        """Every tensor in file order, covering the data exactly."""
        return self.header.tensors

    @property
    def factors(self) -> Mapping[str, LoraPair]:
        """Factors of linear layers and embeddings."""
        return {**self.pairs, **self.embeddings}

    @property
    def adapted(self) -> frozenset[str]:
        """Paths of all modules with factors or gains."""
        return frozenset({*self.pairs, *self.embeddings, *self.gains})


def read_adapter_header(fd: int, subject: str, findings: Findings) -> AdapterHeader | None:
    """Passes an open weights file through the gate.

    Args:
        fd: descriptor of a regular file.
        subject: what to call the file in findings.
        findings: receives every fault.

    Returns:
        The header, or None when a fault was found.
    """
    header = read_header(fd, subject, WEIGHTS_LIMITS, findings)
    if header is None:
        return None
    before = len(findings.faults)
    by_role: dict[Role, dict[str, TensorEntry]] = defaultdict(dict)
    for tensor in header.tensors:
        name = parse_tensor_name(tensor.name)
        if name is None:
            _refuse_key(tensor.name, subject, findings)
        elif _has_axes(tensor, name, subject, findings):
            by_role[name.role][name.module] = tensor
    linear, embedding = (_pairs(by_role[a], by_role[b], subject, findings) for a, b in _PAIRS)
    if len(findings.faults) > before:
        return None
    copies = {entry.name.removeprefix("base_model.model."): entry for entry in _copied(by_role)}
    return AdapterHeader(
        header,
        pairs=linear,
        embeddings=embedding,
        magnitudes=by_role[Role.MAGNITUDE],
        gains=by_role[Role.GAIN],
        biases=by_role[Role.ADAPTED_BIAS],
        copies=copies,
    )


def _copied(by_role: Mapping[Role, Mapping[str, TensorEntry]]) -> list[TensorEntry]:
    return [entry for role in (Role.WEIGHT, Role.BIAS) for entry in by_role.get(role, {}).values()]


def _refuse_key(name: str, subject: str, findings: Findings) -> None:
    at = f"{subject}#{shown(name)}"
    hint = refused_feature(name)
    if hint is not None:
        findings.fault(Reason.FEATURE_UNSUPPORTED, at, hint)
        return
    findings.fault(
        Reason.TENSOR_NAME,
        at,
        "no name that PEFT gives to a tensor of LoRA or (IA)^3, like base_model.model.<module>.lora_A.weight; save "
        "with PEFT's save_pretrained(..., save_embedding_layers=False) and nothing else in the file",
    )


def _has_axes(tensor: TensorEntry, name: TensorName, subject: str, findings: Findings) -> bool:
    if len(tensor.shape) in AXES[name.role]:
        return True
    message = f"shape {list(tensor.shape)}; expected {' or '.join(map(str, AXES[name.role]))} axes"
    findings.fault(Reason.SHAPE, f"{subject}#{shown(tensor.name)}", message)
    return False


def _pairs(
    a: Mapping[str, TensorEntry], b: Mapping[str, TensorEntry], subject: str, findings: Findings
) -> dict[str, LoraPair]:
    pairs: dict[str, LoraPair] = {}
    for module in sorted({*a, *b}):
        pair = _pair(module, a.get(module), b.get(module), subject, findings)
        if pair is not None:
            pairs[module] = pair
    return pairs


def _pair(
    module: str, a: TensorEntry | None, b: TensorEntry | None, subject: str, findings: Findings
) -> LoraPair | None:
    at = f"{subject}#{module}"
    if a is None or b is None:
        missing = "B" if b is None else "A"
        findings.fault(Reason.TENSORS_MISSING, at, f"the factor {missing} is missing; both factors are needed")
        return None
    if a.shape[0] != b.shape[1]:
        findings.fault(
            Reason.RANK_MISMATCH,
            at,
            f"A is {list(a.shape)} and B is {list(b.shape)}: ranks {a.shape[0]} and {b.shape[1]} differ",
        )
        return None
    if a.shape[0] > RANK_LIMIT:
        findings.fault(Reason.RANK, at, f"rank {a.shape[0]}; expected at most {RANK_LIMIT}")
        return None
    return LoraPair(a, b)
