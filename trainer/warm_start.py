"""Warm start: a published version's weights are where training begins, and the version becomes a parent.

Owns how a version gets here, that it fits, and its way into the model. What it is called is resolved once; from then
on it is its digest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import RegistryError
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import Fault, StartUnusable
from switchyard.trainer.export import CONFIG_FILE, WEIGHTS_FILE
from switchyard.trainer.recipe import StartSection

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

_SCALING: Final = {"lora_alpha": "lora.alpha", "use_rslora": "lora.rslora", "alpha_pattern": "lora.alpha_pattern"}
"""What decides an update beside its factors: PEFT's key and the recipe's."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A version to begin with.

    Attributes:
        ref: As the recipe names it.
        digest: Identity of the version.
        base_digest: Identity of its base.
        config: PEFT's description of it.
        weights: Content of its weight file.
    """

    ref: str
    digest: str
    base_digest: str
    config: Mapping[str, object]
    weights: bytes


def fetch_start(section: StartSection) -> WarmStart | None:
    """Fetches the version that a recipe begins with.

    Raises:
        StartUnusable: If there is no such version, or the registry cannot be reached.
    """
    from switchyard.clients.errors import ClientError

    if section.version is None:
        return None
    with tempfile.TemporaryDirectory(prefix="switchyard-start-") as scratch:
        directory = Path(scratch) / "version"
        try:
            digest, base = _pull(section, section.version, directory)
            config = json.loads((directory / CONFIG_FILE).read_bytes())
            weights = (directory / WEIGHTS_FILE).read_bytes()
        except (RegistryError, ClientError, OSError) as error:
            place = section.registry or section.server
            raise StartUnusable(f"cannot begin with {section.version} of {place}: {error}", []) from error
    return WarmStart(section.version, digest, base, config, weights)


def _pull(section: StartSection, ref: str, directory: Path) -> tuple[str, str]:
    """Writes a version's files; returns its digest and its base's."""
    from switchyard.clients.registry import RegistryClient

    if section.registry is not None:
        # Opening makes a registry where there is none.
        if not section.registry.exists():
            raise FileNotFoundError(f"there is no registry in {section.registry}")
        with Registry.open(section.registry) as registry:
            record = registry.pull(AdapterRef.parse(ref), directory)
        return record.digest, record.base.digest
    with RegistryClient(str(section.server)) as client:
        version = client.pull(ref, directory)
    return version.digest, version.base_model.digest


def begin_with(model: PeftModel, start: WarmStart, base: BaseModelSpec) -> None:
    """Gives the adapter of a model the weights of a version.

    Args:
        model: The model with its fresh adapter; its parameters keep their types.
        start: The version.
        base: The base of the model.

    Raises:
        StartUnusable: If the version is of another base or shape; lists everything that differs, changes nothing.
    """
    import safetensors.torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = safetensors.torch.load(start.weights)
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)
    faults = _base_faults(start, base) + _scaling_faults(start, model) + _shape_faults(weights, fresh)
    if faults:
        raise StartUnusable(f"the recipe cannot begin with {start.ref} ({start.digest}):", faults)
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    set_peft_model_state_dict(model, weights)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(types[name])


def _base_faults(start: WarmStart, base: BaseModelSpec) -> list[Fault]:
    if start.base_digest == base.digest:
        return []
    return [Fault("base", f"is {base.name} ({base.digest}), the version was made for {start.base_digest}")]


def _scaling_faults(start: WarmStart, model: PeftModel) -> list[Fault]:
    ours = model.peft_config["default"].to_dict()
    return [
        Fault(key, f"is {ours.get(name)}, the version has {start.config.get(name)}")
        for name, key in _SCALING.items()
        if (ours.get(name) or 0) != (start.config.get(name) or 0)
    ]


def _shape_faults(weights: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]) -> list[Fault]:
    """Compares names and shapes; the first of each kind speaks for the others."""
    faults = []
    other = [name for name in fresh if name in weights and fresh[name].shape != weights[name].shape]
    if other:
        name = other[0]
        faults.append(
            Fault(
                "lora.r",
                f"{len(other)} tensors have other shapes: {name} is {tuple(fresh[name].shape)}, the version has "
                f"{tuple(weights[name].shape)}",
            )
        )
    for said, names in (
        ("the version has not", sorted(fresh.keys() - weights.keys())),
        ("the recipe has not", sorted(weights.keys() - fresh.keys())),
    ):
        if names:
            faults.append(Fault("lora.targets", f"{len(names)} tensors {said}, first {names[0]}"))
    return faults
