"""What the sections of a recipe need of each other.

Owns the checks between sections that are right by themselves. Each looks at the values as given, so that its fault is
told beside those of single keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from switchyard.trainer.recipe_adapter import AdapterKind
from switchyard.trainer.recipe_gate import METRICS
from switchyard.trainer.recipe_lora import Bias, LoraInit, LoraSection
from switchyard.trainer.recipe_method import ROWS_OF, Method
from switchyard.trainer.recipe_outcome import MergeInto
from switchyard.trainer.recipe_parallel import Strategy
from switchyard.trainer.recipe_quantization import DType, QuantizationMethod
from switchyard.trainer.recipe_section import value_at
from switchyard.trainer.recipe_selection import Kept
from switchyard.trainer.recipe_train import AdapterDType
from switchyard.trainer.row_formats import DataFormat

Given = Mapping[str, object]


def _evaluations(given: Given) -> list[str]:
    found = []
    if value_at(given, "train", "eval_steps") is not None and not _has_split(given, "dev"):
        found.append("`train.eval_steps` needs `data.dev`, or `data.hold_out.dev`")
    is_choosing = value_at(given, "selection", "keep") == Kept.BEST
    is_comparing = is_choosing or value_at(given, "selection", "patience") is not None
    if is_comparing and value_at(given, "train", "eval_steps") is None:
        found.append("`selection` compares evaluations: give `train.eval_steps`")
    return found


def _has_split(given: Given, name: str) -> bool:
    return any(value_at(given, "data", *keys) is not None for keys in ((name,), ("hold_out", name)))


def _half_precision(given: Given) -> list[str]:
    is_half = value_at(given, "quantization", "compute_dtype") == DType.FLOAT16
    if is_half and value_at(given, "train", "adapter_dtype") == AdapterDType.BFLOAT16:
        # torch's gradient scaler has no kernel for bfloat16 gradients.
        return ["`quantization.compute_dtype: float16` needs `train.adapter_dtype: float32`"]
    return []


def _initialisation(given: Given) -> list[str]:
    init = value_at(given, "lora", "init")
    method = value_at(given, "quantization", "method") or QuantizationMethod.NF4
    if init == LoraInit.LOFTQ and method == QuantizationMethod.NONE:
        return ["`lora.init: loftq` makes up for the error of quantisation: give a `quantization.method`"]
    if init not in {LoraInit.PISSA, LoraInit.OLORA}:
        return []
    found = []
    if method != QuantizationMethod.NONE:
        found.append(
            f"`lora.init: {init}` moves a part of the weights into the adapter, and what is left of them quantises "
            "differently, so no adapter is exact on the served base: give `quantization.method: none`, or "
            "`lora.init: loftq`, which leaves the base alone"
        )
    sections = (("quantization", "compute_dtype"), ("train", "adapter_dtype"))
    found += [
        f"`lora.init: {init}` needs `{section}.{key}: float32`: less loses a part of the weights that it moves"
        for section, key in sections
        if (value_at(given, section, key) or "float32") != "float32"
    ]
    return found


def _merged_copy(given: Given) -> list[str]:
    merges_quantized = value_at(given, "export", "merged") == MergeInto.DEQUANTIZED
    if merges_quantized and value_at(given, "quantization", "method") == QuantizationMethod.NONE:
        return ["`export.merged: dequantized` needs a base that is quantised; give `original`"]
    return []


def _kinds(given: Given) -> list[str]:
    kind = value_at(given, "adapter", "kind") or AdapterKind.LORA
    found = []
    if kind != AdapterKind.LORA and _is_changed(given.get("lora")):
        found.append(f"the section `lora` says nothing about `adapter.kind: {kind}`; leave it out")
    if kind in {AdapterKind.PROMPT, AdapterKind.P_TUNING} and _is_merged(given):
        found.append(f"`export.merged` needs weights to merge; `adapter.kind: {kind}` changes none")
    return found


def _is_changed(lora: object) -> bool:
    """Whether a section says anything; a lock spells out what was left at its default."""
    if isinstance(lora, Mapping):
        defaults = LoraSection().model_dump(mode="json")
        return any(key not in defaults or value != defaults[key] for key, value in lora.items())
    return lora is not None and lora != LoraSection()


def _is_merged(given: Given) -> bool:
    return value_at(given, "export", "merged") in {MergeInto.ORIGINAL, MergeInto.DEQUANTIZED}


def _start(given: Given) -> list[str]:
    init = value_at(given, "lora", "init")
    if value_at(given, "start", "version") is not None and init not in {None, LoraInit.DEFAULT}:
        return [f"`lora.init: {init}` begins anew and `start.version` does not; give one of both"]
    return []


def _gate(given: Given) -> list[str]:
    measured = [name for name in METRICS if value_at(given, "gate", name) is not None]
    found = []
    if measured and not _has_split(given, "test"):
        found.append("`gate` judges held-out rows: give `data.test`, or `data.hold_out.test`")
    asked = [name for name in measured if name != "perplexity"]
    if asked and value_at(given, "data", "format") == DataFormat.TEXT:
        found.append(f"plain text asks nothing; of the gate's metrics it has perplexity, not {', '.join(asked)}")
    if measured and value_at(given, "data", "format") == DataFormat.FEEDBACK:
        found.append("rows of `feedback` do not say what the right answer is, so `gate` cannot judge by them")
    return found


def _method(given: Given) -> list[str]:
    name = str(value_at(given, "method", "name") or Method.SFT)
    shape = str(value_at(given, "data", "format") or DataFormat.PROMPT_COMPLETION)
    if name not in set(Method) or shape not in set(DataFormat):
        return []
    method, found = Method(name), []
    if DataFormat(shape) not in ROWS_OF[method]:
        wanted = " or ".join(sorted(ROWS_OF[method]))
        found.append(f"`method.name: {method}` does not learn from rows of `{shape}`: give `data.format: {wanted}`")
    if method is Method.SFT:
        return found
    for section, key, taken in _ANSWERS_ALONE:
        value = value_at(given, section, key)
        if value is not None and value not in taken:
            found.append(f"`{section}.{key}: {value}` goes with `method.name: sft` only")
    batch = value_at(given, "train", "batch_size")
    if method is Method.KTO and batch == 1:
        found.append("`method.name: kto` compares the answers of a batch: give `train.batch_size` of 2 or more")
    return found + (_reference(given, method) if method.has_reference else [])


def _processes(given: Given) -> list[str]:
    count = value_at(given, "parallel", "processes")
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        return []
    found = []
    passes = value_at(given, "train", "gradient_accumulation") or 1
    if isinstance(passes, int) and passes % count:
        found.append(
            f"`parallel.processes: {count}` share the forward passes of a step, and `train.gradient_accumulation` is "
            f"{passes}: give a multiple of {count}, with a smaller `train.batch_size` for the same rows"
        )
    if value_at(given, "train", "auto_batch"):
        found.append("`train.auto_batch` tries the memory of one process: leave it out with `parallel.processes`")
    if value_at(given, "lora", "init") == LoraInit.EVA:
        found.append("`lora.init: eva` looks at all rows, and each of `parallel.processes` has a part: run it in one")
    if value_at(given, "method", "name") == Method.KTO:
        found.append("`method.name: kto` compares the answers of all processes' batches: run it in one process")
    return found


def _sharding(given: Given) -> list[str]:
    if value_at(given, "parallel", "strategy") != Strategy.FSDP:
        return []
    found = []
    if (value_at(given, "parallel", "processes") or 1) == 1:
        found.append(
            "`parallel.strategy: fsdp` shares the base among processes: give more `parallel.processes` than 1"
        )
    if value_at(given, "quantization", "method") == QuantizationMethod.INT8:
        found.append("`parallel.strategy: fsdp` cannot cut `quantization.method: int8`; give `nf4`, `fp4` or `none`")
    storage = value_at(given, "quantization", "storage_dtype")
    compute = value_at(given, "quantization", "compute_dtype") or DType.FLOAT32
    if storage is not None and storage != compute:
        found.append(
            f"`parallel.strategy: fsdp` sends weights of one type: `quantization.storage_dtype: {storage}` is not "
            f"the `compute_dtype`, {compute}; give the same, or leave it out"
        )
    return found


_ANSWERS_ALONE: Final = (
    ("train", "packing", {"none"}),
    ("adapter", "kind", {AdapterKind.LORA, AdapterKind.IA3}),
    ("lora", "init", set(LoraInit) - {LoraInit.EVA}),
)
"""Section, key, and the values that every method takes."""


def _reference(given: Given, method: Method) -> list[str]:
    """What would make the base without its adapter another one than the base."""
    found = []
    for key, plain in (("bias", {Bias.NONE}), ("init", set(LoraInit) - {LoraInit.PISSA, LoraInit.OLORA})):
        value = value_at(given, "lora", key)
        if value is not None and value not in plain:
            found.append(
                f"`lora.{key}: {value}` changes the base itself, which `method.name: {method}` compares with"
            )
    return found


CONFLICTS: Final[tuple[Callable[[Given], list[str]], ...]] = (
    _evaluations,
    _half_precision,
    _initialisation,
    _merged_copy,
    _kinds,
    _start,
    _gate,
    _method,
    _processes,
    _sharding,
)
"""Every check; each returns its faults."""
