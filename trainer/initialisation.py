"""Where an adapter's factors begin, and how a beginning that changed the base is taken out again.

Owns the initialisations that need more than PEFT's constructor, and the way back to plain LoRA. PiSSA and OLoRA move
a part of each weight into the factors, so what they end as fits no base but the one that they left behind. With the
first factors A0, B0 and the last ones A, B, and s = alpha / r, the whole change of W is

    s (B A - B0 A0) = s [B | -B0] [A ; A0]

which is a plain adapter of twice the rank on the unchanged base (Meng et al., "PiSSA", 2024, appendix C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from switchyard.trainer.errors import BaseUnusable
from switchyard.trainer.recipe import LoraInit

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER: Final = "default"
"""PEFT's name of the only adapter of a model."""

Factors = Mapping[str, torch.Tensor]
"""Tensors of an adapter by their names in its file."""


def initialise(
    model: PeftModel, init: LoraInit, base: Path, batches: Callable[[], Iterable[Mapping[str, torch.Tensor]]]
) -> Factors | None:
    """Finishes the initialisation of an adapter that PEFT has just made.

    Args:
        model: The model with its adapter, before any step; changed in place.
        init: What the recipe asks for.
        base: Directory of the base's original weights.
        batches: Makes training batches, for `eva` only.

    Returns:
        The first factors where they are to be taken out of the trained ones, else None.

    Raises:
        BaseUnusable: If an original weight cannot be found.
    """
    match init:
        case LoraInit.EVA:
            _begin_with_inputs(model, batches())
        case LoraInit.LOFTQ:
            _begin_with_error(model, OriginalWeights(base))
        case LoraInit.PISSA | LoraInit.OLORA:
            return {name: tensor.detach().clone() for name, tensor in _factors(model).items()}
        case LoraInit.DEFAULT | LoraInit.GAUSSIAN:
            pass
    return None


def plain_weights(weights: Factors, first: Factors) -> dict[str, torch.Tensor]:
    """Returns the factors of twice the rank that change the original base as `weights` change the one it became.

    Args:
        weights: Trained factors: A of shape [r, in] and B of shape [out, r]; biases stay as they are.
        first: What A and B began as.
    """
    joined = dict(weights)
    for name, tensor in weights.items():
        if ".lora_A." in name:
            joined[name] = torch.cat([tensor, first[name].to(tensor)], dim=0)
        elif ".lora_B." in name:
            joined[name] = torch.cat([tensor, -first[name].to(tensor)], dim=1)
    return joined


def plain_config(config: Mapping[str, object]) -> dict[str, object]:
    """Returns the configuration of an adapter of twice the rank and the same scaling."""
    # The scaling is alpha / r, or alpha / sqrt(r) where it is rank-stabilised.
    factor = 2**0.5 if config["use_rslora"] else 2
    ranks, alphas = config["rank_pattern"] or {}, config["alpha_pattern"] or {}
    return {
        **config,
        "r": 2 * config["r"],  # type: ignore[operator]
        "lora_alpha": factor * config["lora_alpha"],  # type: ignore[operator]
        "rank_pattern": {name: 2 * rank for name, rank in ranks.items()},  # type: ignore[attr-defined]
        "alpha_pattern": {name: factor * alpha for name, alpha in alphas.items()},  # type: ignore[attr-defined]
    }


def _factors(model: PeftModel) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def _begin_with_inputs(model: PeftModel, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """A becomes the main directions of what each layer is given (Paischer et al., "EVA", 2024)."""
    from peft import initialize_lora_eva_weights

    was_training = model.training
    with torch.random.fork_rng():
        initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    model.train(was_training)


@torch.no_grad()
def _begin_with_error(model: PeftModel, originals: OriginalWeights) -> None:
    """The factors become the best low-rank image of what quantisation lost.

    One step of the alternation of Li et al., "LoftQ", 2023: the quantised weight stays what the server has. PEFT's
    own function leaves the scaling out and wants a GPU.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        kept = dequantize_module_weight(layer.get_base_layer()).to(torch.float32)
        error = originals.weight(name, kept.shape).to(kept) - kept
        rank, scaling = layer.r[ADAPTER], layer.scaling[ADAPTER]
        left, values, right = torch.linalg.svd(error, full_matrices=False)
        root = (values[:rank] / scaling).sqrt()
        layer.lora_A[ADAPTER].weight.copy_(root[:, None] * right[:rank])
        layer.lora_B[ADAPTER].weight.copy_(left[:, :rank] * root)


@dataclass(frozen=True, slots=True)
class OriginalWeights:
    """The weights of a base model as its files have them, one at a time.

    Attributes:
        directory: With *.safetensors.
    """

    directory: Path

    def weight(self, module: str, shape: torch.Size) -> torch.Tensor:
        """Returns the weight of a linear layer, [out, in], in the type of the file.

        Args:
            module: Path in the model. A file may lack the first part of it, where it holds the body alone.
            shape: What the weight must have; the other way round in files of transformers' Conv1D.

        Raises:
            BaseUnusable: If no file has it.
        """
        from safetensors import safe_open

        wanted = f"{module}.weight"
        for path in sorted(self.directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                name = next((one for one in file.keys() if wanted == one or wanted.endswith(f".{one}")), None)  # noqa: SIM118
                tensor: torch.Tensor | None = file.get_tensor(name) if name is not None else None
            if tensor is None:
                continue
            if tensor.shape == shape:
                return tensor
            if tensor.T.shape == shape:
                return tensor.T
        raise BaseUnusable(
            f"{self.directory} has no weight {wanted} of shape {tuple(shape)}, which lora.init: loftq starts from; "
            "give another lora.init"
        )
