"""The page of the knowledge benchmark: a table with intervals, a picture, and every answer for machines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import world

from switchyard.server.measure.report import machine
from switchyard.trainer.gate.intervals import wilson

if TYPE_CHECKING:
    from run import Trained

MARGIN_POINTS = 5
"""A task of the base counts as kept when its share of right answers falls by no more percentage points."""
COLOURS = ("#7b8794", "#d97706", "#93c5fd", "#2563eb")
NAMES = {
    "base": "base",
    "pages": "pages alone",
    "pages-rehearsed": "pages, rehearsal",
    "more-pages-rehearsed": "more of both, fewer passes",
}
Said = Mapping[str, Mapping[str, Sequence[str]]]
Scores = dict[str, dict[str, int]]


def write_page(
    place: Path,
    meanings: Mapping[str, str],
    tasks: Mapping[str, Sequence[world.Asked]],
    said: Said,
    runs: Mapping[str, Trained],
) -> None:
    """Writes knowledge.md, knowledge.json and knowledge.png."""
    right = {
        who: {
            task: sum(one.answer.strip() == text for one, text in zip(tasks[task], texts, strict=True))
            for task, texts in by_task.items()
        }
        for who, by_task in said.items()
    }
    counts = {task: len(questions) for task, questions in tasks.items()}
    (place / "knowledge.md").write_text("\n".join(lines(meanings, right, counts, runs)) + "\n")
    (place / "knowledge.json").write_text(json.dumps(misses(tasks, said, right, runs), indent=1) + "\n")
    draw(place / "knowledge.png", right, counts)
    print("\n".join(lines(meanings, right, counts, runs)))


def lines(
    meanings: Mapping[str, str], right: Scores, counts: Mapping[str, int], runs: Mapping[str, Trained]
) -> list[str]:
    """The page's text."""
    found = [
        "# New knowledge from pages, and what is forgotten",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} shared cores, one thread; {machine()}.",
        "`make bench-knowledge` makes the base, trains, serves and asks; [knowledge.json](knowledge.json) has every wrong answer.",
        "",
        "The base (about 0.5 M parameters) has read of 180 made-up yards, three facts each, and was asked about 120 of them. The pages tell of 24 other yards,",
        "each in three paragraphs: continued pre-training in chunks of 128 tokens, 20 passes, batch 2, rank 32 on all linear layers of the NF4 base.",
        "*Rehearsal* adds 300 texts of the kind that the base was made of; the last run has ten paragraphs about each new yard, 800 such texts, and 6 passes.",
        "Right is an answer that is exactly the expected text, asked greedily through the server's",
        f"`Generate`; in brackets Wilson's 95 % interval. A task counts as kept when its share falls by at most {MARGIN_POINTS} points.",
        "",
        "| task | questions | " + " | ".join(NAMES[who] for who in right) + " |",
        "|---|---|" + "---|" * len(right),
    ]
    for task, count in counts.items():
        cells = [share(by_task[task], count) for by_task in right.values()]
        found.append(f"| {task}, {meanings[task]} | {count} | " + " | ".join(cells) + " |")
    found += ["", "| run | chunks | tokens | steps | last loss | training |", "|---|---|---|---|---|---|"]
    for name, run in runs.items():
        found.append(
            f"| {NAMES[name]} | {run.chunks} | {run.tokens:,} | {run.steps} | {run.loss:.3f} | {run.train_s:.0f} s |"
        )
    return [*found, "", *(verdict(name, right, counts) for name in runs), "", "![](knowledge.png)"]


def verdict(name: str, right: Scores, counts: Mapping[str, int]) -> str:
    """Says of one adapter what it kept of each task of the base."""
    found = []
    for task, count in counts.items():
        lost = right["base"][task] - right[name][task]
        if task != "new facts":
            kept = "kept" if lost <= MARGIN_POINTS * count / 100 else "not kept"
            found.append(f"{task} {-100 * lost / count:+.1f} points, {kept}")
    return f"- {NAMES[name]}: {'; '.join(found)}."


def share(right: int, count: int) -> str:
    """A share with its interval."""
    low, high = wilson(right, count)
    return f"{right / count:.1%} ({low:.1%} to {high:.1%})"


def misses(
    tasks: Mapping[str, Sequence[world.Asked]], said: Said, right: Scores, runs: Mapping[str, Trained]
) -> dict[str, object]:
    """Everything as JSON: counts, runs, and each wrong answer."""
    wrong = [
        {"who": who, "task": task, "asked": one.prompt, "expected": one.answer.strip(), "got": text}
        for who, by_task in said.items()
        for task, texts in by_task.items()
        for one, text in zip(tasks[task], texts, strict=True)
        if one.answer.strip() != text
    ]
    return {"right": right, "asked": {task: len(one) for task, one in tasks.items()},
            "runs": {name: asdict(run) for name, run in runs.items()}, "wrong": wrong}  # fmt: skip


def draw(path: Path, right: Scores, counts: Mapping[str, int]) -> None:
    """Draws one group of bars per task."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 3.6), dpi=150)
    for place, (who, by_task) in enumerate(right.items()):
        at = [index + (place - 1.5) * 0.21 for index in range(len(counts))]
        shares = [by_task[task] / count for task, count in counts.items()]
        spans = [wilson(by_task[task], count) for task, count in counts.items()]
        below = [max(0.0, one - low) for one, (low, _) in zip(shares, spans, strict=True)]
        above = [max(0.0, high - one) for one, (_, high) in zip(shares, spans, strict=True)]
        axes.bar(at, shares, 0.2, color=COLOURS[place], label=NAMES[who])
        axes.errorbar(at, shares, yerr=[below, above], fmt="none", ecolor="#1f2933", capsize=3, linewidth=1)
    axes.set_xticks(range(len(counts)), counts)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("right answers")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(path)
