"""`python bench/headline/run.py`: base, QLoRA and held-out answers for every seed; writes headline.md and headline.json.

Every seed makes a base of its own, trains an adapter for each form of the address task, chooses its state on dev rows,
and asks the test rows once through a server. What is done is kept in `--place`, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import material
import yardstick
from asking import ask_through_server, lanes_of
from measured_run import Spent, run_once
from page import write_page

from switchyard.trainer.demo.addresses import is_exact
from switchyard.trainer.demo.rows import Row
from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.misses import classify

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
BASE_STEPS, PLACES_SHARE = 4_000, 0.15
PRECISION_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one seed reached, as it stands in headline.json.

    Attributes:
        seed: of base, adapter and order of rows.
        spent: what the base took, and the adapter of each form.
        states: by form, the optimizer step whose state was the best on dev.
        served_by: what answered.
        right: right answers by form or lane.
        asked: rows by form or lane.
        misses: wrong answers of the adapter: form, habits, class, prompt, expected, got.
    """

    seed: int
    spent: dict[str, Spent]
    states: dict[str, str]
    served_by: list[str]
    right: dict[str, int]
    asked: dict[str, int]
    misses: list[dict[str, str]]


def main() -> None:
    """Runs the seeds that are asked for and writes the page of all that are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("build/headline"), help="where everything is kept")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, with commas")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the page goes")
    arguments = parser.parse_args()
    material.write_data(arguments.place / "data")
    rows = material.test_rows()
    done = [run_seed(arguments.place, int(seed), rows) for seed in arguments.seeds.split(",")]
    precisions = precision_table(arguments.place, done)
    write_page(arguments.results, done, regex_right(rows), precisions, PRECISION_ROWS)


def run_seed(place: Path, seed: int, rows: dict[str, list[Row]]) -> SeedResult:
    """Makes, trains and asks one seed, or reads what was done before."""
    here = place / f"seed-{seed}"
    pretrain = ["-P", "-m", "switchyard.trainer.demo.pretrain", "--out", str(here / "base"), "--seed", str(seed)]
    spent = {"base": run_once("base", [*pretrain, "--steps", str(BASE_STEPS), "--places", str(PLACES_SHARE)], here)}
    states = {}
    for form in material.FORMS:
        run, recipe = here / form.name / "run", material.write_recipe(here / form.name, form, seed)
        train = ["-P", "-m", "switchyard.clients.cli", "train", str(recipe), "--out", str(run), "--threads", "1"]
        spent[form.name] = run_once(f"qlora-{form.name}", train, here)
        figures = json.loads((run / "metrics.json").read_text())
        states[form.name] = f"step {figures['adapter_step']:,} of {figures['steps']:,}"
    examples = [Row(**json.loads(line)) for line in (place / "data" / "address-dev.jsonl").read_text().splitlines()]
    lanes = lanes_of(rows, examples)
    answers = ask_through_server(here, lanes)
    judged = {lane.name: _texts(answers[lane.name]) for lane in lanes}
    return SeedResult(
        seed,
        spent,
        states,
        _texts(answers["served_by"]),
        {name: _right(texts, rows.get(name, rows["plain"])) for name, texts in judged.items()},
        {name: len(texts) for name, texts in judged.items()},
        _misses(judged, rows),
    )


def regex_right(rows: dict[str, list[Row]]) -> dict[str, int]:
    """Counts what the regular expression has right, by form."""
    return {
        form: _right([yardstick.answer(row.prompt) for row in of_form], of_form) for form, of_form in rows.items()
    }


def precision_table(place: Path, done: Sequence[SeedResult]) -> dict[str, dict[str, int]]:
    """Measures the first seed's adapter in every precision."""
    here = place / f"seed-{done[0].seed}"
    out = here / "precisions-table.json"
    run_once("precisions", [str(HERE / "precisions.py"), str(here), str(PRECISION_ROWS), str(out)], here)
    table: dict[str, dict[str, int]] = json.loads(out.read_text())
    return table


def _right(texts: Sequence[str], rows: Sequence[Row]) -> int:
    return sum(is_exact(text, row.completion) for text, row in zip(texts, rows, strict=False))


def _misses(judged: dict[str, list[str]], rows: dict[str, list[Row]]) -> list[dict[str, str]]:
    habits = {"plain": [""] * len(rows["plain"]), "harder": material.habits_of_test()}
    return [
        {
            "form": form,
            "habits": habits[form][place],
            "class": classify(Question(row.prompt, row.completion), Answer(text)),
            "prompt": row.prompt,
            "expected": row.completion,
            "got": text,
        }
        for form, of_form in rows.items()
        for place, (row, text) in enumerate(zip(of_form, judged[form], strict=True))
        if not is_exact(text, row.completion)
    ]


def _texts(found: object) -> list[str]:
    if not isinstance(found, list):
        raise TypeError(f"answers.json holds {type(found).__name__}, expected a list of texts")
    return [str(one) for one in found]


if __name__ == "__main__":
    main()
