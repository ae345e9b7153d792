"""The report: everything that a gate found, for programs and for people.

Owns `evaluation.json`, which travels with the version and therefore holds no time and no place, and `report.md`,
which tells the same with every miss. Equal runs give equal reports.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from switchyard.registry.lineage import Metric
from switchyard.trainer.gate.intervals import Paired
from switchyard.trainer.gate.misses import Miss
from switchyard.trainer.gate.scoring import Scores
from switchyard.trainer.gate.verdict import Check

REPORT_FILE: Final = "evaluation.json"
SCHEMA: Final = 1
_SHOWN_MISSES: Final = 100
_SHOWN_CLASSES: Final = 100
_SHOWN_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What a gate found.

    Attributes:
        name: The recipe's name.
        dataset_digest: Digest of the split that the rows are from.
        rows: Rows that were asked.
        quantization: How the base was quantised while it answered, as a label.
        max_new_tokens: Tokens after which an answer was cut off.
        primary: The metric that tells right from wrong, or None when only perplexity was measured.
        subjects: `base`, `adapter` and, if there is one, `parent`, in the order in which they are shown.
        checks: The thresholds.
        paired: The adapter against the parent, or None.
        misses: The adapter's wrong answers by `primary`.
        notes: What a reader has to know besides, one sentence each.
    """

    name: str
    dataset_digest: str
    rows: int
    quantization: str
    max_new_tokens: int
    primary: str | None
    subjects: Mapping[str, Scores]
    checks: tuple[Check, ...]
    paired: Paired | None
    misses: tuple[Miss, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every threshold holds."""
        return all(check.passed for check in self.checks)

    @property
    def classes(self) -> dict[str, int]:
        """Misses by class, the most frequent first."""
        return dict(Counter(miss.kind for miss in self.misses).most_common())

    def metrics(self) -> tuple[Metric, ...]:
        """Returns the adapter's scores as its lineage records them."""
        adapter = self.subjects["adapter"]
        found = [Metric(name, adapter.of(name).mean, self.dataset_digest) for name in adapter.rows]
        return (*found, Metric("perplexity", adapter.perplexity, self.dataset_digest))

    def document(self) -> dict[str, object]:
        """Returns the report as a JSON document, with the first misses and the most frequent classes."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "passed": self.passed,
            "dataset_digest": self.dataset_digest,
            "rows": self.rows,
            "quantization": self.quantization,
            "max_new_tokens": self.max_new_tokens,
            "subjects": {name: _subject_document(scores) for name, scores in self.subjects.items()},
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "paired": None if self.paired is None else _paired_document(self.paired),
            "primary": self.primary,
            "misses": len(self.misses),
            "classes": dict(list(self.classes.items())[:_SHOWN_CLASSES]),
            "first_misses": [_miss_document(miss) for miss in self.misses[:_SHOWN_MISSES]],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """Returns the report for people, with every miss."""
        verdict = "**Passed**" if self.passed else "**Did not pass**"
        lines = [
            f"# {self.name}: {verdict.strip('*').lower()}",
            "",
            f"{verdict}: {sum(check.passed for check in self.checks)} of {len(self.checks)} thresholds hold. "
            f"{self.rows:,} held-out rows (`{self.dataset_digest}`), base in {self.quantization}, greedy answers of "
            f"at most {self.max_new_tokens} tokens; intervals are Wilson's at 95 %.",
            "",
            *_score_table(list(self.subjects.values())),
            *_check_table(self.checks),
        ]
        if self.paired is not None:
            lines += ["", _paired_sentence(self.paired)]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        lines += _miss_tables(self)
        return "\n".join(lines) + "\n"


def _subject_document(scores: Scores) -> dict[str, object]:
    return {
        "label": scores.label,
        "perplexity": scores.perplexity,
        "scores": {name: dataclasses.asdict(scores.of(name)) for name in scores.rows},
    }


def _paired_document(pair: Paired) -> dict[str, object]:
    low, high = pair.interval
    return {
        "rows": pair.rows,
        "gained": pair.gained,
        "lost": pair.lost,
        "difference": pair.difference,
        "low": low,
        "high": high,
        "p_value": pair.p_value,
    }


def _miss_document(miss: Miss) -> dict[str, object]:
    return {
        "row": miss.row,
        "prompt": _clipped(miss.question.prompt),
        "expected": _clipped(miss.question.expected),
        "got": _clipped(miss.got),
        "class": miss.kind,
    }


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _score_table(subjects: Sequence[Scores]) -> list[str]:
    titles = [f"{one.subject}: {one.label}" if one.label else one.subject for one in subjects]
    lines = [_line(["", *titles]), _line(["---"] * (len(subjects) + 1))]
    for name in subjects[0].rows:
        lines.append(_line([name, *(_share(one, name) for one in subjects)]))
    lines.append(_line(["perplexity", *(f"{one.perplexity:.4f}" for one in subjects)]))
    return lines


def _share(scores: Scores, metric: str) -> str:
    score = scores.of(metric)
    return f"{score.mean:.2%} ({score.low:.2%} to {score.high:.2%})"


def _check_table(checks: Sequence[Check]) -> list[str]:
    if not checks:
        return ["", "No threshold was set; whatever is found passes."]
    lines = ["", _line(["threshold", "wanted", "found", ""]), _line(["---"] * 4)]
    return lines + [_line([one.name, one.wanted, one.found, "ok" if one.passed else "missed"]) for one in checks]


def _paired_sentence(pair: Paired) -> str:
    low, high = pair.interval
    return (
        f"Against the parent, row by row: {pair.gained} gained, {pair.lost} lost of {pair.rows:,}; a difference of "
        f"{pair.difference * 100:+.2f} points ({low * 100:+.2f} to {high * 100:+.2f}), McNemar's exact p = "
        f"{pair.p_value:.3g}."
    )


def _miss_tables(report: Report) -> list[str]:
    if report.primary is None or not report.misses:
        return []
    lines = [
        "",
        f"## {len(report.misses)} misses by {report.primary}",
        "",
        _line(["class", "rows"]),
        _line(["---"] * 2),
    ]
    lines += [_line([kind, str(count)]) for kind, count in report.classes.items()]
    lines += ["", _line(["row", "class", "prompt", "expected", "got"]), _line(["---"] * 5)]
    for miss in report.misses:
        texts = (miss.question.prompt, miss.question.expected, miss.got)
        lines.append(_line([str(miss.row), miss.kind, *(_code(text) for text in texts)]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Returns any text as one cell: data may hold whatever Markdown gives a meaning to."""
    shown = _clipped(text).replace("\\", "\\\\").replace("\n", "\\n").replace("|", "\\|").replace("`", "ˋ")
    return f"`{shown}`" if shown else "(nothing)"
