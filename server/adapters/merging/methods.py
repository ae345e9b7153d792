"""The combination types of PEFT on lists of tensors of one shape.

Each does what the function of the same name in `peft.utils.merge_utils` (0.21)
does. Sums run over the adapters one after the other, so that their order of
rounding is written here and not chosen by a library.

Sources: ties https://arxiv.org/abs/2306.01708, dare https://arxiv.org/abs/2311.03099.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters of a method.

    Attributes:
        density: fraction of the values that is kept, above 0 and at most 1.
        majority_sign: `total` or `frequency`.
        generator: what `dare` draws from.
    """

    density: float = 1.0
    majority_sign: str = "total"
    generator: torch.Generator | None = None


def linear(tensors: Tensors, weights: Sequence[float], choice: Choice) -> torch.Tensor:
    """The weighted sum."""
    del choice
    return _sum(_weighted(tensors, weights))


def magnitude_prune(tensors: Tensors, weights: Sequence[float], choice: Choice) -> torch.Tensor:
    """The weighted sum of the largest values of each."""
    return _sum(_weighted([_largest(tensor, choice.density) for tensor in tensors], weights))


def ties(tensors: Tensors, weights: Sequence[float], choice: Choice) -> torch.Tensor:
    """The weighted mean of the largest values of each, over those that have the elected sign."""
    return _elected([_largest(tensor, choice.density) for tensor in tensors], weights, choice.majority_sign)


def dare_linear(tensors: Tensors, weights: Sequence[float], choice: Choice) -> torch.Tensor:
    """The weighted sum of randomly chosen values of each, scaled up to the same expectation."""
    return _sum(_weighted([_chosen(tensor, choice) for tensor in tensors], weights))


def dare_ties(tensors: Tensors, weights: Sequence[float], choice: Choice) -> torch.Tensor:
    """Like `ties`, of randomly chosen values."""
    return _elected([_chosen(tensor, choice) for tensor in tensors], weights, choice.majority_sign)


METHODS: dict[str, Callable[[Tensors, Sequence[float], Choice], torch.Tensor]] = {
    "linear": linear,
    "magnitude_prune": magnitude_prune,
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
}
"""By the names of PEFT's combination types."""


def _weighted(tensors: Tensors, weights: Sequence[float]) -> list[torch.Tensor]:
    return [
        tensor * torch.tensor(weight, dtype=torch.float32) for tensor, weight in zip(tensors, weights, strict=True)
    ]


def _sum(tensors: Tensors) -> torch.Tensor:
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total


def _largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    if density >= 1:
        return tensor
    kept = torch.topk(tensor.abs().reshape(-1), k=int(density * tensor.numel()), largest=True).indices
    mask = torch.zeros_like(tensor).reshape(-1)
    mask[kept] = 1
    return tensor * mask.reshape(tensor.shape)


def _chosen(tensor: torch.Tensor, choice: Choice) -> torch.Tensor:
    if choice.density >= 1:
        return tensor
    mask = torch.bernoulli(torch.full_like(tensor, choice.density), generator=choice.generator)
    return tensor * mask / choice.density


def _elected(tensors: Tensors, weights: Sequence[float], majority_sign: str) -> torch.Tensor:
    signs = [tensor.sign() for tensor in tensors]
    votes = _sum(tensors if majority_sign == "total" else signs)
    elected = torch.where(votes >= 0, 1.0, -1.0)
    masks = [(sign == elected).float() for sign in signs]
    agreeing = [tensor * mask for tensor, mask in zip(_weighted(tensors, weights), masks, strict=True)]
    return _sum(agreeing) / _sum(masks).clamp(min=1.0)
