"""Which modules an adapter's configuration targets in a base model.

The rules are those of `peft.tuners.tuners_utils.check_target_module_exists`
for plain names: a target is a whole module path or the end of one after a dot.
Where the configuration has a pattern instead of names there is no expectation,
and the tensors alone say what is adapted.
"""

from __future__ import annotations

from collections.abc import Iterable

from switchyard.registry.manifest import ADAPTER_CONFIG
from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.registry.validation.base_table import BaseTable
from switchyard.registry.validation.config_fields import IA3
from switchyard.registry.verdicts import Findings, Reason


def expected_modules(config: AdapterConfig, table: BaseTable, findings: Findings) -> set[str] | None:
    """Returns the paths of all targeted modules, or None when the configuration has a pattern.

    Args:
        config: names the targets.
        table: what the base model has; only linear layers can have (IA)^3 gains.
        findings: receives a fault when nothing is targeted, and a warning per name without effect.
    """
    targets, excluded = config.target_modules, config.exclude_modules
    if targets is None or excluded is None:
        return None
    if not targets:
        findings.fault(Reason.NO_TARGETS, f"{ADAPTER_CONFIG}#target_modules", "names no module")
        return None
    modules = table.linears if config.method == IA3 else table.adaptable
    named = {module for module in modules if _is_target(module, targets, config)}
    expected = {module for module in named if not (_ends_with(module, excluded) or _is_kept(module, config))}
    if not expected:
        message = "none of the named modules is a layer of the base model that can be adapted"
        findings.fault(Reason.NO_TARGETS, f"{ADAPTER_CONFIG}#target_modules", message)
    for target in targets:
        if expected and not any(_ends_with(module, (target,)) for module in modules):
            message = f"{target} is no layer of the base model that can be adapted, and has no effect"
            findings.warn(Reason.TARGET_UNMATCHED, f"{ADAPTER_CONFIG}#target_modules", message)
    return expected


def _is_target(module: str, targets: tuple[str, ...], config: AdapterConfig) -> bool:
    if module in targets:
        return True
    if not _ends_with(module, targets):
        return False
    return config.layers is None or _layer_number(module, config.layers_pattern) in config.layers


def _is_kept(module: str, config: AdapterConfig) -> bool:
    """Tells whether the module lies in one that is replaced as a whole; PEFT adapts nothing there."""
    return any(f".{name}." in f".{module}." for name in config.modules_to_save)


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
