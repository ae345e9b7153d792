"""Layers that a server computes together from one input, where (IA)^3 gains on inputs have to agree.

The models of the Llama family are served with query, key and value as one
layer, and gate and up as another; a test holds this table to the server's.
"""

from __future__ import annotations

import os
from collections import defaultdict

from switchyard.registry.manifest import ADAPTER_WEIGHTS
from switchyard.registry.validation.gate import AdapterHeader
from switchyard.registry.verdicts import Findings, Reason

ARCHITECTURES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
"""Architectures whose layers are computed together."""

GROUPS: tuple[tuple[str, ...], ...] = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Last names of layers of one parent that have one input."""


def check_shared_inputs(fd: int, header: AdapterHeader, architecture: str, findings: Findings) -> None:
    """Records gains on inputs that could not be served.

    Args:
        fd: the weights file that `header` was read from.
        header: what it holds; its gains have the shapes of the base.
        architecture: of the base model; any other than those above has no such layers.
        findings: receives every fault.
    """
    if architecture not in ARCHITECTURES:
        return
    by_group: dict[tuple[str, tuple[str, ...]], dict[str, bytes]] = defaultdict(dict)
    for module, entry in header.gains.items():
        parent, _, last = module.rpartition(".")
        group = next((group for group in GROUPS if last in group), None)
        if group is not None and entry.shape[0] == 1:
            start = header.header.data_start_bytes + entry.start_bytes
            by_group[parent, group][last] = os.pread(fd, entry.stop_bytes - entry.start_bytes, start)
    for (parent, group), gains in sorted(by_group.items()):
        if set(gains) != set(group) or len(set(gains.values())) > 1:
            message = (
                f"(IA)3 gains the input of {', '.join(sorted(gains))}, but servers compute {', '.join(group)} from "
                "one input; only equal gains of all of them can be served"
            )
            findings.fault(Reason.FEATURE_UNSUPPORTED, f"{ADAPTER_WEIGHTS}#{parent}", message)
