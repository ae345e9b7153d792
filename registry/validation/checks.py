"""Does an adapter fit its base model and its configuration? Names, shapes, ranks.

Takes what the gate and the config reader have passed and compares it with what
the base model has. The rules for what PEFT writes are those of its release
0.21; `tests/registry/test_peft_features.py` saves adapters with it and compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from switchyard.registry.records import AdapterShape
from switchyard.registry.validation.adapter_config import AdapterConfig, matching_key
from switchyard.registry.validation.base_table import HEAD, BaseTable
from switchyard.registry.validation.config_fields import BIAS_NONE, IA3
from switchyard.registry.validation.gate import AdapterHeader, LoraPair
from switchyard.registry.validation.safetensors_header import TensorEntry
from switchyard.registry.validation.target_modules import expected_modules
from switchyard.registry.verdicts import Findings, Reason

_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WRONG_BASE = "publish it for the base model it was trained on"


def check_base_fit(header: AdapterHeader, table: BaseTable, findings: Findings) -> None:
    """Compares names and shapes with the base model.

    Args:
        header: what the weights file holds.
        table: what the base model has.
        findings: receives every fault.
    """
    linears, embeddings = table.linears, table.embeddings
    _check_factors(header.pairs, linears, "linear layer", findings)
    _check_factors(header.embeddings, embeddings, "embedding", findings)
    for module, entry in header.magnitudes.items():
        if module in header.embeddings:
            message = "DoRA on an embedding is not served; leave it out of target_modules"
            findings.fault(Reason.FEATURE_UNSUPPORTED, _at(module), message)
        elif module not in header.pairs:
            findings.fault(Reason.TENSOR_NAME, _at(module), "has a magnitude but no factors")
        else:
            _check_shape(entry, header.pairs[module].features[1:], findings)
    for module, entry in header.gains.items():
        if module not in linears:
            findings.fault(Reason.TENSOR_NAME, _at(module), "the base model has no such linear layer")
        elif entry.shape not in {(1, linears[module][0]), (linears[module][1], 1)}:
            wanted = f"[1, {linears[module][0]}] or [{linears[module][1]}, 1]"
            findings.fault(
                Reason.BASE_MISMATCH, _at(module), f"gains {list(entry.shape)}; expected {wanted}; {_WRONG_BASE}"
            )
    for parameter, entry in _replaced(header):
        if parameter in table.tensors:
            _check_shape(entry, table.tensors[parameter], findings)
        else:
            _refuse_parameter(parameter, findings)


def _check_factors(
    pairs: Mapping[str, LoraPair], known: Mapping[str, tuple[int, int]], kind: str, findings: Findings
) -> None:
    for module, pair in pairs.items():
        if module not in known:
            message = f"the base model has no such {kind}; was the adapter trained on another model?"
            findings.fault(Reason.TENSOR_NAME, _at(module), message)
        elif pair.features != known[module]:
            message = (
                f"maps {pair.features[0]} to {pair.features[1]} features, the base model's layer "
                f"{known[module][0]} to {known[module][1]}; {_WRONG_BASE}"
            )
            findings.fault(Reason.BASE_MISMATCH, _at(module), message)


def _check_shape(entry: TensorEntry, expected: tuple[int, ...], findings: Findings) -> None:
    if entry.shape != expected:
        message = f"shape {list(entry.shape)}, the base model's is {list(expected)}; {_WRONG_BASE}"
        findings.fault(Reason.BASE_MISMATCH, f"{ADAPTER_WEIGHTS}#{entry.name}", message)


def _replaced(header: AdapterHeader) -> Iterable[tuple[str, TensorEntry]]:
    """Parameters of the base that the adapter replaces, by their name in the base."""
    yield from ((f"{module}.bias", entry) for module, entry in header.biases.items())
    yield from header.copies.items()


def _refuse_parameter(parameter: str, findings: Findings) -> None:
    message = (
        "only the embedding, the output head and biases can be replaced, and only where the "
        "base model has them; register the base again if an older release did"
    )
    findings.fault(Reason.TENSOR_NAME, f"{ADAPTER_WEIGHTS}#{parameter}", message)


def check_config_fit(header: AdapterHeader, config: AdapterConfig, table: BaseTable, findings: Findings) -> None:
    """Compares ranks, targets and features of the weights with the configuration.

    Args:
        header: what the weights file holds.
        config: what the adapter's configuration says.
        table: what the base model has.
        findings: receives every fault and warning.
    """
    _check_patterns(header, config, findings)
    _check_method(header, config, findings)
    _check_biases(header, config, table, findings)
    _check_copies(header, config, table, findings)
    expected = expected_modules(config, table, findings)
    if expected is None:
        return
    _missing(expected - header.adapted, "the configuration targets this module", findings)
    known = header.adapted & set(table.adaptable)
    _surplus(known - expected, "the configuration does not target it", findings)


def _check_patterns(header: AdapterHeader, config: AdapterConfig, findings: Findings) -> None:
    factors = header.factors
    for module, pair in factors.items():
        if config.method != IA3 and pair.rank != config.rank_of(module):
            message = f"rank {pair.rank} in the file, {config.rank_of(module)} in {ADAPTER_CONFIG}"
            findings.fault(Reason.RANK_MISMATCH, _at(module), message)
    for name, pattern in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        used = {matching_key(pattern, module) for module in factors}
        for key in pattern:
            if key not in used:
                message = "decides nothing: no adapted module ends with it, or an earlier key matches first"
                findings.warn(Reason.TARGET_UNMATCHED, f"{ADAPTER_CONFIG}#{name}.{key}", message)


def _check_method(header: AdapterHeader, config: AdapterConfig, findings: Findings) -> None:
    if config.method == IA3:
        _surplus(header.factors, "the configuration is of (IA)^3", findings)
        _check_gains(header, config, findings)
        return
    _surplus(header.gains, "the configuration is of LoRA", findings)
    with_factors = set(header.factors)
    if config.use_dora:
        _missing(with_factors - set(header.magnitudes), "the configuration says use_dora", findings)
    else:
        _surplus(header.magnitudes, "the configuration does not say use_dora", findings)


def _check_gains(header: AdapterHeader, config: AdapterConfig, findings: Findings) -> None:
    """Gains act on inputs where the configuration says feed-forward, else on outputs; their shape says which."""
    if config.feedforward is None:
        return
    for module, entry in header.gains.items():
        # PEFT asks for the end of the path, also in the middle of a name.
        on_input = module.endswith(config.feedforward)
        if entry.shape[0 if on_input else 1] != 1:
            where = "inputs" if on_input else "outputs"
            message = f"gains {list(entry.shape)}; by feedforward_modules they act on {where}"
            findings.fault(Reason.SHAPE, _at(module), message)


def _check_biases(header: AdapterHeader, config: AdapterConfig, table: BaseTable, findings: Findings) -> None:
    """PEFT writes the bias of an adapted layer under `base_layer`, with `all` every other bias under its own name."""
    kept = _kept(config, table)
    biased = table.biased - kept
    adapted = biased & set(header.pairs) if config.bias != BIAS_NONE else set()
    others = biased - set(header.pairs) if config.bias == "all" else set()
    found = {name.removesuffix(".bias") for name in header.copies if name.endswith(".bias")} - kept
    says = f"the configuration says bias {config.bias}"
    _missing({f"{module}.base_layer.bias" for module in adapted - set(header.biases)}, says, findings)
    _missing({f"{module}.bias" for module in others - found}, says, findings)
    _surplus({f"{module}.base_layer.bias" for module in set(header.biases) - adapted}, says, findings)
    _surplus({f"{module}.bias" for module in (found & table.biased) - others}, says, findings)


def _kept(config: AdapterConfig, table: BaseTable) -> set[str]:
    """Paths of the modules that `modules_to_save` replaces; PEFT asks for the end of the path."""
    return {module for module in table.copyable if config.modules_to_save and module.endswith(config.modules_to_save)}


def _check_copies(header: AdapterHeader, config: AdapterConfig, table: BaseTable, findings: Findings) -> None:
    kept = _kept(config, table)
    strange = {name.rpartition(".")[0] for name in header.copies if name not in table.tensors} - kept
    for name in config.modules_to_save:
        at = f"{ADAPTER_CONFIG}#modules_to_save"
        if any(module.endswith(name) for module in {*table.modules, *strange}):
            message = f"a whole copy of {name} is not served, only of the embedding and the output head"
            findings.fault(Reason.FEATURE_UNSUPPORTED, at, message)
        elif not any(module.endswith(name) for module in kept):
            findings.warn(Reason.TARGET_UNMATCHED, at, f"{name} is no module of the base model that can be replaced")
    says = "the configuration names it in modules_to_save"
    expected = {parameter for module in kept for parameter in table.parameters_of(module)}
    weights = {name for name in header.copies if name.endswith(".weight") and name in table.tensors}
    _missing(expected - set(header.copies), says, findings)
    _surplus(weights - expected, "the configuration does not name it in modules_to_save", findings)


def _missing(names: Iterable[str], why: str, findings: Findings) -> None:
    for name in sorted(names):
        findings.fault(Reason.TENSORS_MISSING, _at(name), f"{why}, but the file has no tensors for it")


def _surplus(names: Iterable[str], why: str, findings: Findings) -> None:
    for name in sorted(names):
        findings.fault(Reason.TENSOR_NAME, _at(name), f"the file has tensors for it, but {why}")


def _at(module: str) -> str:
    return f"{ADAPTER_WEIGHTS}#{module}"


def shape_of(header: AdapterHeader, config: AdapterConfig) -> AdapterShape:
    """Describes the weights of an adapter that has passed."""
    features = {*config.features}
    if header.embeddings:
        features.add("embedding")
    if HEAD in header.adapted:
        features.add("head")
    return AdapterShape(
        rank=max((pair.rank for pair in header.factors.values()), default=0),
        target_modules=tuple(sorted({module.rpartition(".")[2] for module in header.adapted})),
        features=tuple(sorted(features)),
        dtype="+".join(sorted({_DTYPE_NAMES[tensor.dtype] for tensor in header.tensors})),
        parameter_count=sum(math.prod(tensor.shape) for tensor in header.tensors),
        weights_bytes=sum(tensor.stop_bytes - tensor.start_bytes for tensor in header.tensors),
    )
