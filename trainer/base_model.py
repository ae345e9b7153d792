"""The base model as the trainer needs it: found, described, loaded in 4 bits, and safe to evaluate.

Owns where a base comes from (a directory, or the Hub's local cache), how it is quantised, and the guard
against bitsandbytes' repacking. No code of a base is ever executed and no pickle is read.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import BaseRefused
from switchyard.trainer.errors import BaseUnusable
from switchyard.trainer.recipe import BaseSection, QuantizationMethod, QuantizationSection

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt")
"""What a base consists of; leaves pickled weights of other frameworks behind."""


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in memory.

    Attributes:
        spec: What it is, by digests.
        model: The frozen model, its linear layers quantised.
        tokenizer: Its tokenizer.
        directory: Where it was read from.
        context_tokens: Longest sequence that it takes, or None when its config does not say.
    """

    spec: BaseModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: Path
    context_tokens: int | None

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends an answer."""
        return int(self.tokenizer.eos_token_id)


def locate_base(section: BaseSection) -> Path:
    """Returns the directory of a base model, fetching it from the Hub when it is not cached.

    `HF_HUB_OFFLINE=1` keeps everything local.

    Raises:
        BaseUnusable: If the directory is missing or the Hub does not give the model.
    """
    if section.path is not None:
        if not (section.path / "config.json").is_file():
            raise BaseUnusable(
                f"there is no base model in {section.path}: config.json is missing. "
                "Set base.path in the recipe, or give --base DIR"
            )
        return section.path
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                str(section.hub), revision=section.revision, allow_patterns=list(_HUB_FILES)
            )
        )
    except (OSError, ValueError) as error:
        raise BaseUnusable(
            f"cannot get the base model {section.hub} from the Hub: {error}. "
            "Check the name, the network, HF_HUB_OFFLINE, and whether the model wants a licence to be accepted"
        ) from error


def describe(directory: Path, section: BaseSection) -> BaseModelSpec:
    """Returns the digests and layer shapes of the base in `directory`.

    Raises:
        BaseUnusable: If the directory does not hold a base model of safetensors weights.
    """
    name = section.name or section.hub or directory.resolve().name
    try:
        return describe_base(directory, name)
    except BaseRefused as error:
        raise BaseUnusable(f"the base model in {directory} is not usable: {error}") from error


def load_base(section: BaseSection, quantization: QuantizationSection, *, on_cpu: bool = False) -> LoadedBase:
    """Loads and quantises a base model.

    Args:
        section: Where it is.
        quantization: How it is stored.
        on_cpu: Leave it in the machine's memory, GPU or not.

    Raises:
        BaseUnusable: If it is missing, incomplete, needs code of its own, is stored quantised, or has no
            end-of-sequence token.
    """
    directory = locate_base(section)
    spec = describe(directory, section)
    config = read_config(directory)
    tokenizer = load_tokenizer(directory)
    model = _load_model(directory, quantization, on_cpu=on_cpu)
    return LoadedBase(spec, model, tokenizer, directory, context_tokens(config))


def read_config(directory: Path) -> dict[str, object]:
    """Reads the config of a base that `describe` has checked.

    Raises:
        BaseUnusable: If the weights are stored quantised.
    """
    config: dict[str, object] = json.loads((directory / "config.json").read_bytes())
    if "quantization_config" in config:
        raise BaseUnusable(
            f"the base model in {directory} is stored quantised; the trainer quantises the original weights itself, "
            "so give the directory of the original model"
        )
    return config


def context_tokens(config: Mapping[str, object]) -> int | None:
    """Returns the longest sequence that a base takes, or None when its config does not say."""
    context = config.get("max_position_embeddings")
    return context if isinstance(context, int) else None


def takes_positions(directory: Path) -> bool:
    """Tells whether a base can be told where each token stands, and so where a row begins.

    Bases that add a bias by distance, like BLOOM, count for themselves and cannot.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return "position_ids" in inspect.signature(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].forward).parameters


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Loads a base's tokenizer, padding on the right.

    Raises:
        BaseUnusable: If it cannot be loaded or has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BaseUnusable(f"cannot load the tokenizer in {directory}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise BaseUnusable(
            f"the tokenizer in {directory} has no end-of-sequence token, so answers could never end; "
            "set eos_token in tokenizer_config.json"
        )
    # Left padding, which some bases ask for, is for generation; training pads on the right.
    tokenizer.padding_side = "right"
    return tokenizer


def _load_model(directory: Path, quantization: QuantizationSection, *, on_cpu: bool) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype: torch.dtype = getattr(torch, quantization.compute_dtype)
    has_gpu = torch.cuda.is_available() and not on_cpu
    config = None
    if quantization.method is QuantizationMethod.INT8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    elif quantization.is_4bit:
        storage = quantization.storage_dtype
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=str(quantization.method),
            bnb_4bit_use_double_quant=quantization.double,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=getattr(torch, storage) if storage is not None else torch.uint8,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            quantization_config=config,
            dtype=dtype,
            # The current one is that of this process.
            device_map={"": f"cuda:{torch.cuda.current_device()}" if has_gpu else "cpu"},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BaseUnusable(f"cannot load the base model in {directory}: {error}") from error
    keep_unpacked(model)
    model.config.use_cache = False
    return model


def keep_unpacked(model: torch.nn.Module) -> int:
    """Keeps bitsandbytes from repacking 4-bit weights on the first evaluation.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 rewrites the weight of a `Linear4bit` in place the first time
    it runs in eval mode. The packed kernel has no gradient, so training afterwards learns from wrong
    gradients without an error.

    Args:
        model: Any module; its `Linear4bit` layers are changed in place.

    Returns:
        The number of layers that were guarded.
    """
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
