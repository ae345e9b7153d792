"""Scoring: the metrics of a recipe, ready to use, and what subjects reach in them.

Owns how a metric is found: by its name, from a schema file, or as a function of the recipe's author. All of that is
read before anything is trained, so that a wrong path costs no hour.
"""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.trainer.errors import Fault, GateUnusable
from switchyard.trainer.gate import metrics
from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.intervals import wilson
from switchyard.trainer.gate.metrics import RowMetric
from switchyard.trainer.recipe_gate import ANSWER_METRICS, CustomSection, GateSection, RegexSection, SchemaSection

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN: Mapping[str, RowMetric] = {
    "exact_match": metrics.exact_match,
    "json_match": metrics.json_match,
    "json_valid": metrics.json_valid,
}


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one subject.

    Attributes:
        mean: Mean over the rows; with every row 0 or 1 the share of right answers.
        low: Lower end of the 95 % interval.
        high: Its upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """All metrics of one subject.

    Attributes:
        subject: `base`, `parent` or `adapter`.
        label: What it is, e.g. `demo/address:3`.
        rows: Score of each row, by metric in the recipe's order.
        perplexity: Of the right answers.
    """

    subject: str
    label: str
    rows: Mapping[str, Sequence[float]]
    perplexity: float

    def of(self, metric: str) -> Score:
        """Returns one metric with its interval."""
        values = self.rows[metric]
        return Score(math.fsum(values) / len(values), *wilson(math.fsum(values), len(values)))


def row_metrics(gate: GateSection) -> dict[str, RowMetric]:
    """Returns the metrics that a recipe names, by name; perplexity is not among them.

    Raises:
        GateUnusable: If a schema or a function cannot be used; lists all of them.
    """
    found: dict[str, RowMetric] = {}
    faults: list[Fault] = []
    for name in ANSWER_METRICS:
        if getattr(gate, name) is None:
            continue
        try:
            found[name] = _metric(name, gate)
        except _Unusable as error:
            faults.append(Fault(f"gate.{name}", str(error)))
    if faults:
        raise GateUnusable(f"the gate has {len(faults)} metric(s) that cannot be used:", faults)
    return found


def scores(
    subject: str,
    label: str,
    named: Mapping[str, RowMetric],
    questions: Sequence[Question],
    answers: Sequence[Answer],
) -> Scores:
    """Scores the answers of one subject."""
    pairs = list(zip(questions, answers, strict=True))
    rows = {name: tuple(metric(*pair) for pair in pairs) for name, metric in named.items()}
    return Scores(subject, label, rows, metrics.perplexity(answers))


class _Unusable(ValueError):
    """A metric cannot be made."""


def _metric(name: str, gate: GateSection) -> RowMetric:
    if name in _PLAIN:
        return _PLAIN[name]
    match getattr(gate, name):
        case RegexSection(pattern=pattern):
            return metrics.regex_match(pattern)
        case SchemaSection(path=path):
            return _schema_metric(path)
        case CustomSection(path=path, function=function):
            return _custom_metric(path, function)
    raise _Unusable("is no metric")


def _schema_metric(path: Path) -> RowMetric:
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        schema = json.loads(path.read_bytes())
        known = schema if isinstance(schema, dict | bool) else {}
        kind = jsonschema.validators.validator_for(known, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except OSError as error:
        raise _Unusable(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, jsonschema.SchemaError) as error:
        raise _Unusable(f"{path} is not a JSON Schema: {str(error).splitlines()[0]}") from error
    # With a registry of its own it never fetches what a schema refers to.
    validator = kind(schema, registry=Registry())

    def satisfies(_question: Question, answer: Answer) -> float:
        try:
            return float(validator.is_valid(metrics.parsed(answer.text)))
        except metrics.NotJson:
            return 0.0
        except Unresolvable as error:
            raise GateUnusable(
                "the gate's schema refers to what is not in it:", [Fault(path.name, f"`{error.ref}` is not there")]
            ) from error

    return satisfies


def _custom_metric(path: Path, name: str) -> RowMetric:
    if not path.is_file():
        raise _Unusable(f"there is no file {path}")
    try:
        function = runpy.run_path(str(path)).get(name)
    except Exception as error:
        raise _Unusable(f"{path} failed while it was loaded: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise _Unusable(f"{path} has no function `{name}`")
    return partial(_asked_custom, function, f"{path.name}:{name}")


def _asked_custom(
    function: Callable[[str, str, str], object], entry: str, question: Question, answer: Answer
) -> float:
    try:
        value = function(question.prompt, question.expected, answer.text)
    except Exception as error:
        raise GateUnusable(
            "the gate's own metric failed:",
            [Fault(entry, f"raised {type(error).__name__}: {error}, at the prompt {question.prompt!r}")],
        ) from error
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise GateUnusable(
        "the gate's own metric failed:",
        [Fault(entry, f"returned {value!r}, expected a number between 0 and 1, at the prompt {question.prompt!r}")],
    )
