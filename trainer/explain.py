"""What a recipe would do, worked out without training.

Owns the numbers before a run: rows and tokens after truncation, optimizer steps, trained parameters, and memory
against what the machine has. The weights are read once, for the base's digest and shapes, and never loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from switchyard.trainer.base_model import context_tokens, describe, load_tokenizer, locate_base, read_config
from switchyard.trainer.data import Split, TruncationReport
from switchyard.trainer.memory import MemoryEstimate, available_bytes, estimate_memory, has_gpu, libraries_bytes
from switchyard.trainer.packing import Packing, packing_report
from switchyard.trainer.preference_rows import answers_report, counted
from switchyard.trainer.preflight import (
    check_borders,
    check_context,
    check_rows,
    check_template,
    data_warnings,
    machine_warnings,
    read_data,
    sharing_warnings,
)
from switchyard.trainer.quiet import quiet_libraries
from switchyard.trainer.recipe import Method, Recipe, Strategy
from switchyard.trainer.sequences import pack
from switchyard.trainer.servability import serving_warnings
from switchyard.trainer.token_rows import TokenRow, encode
from switchyard.trainer.trackers import check_trackers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from switchyard.trainer.step_memory import StepShape


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen.

    Attributes:
        name: The recipe's name.
        base: Name of the base model.
        base_digest: Its identity.
        trainable_parameters: Parameters of the adapter.
        base_parameters: Parameters of the base.
        given_rows: Rows of each split as they were given.
        rows: What `train.max_length` leaves of the training rows.
        longest_tokens: Tokens of the longest training row after truncation, or of the longest packed sequence.
        steps: Optimizer steps.
        steps_per_epoch: Optimizer steps of one pass over the training rows.
        tokens: Tokens that the whole run processes, prompts included; rounded for a last pass that ends early.
        memory: What the process, or each of several, holds at its peak.
        processes: Processes of the run.
        strategy: What each of them holds.
        available_bytes: What the machine has now.
        warnings: Findings that would not stop the run.
    """

    name: str
    base: str
    base_digest: str
    trainable_parameters: int
    base_parameters: int
    given_rows: dict[str, int]
    rows: TruncationReport
    longest_tokens: int
    steps: int
    steps_per_epoch: int
    tokens: int
    memory: MemoryEstimate
    processes: int
    strategy: Strategy
    available_bytes: int
    warnings: tuple[str, ...]

    @property
    def trainable_share(self) -> float:
        """Trained parameters as a share of all."""
        return self.trainable_parameters / (self.base_parameters + self.trainable_parameters)

    @property
    def fits(self) -> bool:
        """Whether the machine has the memory now; each process has a GPU of its own, or all share the machine's."""
        return self.needed_bytes <= self.available_bytes

    @property
    def needed_bytes(self) -> int:
        """What is taken of the memory that is counted."""
        return self.memory.total_bytes * (1 if has_gpu() else self.processes)

    def document(self) -> dict[str, object]:
        """Returns everything as a JSON document."""
        memory = asdict(self.memory) | {"total_bytes": self.memory.total_bytes}
        return asdict(self) | {"trainable_share": self.trainable_share, "memory": memory, "fits": self.fits}


def explain(recipe: Recipe) -> Explanation:
    """Works out what a recipe would do.

    Raises:
        TrainerError: If the recipe, its data or its base cannot be used, as `train` would say it.
    """
    check_trackers(recipe)
    splits = read_data(recipe)
    with quiet_libraries():
        return _explained(recipe, splits)


def _explained(recipe: Recipe, splits: dict[str, Split]) -> Explanation:
    from switchyard.trainer.adapter_shape import adapter_shape
    from switchyard.trainer.step_memory import rehearse

    directory = locate_base(recipe.base)
    spec = describe(directory, recipe.base)
    check_context(recipe, spec.name, context_tokens(read_config(directory)))
    check_borders(recipe, spec.name, directory)
    train = recipe.train
    tokenizer = load_tokenizer(directory)
    check_template(splits, tokenizer, spec.name)
    lengths, rows = foreseen_rows(recipe, splits["train"], tokenizer)
    check_rows(recipe, rows)
    longest = max(lengths)
    per_epoch = steps_per_epoch(len(lengths), train.batch_size, train.gradient_accumulation)
    steps = train.max_steps or math.ceil((train.epochs or 1) * per_epoch)
    libraries = libraries_bytes()
    answers = 2 if splits["train"].rows[0].rejected else 1
    shape = _step_shape(recipe, min(train.batch_size, len(lengths)), longest, answers)
    step = rehearse(directory, adapter_shape(recipe, spec), shape)
    return Explanation(
        name=recipe.name,
        base=spec.name,
        base_digest=spec.digest,
        trainable_parameters=step.trainable_parameters,
        base_parameters=step.base_parameters,
        given_rows={name: len(split.rows) for name, split in splits.items()},
        rows=rows,
        longest_tokens=longest,
        steps=steps,
        steps_per_epoch=per_epoch,
        tokens=round(rows.tokens * steps / per_epoch),
        memory=estimate_memory(
            step, recipe.quantization, train.adapter_dtype, train.optimizer, libraries, recipe.parallel
        ),
        processes=recipe.parallel.processes,
        strategy=recipe.parallel.strategy,
        available_bytes=available_bytes(),
        warnings=(
            *serving_warnings(recipe),
            *data_warnings(recipe, splits, rows),
            *machine_warnings(recipe, step.trained_shapes),
            *sharing_warnings(recipe, len(lengths)),
        ),
    )


def _step_shape(recipe: Recipe, batch: int, longest_tokens: int, answers: int) -> StepShape:
    from switchyard.trainer.step_memory import StepShape

    is_line = recipe.packing.keeps_borders
    return StepShape(
        # Where rows keep their borders, TRL puts a batch into one line; two answers are two sequences.
        batch=1 if is_line else batch * answers,
        tokens=max(2, longest_tokens * batch if is_line else longest_tokens),
        compute_dtype=str(recipe.quantization.compute_dtype),
        adapter_dtype=str(recipe.train.adapter_dtype),
        is_quantized=recipe.quantization.is_quantized,
        recomputes=recipe.train.gradient_checkpointing,
        has_reference=recipe.method.name.has_reference,
    )


def steps_per_epoch(rows: int, batch_size: int, accumulation: int) -> int:
    """Returns the optimizer steps of one pass; the last batch and the last accumulation may be short."""
    return max(1, math.ceil(math.ceil(rows / batch_size) / accumulation))


def foreseen_rows(
    recipe: Recipe, split: Split, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], TruncationReport]:
    """Counts the tokens of what steps will take.

    Returns:
        The tokens of each row or packed sequence, and the report on all rows.
    """
    if recipe.method.name is not Method.SFT:
        counts = [counted(row, tokenizer) for row in split.rows]
        return answers_report(counts, len(counts), recipe.train.max_length)
    given = [encode(row, tokenizer) for row in split.rows]
    if recipe.packing is Packing.NONE:
        return measure_rows(given, recipe.train.max_length)
    packed = pack(given, recipe.packing, recipe.train.max_length)
    report = packing_report(given, packed, recipe.packing, recipe.train.max_length)
    return [len(one.ids) for one in packed], report


def measure_rows(rows: Sequence[TokenRow], max_length: int) -> tuple[list[int], TruncationReport]:
    """Counts tokens as TRL leaves them: cut at the end, and rows without a trained token left out.

    Returns:
        The tokens of each row that is left, and the report on all.
    """
    lengths: list[int] = []
    cut = trained = 0
    for row in rows:
        kept = TokenRow(row.ids[:max_length], row.labels[:max_length])
        if kept.trained_tokens == 0:
            continue
        lengths.append(len(kept.ids))
        cut += len(row.ids) > max_length
        trained += kept.trained_tokens
    return lengths, TruncationReport(len(lengths), len(rows) - len(lengths), cut, sum(lengths), trained)
