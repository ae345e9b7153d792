"""Progress on a terminal: a bar with loss, speed, memory and time left; plain lines where there is no terminal.

Owns what a person sees while a run goes on. Everything goes to the console that it is given, so that results
on standard output stay clean.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from switchyard.trainer.events import Evaluated, RunEvent, RunStarted, StepDone, StepLogged
from switchyard.trainer.memory import held_bytes

_GIB: Final = 1024**3
_LINES: Final = 10
"""Lines of progress for a whole run where there is no terminal."""


class TerminalProgress:
    """Shows a run as a progress bar. A context manager, so that the bar is closed when the run fails."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tok/s"),
            TextColumn("{task.fields[held]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("preparing", total=None, loss="–", speed="–", held="")

    def receive(self, event: RunEvent) -> None:
        """Moves the bar, or prints an evaluation above it."""
        match event:
            case RunStarted():
                self._console.print(start_line(event), highlight=False)
                self._bar.update(
                    self._task, description=event.name, total=event.total_steps, completed=event.done_steps
                )
            case StepDone():
                self._bar.update(self._task, completed=event.step)
            case StepLogged():
                held = f"{held_bytes() / _GIB:.2f} GiB"
                self._bar.update(self._task, loss=f"{event.loss:.4f}", speed=f"{event.tokens_per_s:,.0f}", held=held)
            case Evaluated():
                self._console.print(evaluation_line(event), highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class LineProgress:
    """Shows a run as about ten lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 1
        self._printed = 0

    def receive(self, event: RunEvent) -> None:
        """Prints the start, a tenth of the way each, and evaluations."""
        match event:
            case RunStarted():
                self._total = event.total_steps
                self._printed = event.done_steps * _LINES // self._total
                self._print(start_line(event))
            case StepLogged() if event.step * _LINES // self._total > self._printed:
                self._printed = event.step * _LINES // self._total
                self._print(
                    f"step {event.step}/{self._total}  loss {event.loss:.4f}  "
                    f"{event.tokens_per_s:,.0f} tok/s  {event.elapsed_s:.0f} s"
                )
            case Evaluated():
                self._print(evaluation_line(event))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def progress_for(console: Console) -> TerminalProgress | LineProgress:
    """Returns the bar for a terminal, and lines for anything else."""
    return TerminalProgress(console) if console.is_terminal else LineProgress(console)


def start_line(event: RunStarted) -> str:
    """Returns what is about to be trained, in one line."""
    share = event.trainable_parameters / event.total_parameters
    steps = f"{event.total_steps:,} steps"
    if event.done_steps:
        steps += f", continued after step {event.done_steps:,}"
    return (
        f"{event.name}: {event.rows:,} rows, {steps}; training {event.trainable_parameters:,} "
        f"of {event.total_parameters:,} parameters ({share:.2%})"
    )


def evaluation_line(event: Evaluated) -> str:
    """Returns an evaluation in one line."""
    return (
        f"{event.split} at step {event.step}: loss {event.loss:.4f}, "
        f"{event.token_accuracy:.2%} of tokens right over {event.rows} rows"
    )
