"""The metrics log: one JSON object per line, written while the run goes on.

Owns the file `metrics.jsonl`. Each line has a `kind` (`train`, `dev`, `test`) and the fields of the event
(`switchyard.trainer.events`); a `train` line also has `total_steps` and `tokens_per_s`, so that a watcher can
draw a bar from the latest line alone. Lines are flushed one by one, so a killed run leaves what it measured;
a run that continues from a checkpoint begins with the lines that led to it, and drops later ones, which it
measures again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from switchyard.trainer.events import Evaluated, RunEvent, RunStarted, StepLogged


class MetricsLog:
    """Writes log entries and evaluations as they come.

    Args:
        path: The file; what it held is replaced.
        past: What an earlier part of the run measured.
        total_steps: Optimizer steps of the run, where there is a past.
    """

    def __init__(self, path: Path, past: Iterable[RunEvent] = (), total_steps: int = 0) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._total_steps = total_steps
        for event in past:
            self.receive(event)

    def receive(self, event: RunEvent) -> None:
        """Writes a line for a log entry or an evaluation; other events are no metrics."""
        if isinstance(event, RunStarted):
            self._total_steps = event.total_steps
        elif isinstance(event, StepLogged):
            more = {"total_steps": self._total_steps, "tokens_per_s": event.tokens_per_s}
            self._write({"kind": "train", **_known(event), **more})
        elif isinstance(event, Evaluated):
            fields = _known(event)
            self._write({"kind": fields.pop("split"), **fields})

    def _write(self, fields: dict[str, object]) -> None:
        # A gradient scaler's skipped step has an infinite norm, which JSON cannot say.
        known = {key: None if _is_non_finite(value) else value for key, value in fields.items()}
        self._file.write(json.dumps(known, ensure_ascii=False, allow_nan=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _known(event: StepLogged | Evaluated) -> dict[str, object]:
    """Returns the fields of an event, without those that its method does not have."""
    return {key: value for key, value in asdict(event).items() if value is not None}


def _is_non_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
