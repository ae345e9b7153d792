"""The gate of a run: asks base, parent and adapter the held-out rows and judges.

Owns the order. The metrics and the questions are prepared before training, so that what cannot be judged is refused
before it is made; the subjects are asked one after the other, because each holds a base model in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from switchyard.trainer.data import Split
from switchyard.trainer.durable import write_directory
from switchyard.trainer.export import document_bytes
from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.golden import GOLDEN_FILE, Golden, tolerance_of
from switchyard.trainer.gate.metrics import RowMetric
from switchyard.trainer.gate.misses import Miss, classify
from switchyard.trainer.gate.plots import draw_report
from switchyard.trainer.gate.questions import questions_of
from switchyard.trainer.gate.report import REPORT_FILE, Report
from switchyard.trainer.gate.scoring import Scores, row_metrics, scores
from switchyard.trainer.gate.verdict import against_parent, checks, primary
from switchyard.trainer.provenance import quantization_spec
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.recipe_gate import ANSWER_METRICS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_GOLDEN_TOKENS, _GOLDEN_PROMPT_TOKENS = 64, 512
"""Longest answer and longest prompt that are golden: the file is one of a version's, and a difference shows early."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The version that an adapter is compared with.

    Attributes:
        label: What it is called, e.g. `demo/address:3`.
        directory: Its files as PEFT loads them.
    """

    label: str
    directory: Path


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that is ready to judge.

    Attributes:
        recipe: What to judge by.
        metrics: The metrics of answers.
        parent: What the adapter is compared with, or None.
        notes: What its report says besides.
    """

    recipe: Recipe
    metrics: Mapping[str, RowMetric]
    parent: Parent | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A report, and the answers behind it.

    Attributes:
        report: What was found.
        questions: What was asked.
        answers: What each subject said, by subject.
        thresholds: Smallest mean that passes, by metric, where the recipe says one.
        golden: What the adapter says to a few of them, token by token, or None when none was asked for.
    """

    report: Report
    questions: tuple[Question, ...]
    answers: Mapping[str, tuple[Answer, ...]]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    golden: Golden | None = None

    def adapter_files(self) -> dict[str, bytes]:
        """Returns what travels with the adapter."""
        found = {REPORT_FILE: document_bytes(self.report.document())}
        if self.golden is not None:
            found[GOLDEN_FILE] = (json.dumps(self.golden.document(), sort_keys=True) + "\n").encode()
        return found

    def files(self) -> dict[str, bytes]:
        """Returns what stays beside the adapter: the report for people, the plot, and every answer."""
        return {
            "report.md": self.report.markdown().encode(),
            "scores.png": draw_report(self.report, dict(self.thresholds)),
            "answers.jsonl": b"".join(self._lines()),
        }

    def _lines(self) -> list[bytes]:
        rows = []
        for row, question in enumerate(self.questions):
            said = {name: answers[row].text for name, answers in self.answers.items()}
            document = {"row": row, "prompt": question.prompt, "expected": question.expected, "answers": said}
            rows.append(json.dumps(document, ensure_ascii=False).encode() + b"\n")
        return rows


def make_gate(recipe: Recipe, parent: Parent | None) -> Gate | None:
    """Reads what a recipe's gate measures with; None when it measures nothing.

    Raises:
        GateUnusable: If a schema or a function cannot be used; lists all of them.
    """
    if not recipe.gate.is_on:
        return None
    wanted = recipe.gate.parent
    notes = (f"There is no {wanted} yet, so nothing was compared with it.",) if wanted and parent is None else ()
    return Gate(recipe, row_metrics(recipe.gate), parent, notes)


def gate_questions(
    gate: Gate, split: Split, tokenizer: PreTrainedTokenizerBase, context_tokens: int | None
) -> tuple[Question, ...]:
    """Returns what a gate asks.

    Raises:
        GateUnusable: If a prompt leaves no room for an answer; lists every such row.
    """
    section = gate.recipe.gate
    return questions_of(
        split,
        tokenizer,
        rows=section.rows,
        max_new_tokens=section.max_new_tokens,
        context_tokens=context_tokens,
    )


def judge(gate: Gate, questions: tuple[Question, ...], split: Split, files: Mapping[str, bytes]) -> Judged:
    """Asks every subject and judges the adapter.

    Args:
        gate: How.
        questions: What is asked, from `gate_questions`.
        split: Where the questions are from.
        files: The adapter's files by name, as they are published.

    Raises:
        GateUnusable: If a metric of the recipe's author fails.
    """
    with TemporaryDirectory(prefix="switchyard-gate-") as scratch:
        adapter = Path(scratch) / "adapter"
        write_directory(adapter, files)
        places: dict[str, tuple[str, Path | None]] = {"base": ("", None)}
        if gate.parent is not None:
            places["parent"] = (gate.parent.label, gate.parent.directory)
        places["adapter"] = ("", adapter)
        answers = {name: _answers(gate, questions, directory) for name, (_, directory) in places.items()}
        golden = _golden(gate, questions, adapter)
    found = {name: scores(name, label, gate.metrics, questions, answers[name]) for name, (label, _) in places.items()}
    report = _report(gate, questions, split, found, answers["adapter"])
    return Judged(report, questions, answers, _thresholds(gate), golden)


def _answers(gate: Gate, questions: tuple[Question, ...], directory: Path | None) -> tuple[Answer, ...]:
    from switchyard.trainer.gate.subject import Subject

    subject = Subject(gate.recipe.base, gate.recipe.quantization, directory)
    section = gate.recipe.gate
    return tuple(subject.answer(questions, max_new_tokens=section.max_new_tokens, batch_size=section.batch_size))


def _golden(gate: Gate, questions: tuple[Question, ...], directory: Path) -> Golden | None:
    from switchyard.trainer.gate.subject import Subject

    section, quantization = gate.recipe.gate, gate.recipe.quantization
    short = [question for question in questions if len(question.prompt_ids) <= _GOLDEN_PROMPT_TOKENS]
    chosen = short[: section.golden]
    if not chosen:
        return None
    subject = Subject(gate.recipe.base, quantization, directory)
    prompts = subject.golden(chosen, max_new_tokens=min(section.max_new_tokens, _GOLDEN_TOKENS))
    label, tolerance = quantization_spec(quantization).label(), tolerance_of(quantization.compute_dtype)
    return Golden(label, tolerance, prompts)


def _report(
    gate: Gate,
    questions: tuple[Question, ...],
    split: Split,
    subjects: Mapping[str, Scores],
    answers: tuple[Answer, ...],
) -> Report:
    adapter = subjects["adapter"]
    metric = primary(adapter) if adapter.rows else None
    marks = adapter.rows[metric] if metric is not None else ()
    misses = tuple(
        Miss(row, questions[row], answers[row].text, classify(questions[row], answers[row]))
        for row, mark in enumerate(marks)
        if mark < 1
    )
    return Report(
        name=gate.recipe.name,
        dataset_digest=split.digest,
        rows=len(questions),
        quantization=quantization_spec(gate.recipe.quantization).label(),
        max_new_tokens=gate.recipe.gate.max_new_tokens,
        primary=metric,
        subjects=subjects,
        checks=checks(gate.recipe.gate, subjects),
        paired=against_parent(subjects),
        misses=misses,
        notes=gate.notes,
    )


def _thresholds(gate: Gate) -> dict[str, float]:
    rules = {name: getattr(gate.recipe.gate, name) for name in ANSWER_METRICS}
    return {name: rule.at_least for name, rule in rules.items() if rule is not None and rule.at_least is not None}
