"""Watching training runs that go on in other processes, through their metrics logs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.progress import Progress, TaskID

METRICS_NAME: Final = "metrics.jsonl"


@dataclass(slots=True)
class RunWatch:
    """One run's bar, fed from the part of its metrics log that has not been read yet.

    Attributes:
        log: the metrics log; it appears when the run has begun.
        task: the bar.
        read_bytes: how much of the log has been read.
        last_loss: loss of the latest entry.
    """

    log: Path
    task: TaskID
    read_bytes: int = 0
    last_loss: float | None = None

    def update(self, bars: Progress) -> None:
        """Moves the bar to the latest entry."""
        for entry in self._new_entries():
            step, loss = _number(entry, "step"), _number(entry, "loss")
            if entry.get("kind", "train") != "train" or step is None or loss is None:
                continue
            self.last_loss = loss
            bars.update(
                self.task,
                completed=step,
                total=_number(entry, "total_steps"),
                note=f"loss {loss:.3f}  {_speed(entry)}",
            )

    def _new_entries(self) -> Iterator[Mapping[str, object]]:
        if not self.log.exists():
            return
        with self.log.open("rb") as stream:
            stream.seek(self.read_bytes)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # still being written
                self.read_bytes += len(line)
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry


def _speed(entry: Mapping[str, object]) -> str:
    speed = _number(entry, "tokens_per_s")
    if speed is None:
        tokens, seconds = _number(entry, "tokens"), _number(entry, "elapsed_s")
        speed = tokens / seconds if tokens and seconds else None
    return f"{speed:,.0f} tok/s" if speed is not None else ""


def _number(entry: Mapping[str, object], key: str) -> float | None:
    found = entry.get(key)
    return float(found) if isinstance(found, int | float) else None
