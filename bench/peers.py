"""What a user could pick instead, at its best setting: PEFT on the same NF4 base."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


class PeftPeer:
    """transformers + PEFT: one adapter, a mixed batch by `adapter_names`, or switching between batches.

    Adapters are kept in float32, which is PEFT's default and the faster choice on CPUs for small ranks.
    """

    def __init__(self, base: Path, adapters: Sequence[Path], attention: str) -> None:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        model = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=torch.float32,
            device_map={"": "cpu"},
            quantization_config=quantization,
            attn_implementation=attention,
        )
        self.names = [f"a{index}" for index in range(len(adapters))]
        self.model = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=self.names[0])
        for name, adapter in zip(self.names[1:], adapters[1:], strict=True):
            self.model.load_adapter(str(adapter), adapter_name=name)
        self.model.eval()

    def mixed(self, prompts: torch.Tensor, row_adapters: Sequence[int], tokens: int) -> float:
        """CPU seconds for one mixed batch; `prompts` is [B, S] int64."""
        names = [self.names[index] for index in row_adapters]
        return self._timed(prompts, tokens, adapter_names=names)

    def single(self, prompts: torch.Tensor, adapter: int, tokens: int) -> float:
        """CPU seconds for a batch with one active adapter."""
        self.model.set_adapter(self.names[adapter])
        return self._timed(prompts, tokens)

    def switching(self, prompts: torch.Tensor, row_adapters: Sequence[int], tokens: int) -> float:
        """CPU seconds for one sub-batch per adapter, switching in between."""
        total = 0.0
        for adapter in sorted(set(row_adapters)):
            rows = [row for row, own in enumerate(row_adapters) if own == adapter]
            began = time.process_time()
            self.model.set_adapter(self.names[adapter])
            total += time.process_time() - began + self._timed(prompts[rows], tokens)
        return total

    def _timed(self, prompts: torch.Tensor, tokens: int, **kwargs: object) -> float:
        began = time.process_time()
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
        return time.process_time() - began
