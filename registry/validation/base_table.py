"""What an adapter can reach in a base model: its linear layers, embedding, output head and biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HEAD = "lm_head"
"""Path of the output head, in every model of transformers that is served."""


@dataclass(frozen=True, slots=True)
class BaseTable:
    """Paths and shapes of a base model.

    Attributes:
        modules: path of each linear layer of a block to (in_features, out_features).
        tensors: shape of embedding, head and biases, by parameter name; see `BaseModelSpec.tensors`.
    """

    modules: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Linear layers of the blocks and the output head to (in_features, out_features)."""
        head = self.tensors.get(f"{HEAD}.weight")
        return self.modules if head is None else {**self.modules, HEAD: (head[1], head[0])}

    @property
    def embeddings(self) -> Mapping[str, tuple[int, int]]:
        """Path of the embedding to (entries, width)."""
        weights = {name.removesuffix(".weight"): shape for name, shape in self.tensors.items() if len(shape) == 2}
        return {module: (shape[0], shape[1]) for module, shape in weights.items() if module != HEAD}

    @property
    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """Everything that can have factors: path to the widths that A takes and B gives."""
        return {**self.linears, **self.embeddings}

    @property
    def copyable(self) -> tuple[str, ...]:
        """Paths of what a version may carry a whole copy of."""
        return (*self.embeddings, *((HEAD,) if f"{HEAD}.weight" in self.tensors else ()))

    def parameters_of(self, module: str) -> tuple[str, ...]:
        """Names of the parameters of a module that may be copied, those that the base has."""
        return tuple(name for name in (f"{module}.weight", f"{module}.bias") if name in self.tensors)

    @property
    def biased(self) -> frozenset[str]:
        """Paths of the modules that add a bias."""
        return frozenset(name.removesuffix(".bias") for name in self.tensors if name.endswith(".bias"))
