"""Sharding: each process holds a share of the frozen base, and a whole adapter.

Owns the cut (torch's `fully_shard`, FSDP2) and the mean of the adapter's gradients. The base is cut at its blocks:
the weights of one are gathered while it computes, in 4 bits as they are stored, and dropped behind it. The adapter is
small: every process holds it whole, with its optimizer's states, and its file and the checkpoints are those of one
process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn import Module, Parameter


def blocks_of(model: Module) -> list[Module]:
    """Returns the decoder blocks of a base: the children of its longest list of equal modules, in order.

    Args:
        model: The base, with an adapter or without.
    """
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and _is_uniform(module)]
    return list(max(lists, key=len, default=[]))


def _is_uniform(modules: torch.nn.ModuleList) -> bool:
    return len({type(module) for module in modules}) == 1


def share_base(model: Module, device: torch.device) -> None:
    """Leaves this process its share of every parameter that is not trained.

    Args:
        model: The base with its adapter; changed in place. It may lie in the machine's memory: each block goes to
            `device` by itself, so no GPU ever holds the whole.
        device: Where it computes.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for block in blocks_of(model):
        # `fully_shard` would leave the constants of 4-bit weights behind.
        block.to(device)
        fully_shard(block, mesh=mesh, ignored_params=trained)
    for module in model.modules():
        if not any(True for _ in module.children()) and not _is_cut(module):
            module.to(device)
    fully_shard(model, mesh=mesh, ignored_params=trained)


def _is_cut(module: Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in module.parameters(recurse=False))


def average_gradients(model: Module, is_last: Callable[[], bool]) -> None:
    """Makes every process's adapter take the mean of all gradients.

    Args:
        model: The base with its adapter.
        is_last: Tells whether the backward pass that runs is the last one of a step.
    """
    count = torch.distributed.get_world_size()

    def average(parameter: Parameter) -> None:
        if is_last() and parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= count

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]
