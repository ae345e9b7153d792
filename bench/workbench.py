"""What every benchmark here needs: a random base, random adapters, and the product's own engine on them."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.server.adapters.composition import single
from switchyard.server.config import ServerConfig
from switchyard.server.engine.types import (
    AdapterPart,
    AdapterSelection,
    Digest,
    Event,
    GenerateRequest,
    SamplingParams,
    StoppingParams,
)
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.main import MonotonicClock, ServingCore, Surroundings, build_core
from switchyard.server.observe.metrics import Metrics
from switchyard.server.rpc.live import LiveWork

VOCAB = 2048


@dataclass(frozen=True, slots=True)
class Shape:
    """A random Llama: name, sizes, and the rank of its adapters."""

    name: str
    hidden: int
    layers: int
    rank: int


def machine() -> str:
    """The processor and the versions that a result depends on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    libraries = " · ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, one thread · {libraries}"


def make_base(directory: Path, shape: Shape) -> Path:
    """A random base with a tokenizer of numbers, in float32 safetensors."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 11 // 4 // 64 * 64,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({str(n): n for n in range(VOCAB)}, unk_token="3"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", bos_token="1", eos_token="2").save_pretrained(  # noqa: S106
        directory
    )
    return directory


def make_adapters(base: Path, directory: Path, shape: Shape, count: int) -> list[Path]:
    """Random adapters on all linear layers, as PEFT saves them."""
    model = LlamaForCausalLM.from_pretrained(base)
    config = LoraConfig(r=shape.rank, lora_alpha=2 * shape.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config)
    paths = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
        paths.append(directory / f"a{index}")
        wrapped.save_pretrained(str(paths[-1]))
    return paths


class _Sink:
    def put(self, event: Event) -> None:
        """Counts nothing: the engine's own records are enough."""


async def _core(config: ServerConfig, registry: Registry) -> ServingCore:
    """The product's core; its stop switch wants an event loop, which is not used further."""
    pool = ThreadPoolExecutor(1)
    return build_core(
        Surroundings(
            config=config,
            registry=registry,
            metrics=Metrics(),
            clock=MonotonicClock(),
            live=LiveWork(),
            switch=StopSwitch(config.drain_grace_s),
            registry_pool=pool,
            tokenizer_pool=pool,
        )
    )


class Bench:
    """The product's engine on a registry with published adapters, stepped in this thread."""

    def __init__(self, base: Path, adapters: Sequence[Path], root: Path, sequences: int) -> None:
        self._registry = Registry.open(root)
        spec = self._registry.register_base(describe_base(base))
        for path in adapters:
            self._registry.publish(AdapterName.parse(path.name), path, base_digest=spec.digest, publisher="bench")
        config = ServerConfig(
            base=str(base),
            registry=root,
            threads=1,
            max_sequences=sequences,
            adapter_slots=max(1, len(adapters)),
            prefill_chunk_tokens=512,
        )
        self._core = asyncio.run(_core(config, self._registry))
        self._selections = [self._selection(path.name) for path in adapters]
        self._count = 0

    def generate(self, prompts: torch.Tensor, row_adapters: Sequence[int | None], tokens: int) -> float:
        """CPU seconds for one batch; `prompts` is [B, S] int64, None asks for the base."""
        began = time.process_time()
        for prompt, adapter in zip(prompts.tolist(), row_adapters, strict=True):
            self._count += 1
            request = GenerateRequest(
                request_id=f"r{self._count}",
                prompt_tokens=tuple(prompt),
                adapter=None if adapter is None else self._selections[adapter],
                sampling=SamplingParams(),
                stopping=StoppingParams(tokens, ignore_eos=True),
            )
            self._core.engine.submit_to(request, _Sink())
        while self._core.engine.step().slices or self._core.engine.load().waiting_requests:
            pass
        return time.process_time() - began

    def close(self) -> None:
        """Stops the loader threads and closes the registry."""
        self._core.host.close()
        self._registry.close()

    def _selection(self, name: str) -> AdapterSelection:
        version_ = self._registry.resolve(AdapterRef.parse(f"{name}:1")).version
        files = {file.path: file for file in version_.files}
        weights = files["adapter_model.safetensors"]
        return single(
            AdapterPart(
                namespace=version_.namespace,
                adapter=version_.adapter,
                version=version_.version,
                digest=Digest(version_.digest),
                alias="",
                alias_generation=0,
                weight=1.0,
                rank=version_.shape.rank,
                weights_digest=weights.digest,
                config_digest=files["adapter_config.json"].digest,
                weights_bytes=weights.size_bytes,
            )
        )
