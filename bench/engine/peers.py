"""What a user could pick instead, at its best setting: PEFT on the same NF4 base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from switchyard.server.measure.spent import Spent


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run PEFT.

    Attributes:
        attention: transformers' name of the attention.
        dtype: of activations and of what is not quantised.
    """

    attention: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.attention}, {str(self.dtype).removeprefix('torch.')}"


SETTINGS = tuple(
    Setting(attention, dtype) for dtype in (torch.float32, torch.bfloat16) for attention in ("sdpa", "eager")
)


class PeftPeer:
    """transformers + PEFT: one adapter, a mixed batch by `adapter_names`, or switching between batches.

    PEFT keeps adapters in float32 unless told otherwise, which is the faster choice on CPUs for small ranks.
    """

    def __init__(self, base: Path, adapters: Sequence[Path], setting: Setting) -> None:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=setting.dtype,
        )
        model = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=setting.dtype,
            device_map={"": "cpu"},
            quantization_config=quantization,
            attn_implementation=setting.attention,
        )
        self.names = [f"a{index}" for index in range(len(adapters))]
        self.model = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=self.names[0])
        for name, adapter in zip(self.names[1:], adapters[1:], strict=True):
            self.model.load_adapter(str(adapter), adapter_name=name)
        self.model.eval()

    def mixed(self, prompts: torch.Tensor, rows: Sequence[int], tokens: int) -> Spent:
        """Decode of one mixed batch; `prompts` is [B, S] int64."""
        return self._decoded(partial(self._mixed, prompts, rows), tokens)

    def single(self, prompts: torch.Tensor, rows: Sequence[int], tokens: int) -> Spent:
        """Decode of a batch with one active adapter, the first row's."""
        self.model.set_adapter(self.names[rows[0]])
        return self._decoded(partial(self._generate, prompts), tokens)

    def switching(self, prompts: torch.Tensor, rows: Sequence[int], tokens: int) -> Spent:
        """Decode of one sub-batch per adapter, switching in between."""
        return self._decoded(partial(self._switched, prompts, rows), tokens)

    def _decoded(self, run: Callable[[int], None], tokens: int) -> Spent:
        """Time of `tokens` steps after the first token: prefill is timed alone and taken off."""
        began = Spent.now()
        run(1)
        first = Spent.now()
        run(1 + tokens)
        whole, prefill = Spent.now().since(first), first.since(began)
        return Spent(whole.cpu_s - prefill.cpu_s, whole.wall_s - prefill.wall_s)

    def _mixed(self, prompts: torch.Tensor, rows: Sequence[int], tokens: int) -> None:
        self._generate(prompts, tokens, adapter_names=[self.names[index] for index in rows])

    def _switched(self, prompts: torch.Tensor, rows: Sequence[int], tokens: int) -> None:
        for adapter in sorted(set(rows)):
            self.model.set_adapter(self.names[adapter])
            self._generate(prompts[[row for row, own in enumerate(rows) if own == adapter]], tokens)

    def _generate(self, prompts: torch.Tensor, tokens: int, **kwargs: object) -> None:
        with torch.inference_mode():
            self.model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
                **kwargs,
            )
