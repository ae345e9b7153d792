"""headline.md, headline.json and headline.png: what every seed reached, against what was aimed at."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from switchyard.trainer.gate.intervals import wilson

if TYPE_CHECKING:
    from run import SeedResult

GOALS = (("plain", "median", 0.996), ("plain", "worst", 0.99), ("harder", "median", 0.97))
FORM_NAMES = ("plain", "harder")
LIMIT_S = 20 * 60
SHOWN = 40


def write_page(
    place: Path,
    seeds: Sequence[SeedResult],
    regex: dict[str, int],
    precisions: dict[str, dict[str, int]],
    precision_rows: int,
    note: str = "",
) -> None:
    """Writes the three files and prints the page; `note` says what is particular about this run."""
    lines = [
        *_head(seeds),
        *([note, ""] if note else []),
        *_seed_table(seeds),
        *_goal_table(seeds),
        *_yardsticks(seeds, regex),
    ]
    lines += [*_precision_table(precisions, precision_rows, seeds[0].seed), *_classes(seeds), *_misses(seeds)]
    place.mkdir(parents=True, exist_ok=True)
    (place / "headline.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document = {"seeds": [asdict(seed) for seed in seeds], "regex": regex, "precisions": precisions}
    (place / "headline.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _draw(place / "headline.png", seeds)
    print("\n".join(lines))


def _head(seeds: Sequence[SeedResult]) -> list[str]:
    forms = ", ".join(f"{seeds[0].asked[form]:,} {form}" for form in ("plain", "harder"))
    return [
        "# Headline: an address becomes JSON",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `make headline` on a shared {platform.machine()} machine without GPU, one "
        "thread per command. Each seed makes its own base (NF4 in the loop, 180,672 parameters, no row of the task), trains "
        "one QLoRA adapter for each form, takes the state with the lowest dev loss, and asks the test rows "
        f"({forms}) once through `Generate` of a server on the NF4 base. No stem of a test road occurs in training or dev. "
        "The task is synthetic, and a regular expression solves it: this shows the pipeline, not the science.",
        "",
        "Harder rows have at least one of: city left out, neighbourhood put in, variant characters "
        "(`trainer/demo/harder.py`). Right is an answer that is the expected JSON value; intervals are Wilson's at 95 %.",
        "",
    ]


def _seed_table(seeds: Sequence[SeedResult]) -> list[str]:
    lines = [
        "| seed | form | exact | base: CPU (wall) | QLoRA: CPU (wall) | together | state | served by |",
        "|" + "---|" * 8,
    ]
    for one in seeds:
        for form in FORM_NAMES:
            took = [f"{one.spent[part].cpu_s:.0f} s ({one.spent[part].wall_s:.0f} s)" for part in ("base", form)]
            cells = [str(one.seed), form, _share(one, form), *took, f"{_together_s(one, form) / 60:.1f} CPU min"]
            served = next(label for label in one.served_by if ("-hard:" in label) == (form == "harder"))
            lines.append(f"| {' | '.join([*cells, one.states[form], served])} |")
    return lines


def _together_s(one: SeedResult, form: str) -> float:
    return one.spent["base"].cpu_s + one.spent[form].cpu_s


def _share(one: SeedResult, lane: str) -> str:
    return _interval(one.right[lane], one.asked[lane])


def _interval(right: int, asked: int) -> str:
    low, high = wilson(right, asked)
    return f"{right / asked:.2%} ({right:,}/{asked:,}, {low:.1%} to {high:.1%})"


def _goal_table(seeds: Sequence[SeedResult]) -> list[str]:
    lines = ["", "| goal | wanted | found | |", "|---|---|---|---|"]
    for form, which, least in GOALS:
        shares = [one.right[form] / one.asked[form] for one in seeds]
        found = median(shares) if which == "median" else min(shares)
        lines.append(
            f"| {form}, {which} of {len(seeds)} seeds | at least {least:.1%} | {found:.2%} | {_mark(found >= least)} |"
        )
    for form in FORM_NAMES:
        most_s = max(_together_s(one, form) for one in seeds)
        lines.append(
            f"| {form}, base and QLoRA together, slowest seed | at most {LIMIT_S / 60:.0f} min "
            f"| {most_s / 60:.2f} CPU min | {_mark(most_s <= LIMIT_S)} |"
        )
    return lines


def _mark(holds: bool) -> str:
    return "ok" if holds else "missed"


def _yardsticks(seeds: Sequence[SeedResult], regex: dict[str, int]) -> list[str]:
    lines = ["", "| yardstick | plain | harder |", "|---|---|---|"]
    for lane in ("base zero-shot", "base few-shot"):
        shares = "; ".join(f"seed {one.seed}: {_share(one, lane)}" for one in seeds)
        lines.append(f"| {lane} | {shares} | not asked |")
    asked = seeds[0].asked
    lines.append(
        f"| regular expression | {_interval(regex['plain'], asked['plain'])} | {_interval(regex['harder'], asked['harder'])} |"
    )
    return lines


def _precision_table(table: dict[str, dict[str, int]], rows: int, seed: int) -> list[str]:
    lines = [
        "",
        "## In other precisions",
        "",
        f"The adapters of seed {seed} with plain PEFT, on the first {rows:,} test rows of each form:",
        "",
    ]
    lines += ["| served as | plain | harder |", "|---|---|---|"]
    return lines + [
        f"| {name} | {_interval(found['plain'], rows)} | {_interval(found['harder'], rows)} |"
        for name, found in table.items()
    ]


def _classes(seeds: Sequence[SeedResult]) -> list[str]:
    lines = [
        "",
        "## Misses by class",
        "",
        "| form | what is harder | class | rows of all seeds |",
        "|---|---|---|---|",
    ]
    counts = Counter((miss["form"], miss["habits"], miss["class"]) for one in seeds for miss in one.misses)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] == "harder", -item[1]))
    return lines + [f"| {form} | {habits or '–'} | {kind} | {count} |" for (form, habits, kind), count in ordered]


def _misses(seeds: Sequence[SeedResult]) -> list[str]:
    lines = [
        "",
        "## The misses",
        "",
        f"All of the plain form, and the first {SHOWN} of the harder form of each seed; headline.json has every one.",
    ]
    lines += ["", "| seed | form | class | prompt | expected | got |", "|" + "---|" * 6]
    for one in seeds:
        plain = [miss for miss in one.misses if miss["form"] == "plain"]
        for miss in [*plain, *[miss for miss in one.misses if miss["form"] == "harder"][:SHOWN]]:
            texts = " | ".join(f"`{miss[key]}`".replace("\n", "↵") for key in ("prompt", "expected", "got"))
            lines.append(f"| {one.seed} | {miss['form']} | {miss['class']} | {texts} |")
    return lines


def _draw(path: Path, seeds: Sequence[SeedResult]) -> None:
    """Draws the share of each seed and form with its interval and the goals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 2.8), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    labels = []
    for form, colour in (("plain", "#2563eb"), ("harder", "#d9480f")):
        for one in seeds:
            low, high = wilson(one.right[form], one.asked[form])
            share, place = one.right[form] / one.asked[form], len(labels)
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([share], [place], "o", color=colour)
            axes.annotate(f"{share:.2%}", (share, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
            labels.append(f"{form}, seed {one.seed}")
        goal = next(least for name, _, least in GOALS if name == form)
        axes.plot([goal, goal], [len(labels) - len(seeds) - 0.4, len(labels) - 0.6], color="#b91c1c", linewidth=1.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.set_xlabel("exact answers to 2,000 held-out rows, 95 % interval; red the goal for the median")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
