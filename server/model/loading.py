"""Loading the base model once: a local directory or a hub id, in 4, 8 or 16 bits.

transformers reads and quantises the weights, exactly as the trainer does; then
they are taken out of its modules into our own structures, before anything has
run through them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.lineage import QuantizationSpec
from switchyard.server.errors import ArchitectureUnsupported, BaseUnreadable
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.context import context_limit
from switchyard.server.model.decoder import SlotTable
from switchyard.server.model.fingerprint import fingerprint
from switchyard.server.model.general.resident import require_causal, take_model
from switchyard.server.model.llama_family import take_weights, why_not_fast
from switchyard.server.model.quantization import AUTO, Quantization, choose_quantization, require_quantized
from switchyard.server.model.step_model import ResidentModel, StepModel
from switchyard.server.model.tokenizer import BaseTokenizer
from switchyard.server.native import library
from switchyard.server.observe.memory import return_freed

_log = logging.getLogger(__name__)

_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")

DEFAULT_SHADOW_BYTES = 256 << 20
"""Without the compiled kernels, dequantised copies of 4-bit weights are kept while they fit in this many bytes."""


class ModelPath(Enum):
    """Who computes the base: our decoder, or transformers' modules one sequence after the other."""

    AUTO = "auto"
    FAST = "fast"
    GENERAL = "general"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load the base.

    Attributes:
        quantization: `nf4` (with double quantisation), `int8` (LLM.int8), `none`, or `auto`; see `quantization.py`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for what the files hold.
        revision: branch, tag or commit of a hub id; None for its default branch.
        max_context_tokens: longest context to serve; None for what the model allows.
        shadow_bytes: most bytes for dequantised copies; see `DEFAULT_SHADOW_BYTES`.
        path: which of our model paths computes it; see `ModelPath`.
    """

    quantization: str = AUTO
    dtype: str = "auto"
    revision: str | None = None
    max_context_tokens: int | None = None
    shadow_bytes: int = DEFAULT_SHADOW_BYTES
    path: ModelPath = ModelPath.AUTO


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """The resident base model and what the server says about it.

    Attributes:
        spec: identity and module table, as registered.
        quantization: how the weights are held.
        resident: its weights.
        tokenizer: its tokenizer.
        max_context_tokens: longest context served.
        dtype: dtype of the embedding, the head and weights that are not quantised.
        shadowed: whether dequantised copies are kept.
    """

    spec: BaseModelSpec
    quantization: QuantizationSpec
    resident: ResidentModel
    tokenizer: BaseTokenizer
    max_context_tokens: int
    dtype: torch.dtype
    shadowed: bool

    @property
    def quantization_label(self) -> str:
        """The quantisation in one word, e.g. `nf4+double/float32`."""
        return self.quantization.label()

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.eos_token_ids

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory."""
        return self.resident.nbytes

    def fingerprint(self) -> str:
        """Digest over the resident weights as they are in memory now."""
        return fingerprint(self.resident.tensors())

    def step_model(self, rows: int, slots: SlotTable, add_lora: LoraBackend) -> StepModel:
        """The base ready to run; see `ResidentModel.serve`."""
        return self.resident.serve(rows, self.max_context_tokens, slots, add_lora)


def load_base(source: str, options: LoadOptions | None = None) -> LoadedBase:
    """Loads a base model.

    Args:
        source: a directory with config.json, safetensors and a tokenizer; or a hub id.
        options: how to load it.

    Raises:
        BaseUnreadable: it cannot be found or read.
        ArchitectureUnsupported: this model is not computed exactly here.
    """
    options = options or LoadOptions()
    directory = _local_directory(source, options.revision)
    spec = describe_base(directory, None if Path(source).is_dir() else source)
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    dtype = _dtype(options.dtype, config)
    quantization = choose_quantization(config, options.quantization)
    path = _path(config, quantization, options.path)
    shadow = quantization.method == "nf4" and library.load() is None and _wide_bytes(spec) <= options.shadow_bytes
    take = take_weights if path is ModelPath.FAST else take_model
    resident = take(_transformers_model(directory, dtype, quantization), dtype, shadow=shadow)
    # What transformers read and quantised is several times what is kept.
    return_freed()
    if path is ModelPath.FAST:
        _log.info(library.status())
    return LoadedBase(
        spec=spec,
        quantization=quantization.spec,
        resident=resident,
        tokenizer=BaseTokenizer.load(directory, _eos_token_ids(config), config.vocab_size),
        max_context_tokens=context_limit(config, options.max_context_tokens, windowed=path is ModelPath.GENERAL),
        dtype=dtype,
        shadowed=shadow,
    )


def _path(config: PreTrainedConfig, quantization: Quantization, asked: ModelPath) -> ModelPath:
    """The path for a model, which is refused here when neither computes it."""
    obstacle = why_not_fast(config, quantization)
    if asked is ModelPath.FAST and obstacle:
        raise ArchitectureUnsupported(f"the fast path does not compute this base: {obstacle}")
    if asked is ModelPath.GENERAL or obstacle:
        require_causal(config)
        return ModelPath.GENERAL
    return ModelPath.FAST


def _local_directory(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_absolute() or source.startswith("."):
        raise BaseUnreadable(f"base model {source!r}: no such directory; give one, or a hub id like `org/name`")
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseUnreadable(
            f"base model {source!r} is neither a directory nor a hub id that can be had: {error}"
        ) from error


def _dtype(name: str, config: PreTrainedConfig) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    if name not in known:
        raise BaseUnreadable(f"dtype {name!r} is unknown; use auto or one of {sorted(known)}")
    return known[name]


def _wide_bytes(spec: BaseModelSpec) -> int:
    return sum(columns * rows for columns, rows in spec.modules.values()) * torch.float32.itemsize


def _eos_token_ids(config: PreTrainedConfig) -> frozenset[int]:
    eos = config.eos_token_id
    return frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)


def _transformers_model(directory: Path, dtype: torch.dtype, quantization: Quantization) -> PreTrainedModel:
    if not sys.stderr.isatty():
        disable_progress_bar()
    # Named only where there is one: None would be taken for a wish against what the files say.
    asked = quantization.transformers_config(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            device_map={"": "cpu"},
            **({} if asked is None else {"quantization_config": asked}),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise BaseUnreadable(f"the base model in {directory} cannot be loaded: {error}") from error
    require_quantized(model, quantization)
    return model
