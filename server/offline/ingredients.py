"""Published versions, each with its factor, that something is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_safetensors

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.lineage import QuantizationSpec
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_config import AdapterConfig, parse_adapter_config
from switchyard.server.engine.types import AdapterPart, Digest
from switchyard.server.errors import BaseMismatch


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One version, with its factor.

    Attributes:
        version: as published.
        weight: factor of its update.
        config: what its configuration says.
    """

    version: VersionRecord
    weight: float
    config: AdapterConfig

    @property
    def ref(self) -> str:
        """The version by name and number."""
        return f"{self.version.name}:{self.version.version}"

    @property
    def part(self) -> AdapterPart:
        """The version as a server selects it."""
        version = self.version
        weights = version.file(ADAPTER_WEIGHTS)
        return AdapterPart(
            namespace=version.namespace,
            adapter=version.adapter,
            version=version.version,
            digest=Digest(version.digest),
            alias="",
            alias_generation=0,
            weight=self.weight,
            rank=version.shape.rank,
            weights_digest=weights.digest,
            config_digest=version.file(ADAPTER_CONFIG).digest,
            weights_bytes=weights.size_bytes,
            features=version.shape.features,
        )

    def tensors(self, registry: Registry) -> dict[str, torch.Tensor]:
        """Its tensors by name, from verified bytes."""
        found: dict[str, torch.Tensor] = load_safetensors(
            registry.read_blob(self.version.file(ADAPTER_WEIGHTS).digest)
        )
        return found


def gather(registry: Registry, wanted: Sequence[tuple[str, float]]) -> tuple[Ingredient, ...]:
    """Resolves refs with factors.

    Raises:
        RegistryError: a ref names nothing that may be used.
        ArgumentInvalid: a version is named twice.
        BaseMismatch: the versions belong to several base models.
    """
    found: list[Ingredient] = []
    for ref, weight in wanted:
        version = registry.resolve(AdapterRef.parse(ref)).version
        config = parse_adapter_config(registry.read_blob(version.file(ADAPTER_CONFIG).digest))
        found.append(Ingredient(version, weight, config))
    if not found:
        raise ArgumentInvalid("no version is named; name one or more as REF or REF=WEIGHT")
    digests = [one.version.digest for one in found]
    for one in found:
        if digests.count(one.version.digest) > 1:
            raise ArgumentInvalid(f"{one.ref} is named twice; name it once, with the sum of the weights")
    bases = {one.version.base.digest: one for one in found}
    if len(bases) > 1:
        listed = ", ".join(f"{one.ref} is for {one.version.base.name} ({digest})" for digest, one in bases.items())
        raise BaseMismatch(f"versions of several base models cannot become one: {listed}")
    return tuple(found)


def common_quantization(ingredients: Sequence[Ingredient]) -> QuantizationSpec | None:
    """How the base was quantised when all of them were trained; None when they differ or do not say."""
    found = {one.version.lineage.training_quantization for one in ingredients}
    return found.pop() if len(found) == 1 else None
