"""Which modules an adapter's configuration targets in a base model.

The rules are those of `peft.tuners.tuners_utils.check_target_module_exists`
for plain names: a target is a whole module path or the end of one after a dot.
Where the configuration has a pattern instead of names there is no expectation,
and the tensors alone say what is adapted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from switchyard.registry.manifest import ADAPTER_CONFIG
from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.registry.verdicts import Findings, Reason


def expected_modules(
    config: AdapterConfig, modules: Mapping[str, tuple[int, int]], findings: Findings
) -> set[str] | None:
    """Returns the paths of all targeted modules, or None when the configuration has a pattern.

    Args:
        config: names the targets.
        modules: linear layers of the base model.
        findings: receives a fault when nothing is targeted, and a warning per name without effect.
    """
    targets, excluded = config.target_modules, config.exclude_modules
    if targets is None or excluded is None:
        return None
    if not targets:
        findings.fault(Reason.NO_TARGETS, f"{ADAPTER_CONFIG}#target_modules", "names no module")
        return None
    named = {module for module in modules if _is_target(module, targets, config)}
    expected = {module for module in named if not _ends_with(module, excluded)}
    if not expected:
        message = "none of the named modules is a linear layer of the base model"
        findings.fault(Reason.NO_TARGETS, f"{ADAPTER_CONFIG}#target_modules", message)
    for target in targets:
        if expected and not any(_ends_with(module, (target,)) for module in modules):
            message = f"{target} is no linear layer of the base model and has no effect"
            findings.warn(Reason.TARGET_UNMATCHED, f"{ADAPTER_CONFIG}#target_modules", message)
    return expected


def _is_target(module: str, targets: tuple[str, ...], config: AdapterConfig) -> bool:
    if module in targets:
        return True
    if not _ends_with(module, targets):
        return False
    return config.layers is None or _layer_number(module, config.layers_pattern) in config.layers


def _ends_with(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _layer_number(module: str, layer_names: tuple[str, ...]) -> int | None:
    """Returns the first number in a path that follows one of the names, or any name but the first."""
    parts = module.split(".")
    for position, part in enumerate(parts[:-1]):
        if part.isdecimal():
            before = parts[position - 1] if position else ""
            if before in layer_names or (not layer_names and position >= 2):
                return int(part)
    return None
