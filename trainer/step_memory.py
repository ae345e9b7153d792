"""What one training step allocates, found out without doing its arithmetic.

Owns the rehearsal of a step: the base is built on torch's meta device, where tensors have shapes and no bytes,
gains the adapter, and runs forward and backward with TRL's own loss, while the storages that are alive are
counted. So every architecture is known that transformers knows, and no formula per layer has to be kept true.
"""

from __future__ import annotations

import dataclasses
import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from switchyard.trainer.errors import BaseUnusable

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

LOGIT_COLUMNS: Final = 32768
"""Columns of the output head that TRL's loss computes at a time."""


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What a model and one step on it hold.

    Attributes:
        quantized_parameters: Parameters of the linear layers that are stored in 4 or 8 bits.
        other_bytes: Bytes of the base's other parameters and buffers.
        trainable_parameters: Parameters of the adapter.
        base_parameters: Parameters of the base.
        peak_bytes: Most that was alive at once beside the weights: activations, gradients, and what operations need.
        gradient_bytes: Gradients of the adapter after the backward pass, a part of `peak_bytes`.
        trained_shapes: Shape of each trained tensor.
    """

    quantized_parameters: int
    other_bytes: int
    trainable_parameters: int
    base_parameters: int
    peak_bytes: int
    gradient_bytes: int
    trained_shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class StepShape:
    """What decides the size of a step.

    Attributes:
        batch: Rows per forward pass.
        tokens: Tokens of the longest row.
        compute_dtype: torch's name of the type of the arithmetic.
        adapter_dtype: torch's name of the adapter's type.
        is_quantized: Whether linear layers are dequantised where they are used.
        recomputes: Whether activations are computed again in the backward pass.
        has_reference: Whether the base without its adapter is asked while the activations are kept.
    """

    batch: int
    tokens: int
    compute_dtype: str
    adapter_dtype: str
    is_quantized: bool
    recomputes: bool
    has_reference: bool = False


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations made and that are still alive.

    Attributes:
        now_bytes: Alive at this moment.
        peak_bytes: The most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes = 0
        self.peak_bytes = 0
        self._known: set[int] = set()

    def exclude(self, tensors: Sequence[torch.Tensor]) -> None:
        """Leaves tensors out that were there before."""
        self._known.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def __torch_dispatch__(
        self,
        operation: Callable[..., object],
        types: Sequence[type],
        arguments: Sequence[object] = (),
        named: Mapping[str, object] | None = None,
    ) -> object:
        """Runs an operation and takes its new storages into account."""
        made = operation(*arguments, **(named or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size_bytes = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        weakref.finalize(storage, self._forget, key, size_bytes)

    def _forget(self, key: int, size_bytes: int) -> None:
        self._known.discard(key)
        self.now_bytes -= size_bytes


class _FusedAttention(TorchFunctionMode):
    """Attention as the CPU's kernel does it; on the meta device torch would write the scores out."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: Sequence[object] = (),
        named: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(named or {})
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*arguments, **named)
        query, key, value = (one for one in arguments if isinstance(one, torch.Tensor))
        mask = named.get("attn_mask")
        if isinstance(mask, torch.Tensor) and mask.dtype is torch.bool:
            mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, mask is None, attn_mask=mask, scale=named.get("scale")
        )[0]


class _Dequantised(torch.autograd.Function):
    """The product with a 4-bit weight: [N, in] to [N, out], the weight at full size in both directions."""

    @staticmethod
    def forward(
        context: object, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        context.weight = weight  # type: ignore[attr-defined]
        return torch.nn.functional.linear(inputs, torch.empty_like(weight), bias)

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.matmul(gradient, torch.empty_like(context.weight)), None, None  # type: ignore[attr-defined]


class _QuantizedLinear(torch.nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _Dequantised.apply(inputs, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


def rehearse(directory: Path, adapter: PeftConfig, shape: StepShape) -> StepMemory:
    """Runs one step on the meta device.

    Args:
        directory: Base model; only config.json is read.
        adapter: What PEFT is to add.
        shape: Size of the step.

    Raises:
        BaseUnusable: If transformers cannot build the model, or it does not run on the meta device.
    """
    try:
        with torch.device("meta"):
            model = _build(directory, shape)
            quantized = _mark_quantized(model) if shape.is_quantized else 0
            base_parameters = sum(one.numel() for one in model.parameters())
            other = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
            other -= quantized * getattr(torch, shape.compute_dtype).itemsize
            adapted = _with_adapter(model, adapter, shape)
        live = _step(adapted, shape)
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, TypeError) as error:
        raise BaseUnusable(f"cannot work out the memory of the base model in {directory}: {error}") from error
    trained = [one for one in adapted.parameters() if one.requires_grad]
    return StepMemory(
        quantized_parameters=quantized,
        other_bytes=other,
        trainable_parameters=sum(one.numel() for one in trained),
        base_parameters=base_parameters,
        peak_bytes=live.peak_bytes,
        gradient_bytes=sum(one.nbytes for one in trained),
        trained_shapes=tuple(tuple(one.shape) for one in trained),
    )


def _build(directory: Path, shape: StepShape) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    dtype: torch.dtype = getattr(torch, shape.compute_dtype)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.config.use_cache = False
    return model


def _mark_quantized(model: PreTrainedModel) -> int:
    """Makes every linear layer but the head one of 4 bits; returns their number of weights."""
    head = model.get_output_embeddings()
    layers = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    for layer in layers:
        layer.__class__ = _QuantizedLinear
    return sum(layer.weight.numel() for layer in layers)


def _with_adapter(model: PreTrainedModel, adapter: PeftConfig, shape: StepShape) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    if shape.recomputes:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    # Where factors begin needs numbers; their shapes do not.
    if isinstance(adapter, LoraConfig):
        adapter = dataclasses.replace(adapter, init_lora_weights=True, eva_config=None)
    adapted: torch.nn.Module = get_peft_model(model, adapter)
    for one in adapted.parameters():
        if one.requires_grad:
            one.data = one.data.to(getattr(torch, shape.adapter_dtype))
    return adapted.train()


def _pretend(adapted: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Makes the tensors of a model pass for the CPU's, so that operations choose what they choose there."""
    made: dict[int, torch.Tensor] = {}
    for module in adapted.modules():
        for name, one in module._parameters.items():
            if one is not None:
                fake = made.setdefault(id(one), FakeTensor(mode, one.data, torch.device("cpu")))
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=one.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = FakeTensor(mode, buffer, torch.device("cpu"))


def _step(adapted: torch.nn.Module, shape: StepShape) -> LiveBytes:
    live = LiveBytes()
    compute: torch.dtype = getattr(torch, shape.compute_dtype)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _pretend(adapted, mode)
        live.exclude([*adapted.parameters(), *adapted.buffers()])
        with _FusedAttention(), live:
            with torch.autocast("cpu", compute, enabled=compute is not torch.float32):
                loss = _loss(adapted, shape)
                if shape.has_reference:
                    with torch.no_grad(), adapted.disable_adapter():  # type: ignore[operator]
                        _loss(adapted, shape)
            loss.backward()  # type: ignore[no-untyped-call]
    return live


def _loss(adapted: torch.nn.Module, shape: StepShape) -> torch.Tensor:
    """Runs the backbone and TRL's loss, as `SFTTrainer` does.

    Returns:
        A scalar.
    """
    from trl.kernels import ChunkedLogProbFunction

    model = adapted.get_base_model()  # type: ignore[operator]
    tokens = torch.zeros(shape.batch, shape.tokens, dtype=torch.long)
    backbone = model.base_model
    # Rows differ in length, so the mask is written out; a base without positions counts them from a plain one.
    takes_positions = "position_ids" in inspect.signature(backbone.forward).parameters
    asked, length = _inputs(adapted, tokens)
    square = (shape.batch, 1, length, length)
    mask = torch.ones(square if takes_positions else (shape.batch, length), dtype=torch.bool)
    hidden = backbone(**asked, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    head = model.get_output_embeddings()
    # Columns beyond the vocabulary are reserved and never written.
    columns = min(LOGIT_COLUMNS, head.weight.shape[0])
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = torch.zeros(hidden.shape[0], dtype=torch.long)
    scores, *_ = ChunkedLogProbFunction.apply(
        hidden, head.weight, head.bias, targets, 1.0, columns, None, 1.0, ("entropy", "is_top1")
    )
    loss: torch.Tensor = -scores.sum()
    return loss


def _inputs(adapted: torch.nn.Module, tokens: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """Returns what the backbone is given for tokens [B, T], and its length: virtual tokens come before the others."""
    if not adapted.active_peft_config.is_prompt_learning:  # type: ignore[union-attr]
        return {"input_ids": tokens}, tokens.shape[1]
    prompts = adapted.get_prompt(batch_size=len(tokens))  # type: ignore[operator]
    rows = torch.cat([prompts, adapted.word_embeddings(tokens).to(prompts.dtype)], dim=1)  # type: ignore[operator]
    return {"inputs_embeds": rows}, rows.shape[1]
