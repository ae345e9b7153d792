"""The recipe: one frozen, validated description of a training run.

Owns every key of a recipe file with its unit, default and bounds. A key that is not listed here is an error,
and all faults of a file are reported together. The same object can be built in Python.

A recipe's digest covers everything that decides how training goes, and nothing about where things lie: the
base and the data are identified by their own digests, in the manifest beside it. So one recipe has one digest
on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.trainer.row_formats import ALPACA_PROMPT, DataFormat

NAME_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"
"""The registry's grammar of names, because a recipe's name is the adapter's default name."""


class QuantizationMethod(StrEnum):
    """How the base's linear layers are stored while training."""

    NF4 = "nf4"
    FP4 = "fp4"
    NONE = "none"


class DType(StrEnum):
    """A floating-point type; the value is torch's name for it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class AdapterDType(StrEnum):
    """A type that adapters are trained and stored in; the value is torch's name for it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Schedule(StrEnum):
    """How the learning rate moves after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class DevMetric(StrEnum):
    """A score on `data.dev`."""

    LOSS = "loss"
    TOKEN_ACCURACY = "token_accuracy"  # noqa: S105


class Kept(StrEnum):
    """Which state of a run becomes the adapter."""

    LAST = "last"
    BEST = "best"


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Returns what is wrong between keys, from the values as given."""
        return []

    @model_validator(mode="wrap")
    @classmethod
    def _with_conflicts(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        # An "after" validator would stay silent until every key is right by itself.
        conflicts = cls.conflicts(given) if isinstance(given, Mapping) else []
        details = [_detail("conflict", message, (), given) for message in conflicts]
        try:
            section = validate(given)
        except ValidationError as error:
            single = [_detail(one["type"], one["msg"], one["loc"], one["input"]) for one in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, single + details) from error
        if details:
            raise ValidationError.from_exception_data(cls.__name__, details)
        return section


def _detail(kind: str, message: str, place: tuple[int | str, ...], found: object) -> InitErrorDetails:
    error = PydanticCustomError(kind, "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=found)


def _value(given: object, *keys: str) -> object:
    """Returns a nested value of mappings or sections as given, or None."""
    for key in keys:
        given = given.get(key) if isinstance(given, Mapping) else getattr(given, key, None)
    return given


class BaseSection(_Section):
    """Which base model the adapter is trained on: exactly one of `path` and `hub`."""

    path: Annotated[Path | None, Field(strict=False)] = None
    """Directory with config.json, *.safetensors and a tokenizer; relative to the recipe file."""

    hub: str | None = None
    """Repository on the Hugging Face Hub, e.g. `Qwen/Qwen2.5-0.5B-Instruct`."""

    revision: str | None = None
    """Commit, branch or tag on the Hub; only with `hub`."""

    name: str | None = None
    """What the base is called in manifests; the directory's or repository's name by default."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Exactly one source, and a revision only of a repository."""
        found = []
        if (given.get("path") is None) == (given.get("hub") is None):
            found.append("give exactly one of `path` (a directory) and `hub` (a repository)")
        if given.get("revision") is not None and given.get("hub") is None:
            found.append("`revision` belongs to `hub`; a directory has none")
        return found


class Leaks(StrEnum):
    """What is done about rows that are learnt and judged."""

    WARN = "warn"
    ERROR = "error"


def _with_question(template: str) -> str:
    if template.count("{question}") != 1:
        raise ValueError("names {question} not exactly once, so the rows would not say what is asked")
    return template


class DataSection(_Section):
    """Files of rows, relative to the recipe file: JSON lines, .json, .csv, .parquet, or directories of `datasets`."""

    train: Annotated[Path, Field(strict=False)]
    """What the adapter learns."""

    dev: Annotated[Path | None, Field(strict=False)] = None
    """Evaluated during training (`train.eval_steps`) and at its end."""

    test: Annotated[Path | None, Field(strict=False)] = None
    """Evaluated once, after training."""

    format: Annotated[DataFormat, Field(strict=False)] = DataFormat.PROMPT_COMPLETION
    """`prompt-completion`; `alpaca` (instruction, input, output); `chat` (messages of role and content) and
    `sharegpt` (conversations of from and value), where each answer is learnt once, with what was said before it."""

    alpaca_prompt: Annotated[str, AfterValidator(_with_question)] = ALPACA_PROMPT
    """Prompt of `alpaca` rows; `{question}` is the instruction and, on a line of its own, the input."""

    skip_bad: bool = False
    """Leave bad rows out and count them, instead of refusing the file."""

    leaks: Annotated[Leaks, Field(strict=False)] = Leaks.WARN
    """What rows of `dev` or `test` that occur in `train` are: `warn` about them, or refuse them as an `error`."""


class QuantizationSection(_Section):
    """How the base is stored while training; an adapter belongs to the quantisation that it was trained on."""

    method: Annotated[QuantizationMethod, Field(strict=False)] = QuantizationMethod.NF4
    """`nf4` and `fp4` are bitsandbytes' 4-bit types; `none` keeps `compute_dtype`."""

    double: bool = True
    """Quantise the blocks' constants too: 4.127 bits per weight instead of 4.5."""

    compute_dtype: Annotated[DType, Field(strict=False)] = DType.FLOAT32
    """Type of the arithmetic, and of everything that is not quantised: `float32`, `bfloat16` or `float16`."""

    @property
    def is_quantized(self) -> bool:
        """Whether the linear layers are stored in 4 bits."""
        return self.method is not QuantizationMethod.NONE


class LoraSection(_Section):
    """The adapter's shape, as PEFT's LoraConfig defines it."""

    r: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank."""

    alpha: Annotated[float, Field(gt=0, le=65536)] = 32
    """The update is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped while training."""

    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = "all-linear"
    """`all-linear` (every linear layer but the output head), or a list of module names such as `q_proj`."""

    rslora: bool = False
    """Rank-stabilised scaling."""


def _steps_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(f"is {value}: give a whole number of steps, or a share below 1")
    return value


class TrainSection(_Section):
    """The optimisation: AdamW on the completion tokens of each row."""

    epochs: Annotated[float | None, Field(gt=0, le=10_000)] = None
    """Passes over the training rows. Give exactly one of `epochs` and `max_steps`."""

    max_steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows per forward pass."""

    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes per optimizer step."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak rate. LoRA wants about ten times the rate of full fine-tuning."""

    warmup_steps: Annotated[float, Field(ge=0), AfterValidator(_steps_or_share)] = 0
    """Linear warm-up: optimizer steps, or a share of all steps when below 1."""

    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.COSINE
    """Course of the rate after warm-up: `cosine` or `linear` down to zero, or `constant`."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's decoupled weight decay."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""

    max_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens per row; longer rows are cut at the end, and the cut rows are counted and reported."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Seed of the adapter's initial weights, the order of rows, and dropout."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a fifth slower."""

    adapter_dtype: Annotated[AdapterDType, Field(strict=False)] = AdapterDType.FLOAT32
    """Type of the adapter while training and in its file: `float32` or `bfloat16`."""

    eval_steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps between evaluations on `data.dev`."""

    log_steps: Annotated[int, Field(ge=1)] = 10
    """Optimizer steps between entries of the metrics log."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Exactly one length."""
        is_clear = (given.get("epochs") is None) != (given.get("max_steps") is None)
        return [] if is_clear else ["give exactly one of `epochs` and `max_steps`"]


class SelectionSection(_Section):
    """Which evaluated state becomes the adapter, and when a run ends early; both need `train.eval_steps`."""

    keep: Annotated[Kept, Field(strict=False)] = Kept.LAST
    """State that becomes the adapter: the `last` one, or the `best` of those evaluated on `data.dev`."""

    metric: Annotated[DevMetric, Field(strict=False)] = DevMetric.LOSS
    """What is compared: `loss` (lower is better) or `token_accuracy` (higher is better)."""

    patience: Annotated[int | None, Field(ge=1)] = None
    """Evaluations without a new best after which the run ends."""

    min_improvement: Annotated[float, Field(ge=0)] = 0.0
    """A new best beats the one before by more than this, in nats or as a share."""


class CheckpointSection(_Section):
    """States that a run can be continued from; they decide nothing about what is learnt."""

    every_steps: Annotated[int | None, Field(ge=1)] = 100
    """Optimizer steps between checkpoints; `null` writes one only when the run is asked to stop."""

    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that stay; older ones are removed once a newer one is durable."""


class PublishSection(_Section):
    """Where `switchyard train --publish` puts the adapter when the command line does not say."""

    ref: str | None = None
    """`namespace/name`, or `name` in the namespace `default`."""

    alias: Annotated[str | None, Field(pattern=NAME_PATTERN)] = None
    """Alias that is moved to the new version."""


class Recipe(_Section):
    """A training run. Frozen: a run never changes its recipe."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the run, and of the adapter unless `publish.ref` says otherwise."""

    base: BaseSection
    data: DataSection
    quantization: QuantizationSection = QuantizationSection()
    lora: LoraSection = LoraSection()
    train: TrainSection
    selection: SelectionSection = SelectionSection()
    checkpoints: CheckpointSection = CheckpointSection()
    publish: PublishSection = PublishSection()

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Evaluations need rows, and half precision needs a float32 adapter."""
        found = []
        if _value(given, "train", "eval_steps") is not None and _value(given, "data", "dev") is None:
            found.append("`train.eval_steps` needs `data.dev`")
        is_choosing = _value(given, "selection", "keep") == Kept.BEST
        if (is_choosing or _value(given, "selection", "patience") is not None) and (
            _value(given, "train", "eval_steps") is None
        ):
            found.append("`selection` compares evaluations: give `train.eval_steps`")
        is_half = _value(given, "quantization", "compute_dtype") == DType.FLOAT16
        if is_half and _value(given, "train", "adapter_dtype") == AdapterDType.BFLOAT16:
            # torch's gradient scaler has no kernel for bfloat16 gradients.
            found.append("`quantization.compute_dtype: float16` needs `train.adapter_dtype: float32`")
        return found

    def document(self) -> dict[str, object]:
        """Returns the resolved recipe without its name and the places of things: what `digest` covers."""
        return self.model_dump(mode="json", exclude={"name", "base", "data", "checkpoints", "publish"})

    @property
    def digest(self) -> str:
        """Digest of `document()` as canonical JSON."""
        return sha256_digest(canonical_json(self.document()))

    def with_base(self, path: Path) -> Recipe:
        """Returns this recipe on the base model in directory `path`, keeping the base's given name."""
        return self.model_copy(update={"base": BaseSection(path=path, name=self.base.name)})
