"""Explanations for people: what `switchyard train --explain` and `--dry-run` print."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.trainer.dry_run import DryRun
from switchyard.trainer.explain import Explanation
from switchyard.trainer.memory import MemoryEstimate
from switchyard.trainer.recipe import Strategy

_MIB = 1024 * 1024


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Prints the numbers of a run that has not begun."""
    _print_table(_rows(explanation), console)
    for warning in explanation.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    if not explanation.fits:
        console.print(
            Text(
                f"warning: the run needs {_size(explanation.memory.total_bytes)} and the machine has "
                f"{_size(explanation.available_bytes)} free; lower train.batch_size or train.max_length, or set "
                "train.gradient_checkpointing",
                style="yellow",
            ),
            soft_wrap=True,
        )


def print_dry_run(found: DryRun, console: Console) -> None:
    """Prints what a dry run found, after the explanation."""
    print_explanation(found.explanation, console)
    rows = {
        "one step": f"loss {found.loss:.4f} in {found.step_s:.1f} s; {found.wall_s:.1f} s with loading and writing",
        "disk": f"{_size(found.needed_bytes)} of {_size(found.free_bytes)} free",
        "publish": f"{found.place} can be used" if found.place is not None else "not asked for",
    }
    if found.server is not None:
        same = found.server.compared - len(found.server.differences)
        rows["prompts"] = f"{same} of {found.server.compared} are the same tokens to {found.server.address}"
    _print_table(rows, console)
    for sentence in found.server.sentences() if found.server is not None else ():
        console.print(Text(f"warning: {sentence}", style="yellow"), soft_wrap=True)
    console.print("everything is in order; nothing was kept and nothing was published", highlight=False)


def _print_table(rows: dict[str, str], console: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=13)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, Text(value))
    console.print(table, highlight=False)


def _rows(explanation: Explanation) -> dict[str, str]:
    rows = explanation.rows
    given = ", ".join(f"{name} {count:,}" for name, count in explanation.given_rows.items())
    unit, longest, packed = "row", explanation.longest_tokens, {}
    if rows.sequences:
        unit = "sequence"
        packed = {"packed": f"into {rows.sequences:,} sequences, {rows.lost_tokens:,} tokens lost"}
    shared = {}
    if explanation.processes > 1:
        holds = "a share of the base" if explanation.strategy is Strategy.FSDP else "the whole base"
        shared = {"processes": f"{explanation.processes}, each of which holds {holds}; below, one of them"}
    verdict = "fits" if explanation.fits else "DOES NOT FIT"
    return {
        "base": f"{explanation.base}, {explanation.base_parameters:,} parameters",
        "trained": f"{explanation.trainable_parameters:,} parameters, {explanation.trainable_share:.4%} of all",
        "rows given": given,
        "rows trained": f"{rows.rows:,}; {rows.cut:,} cut, {rows.dropped:,} left out",
        **packed,
        "row tokens": f"{rows.tokens:,}, {rows.trained_tokens:,} trained ({rows.trained_tokens / rows.tokens:.1%}); "
        f"longest {unit} {longest:,}",
        "ends learnt": f"{rows.rows - rows.cut:,} of {rows.rows:,} rows keep their end-of-sequence token",
        "steps": f"{explanation.steps:,}; {explanation.steps_per_epoch:,} in one pass over the rows",
        "run tokens": f"{explanation.tokens:,}",
        **shared,
        "memory": f"{_size(explanation.needed_bytes)} of {_size(explanation.available_bytes)} free: {verdict}",
        **{f"  {name}": _size(size) for name, size in _parts(explanation.memory).items()},
    }


def _parts(memory: MemoryEstimate) -> dict[str, int]:
    return {
        "libraries": memory.libraries_bytes,
        "weights": memory.weights_bytes,
        "adapter": memory.adapter_bytes,
        "gradients": memory.gradient_bytes,
        "optimizer": memory.optimizer_bytes,
        "activations": memory.activation_bytes,
    }


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB" if size_bytes < 1024 * _MIB else f"{size_bytes / _MIB / 1024:,.2f} GiB"
