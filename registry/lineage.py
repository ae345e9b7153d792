"""What produced a version: data, recipe, code, quantisation, parents, scores.

Lineage is part of a version's content: it is stored as one canonical JSON
document, named by the manifest, so the version's digest covers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from switchyard.registry.digest import is_digest
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import Findings, Reason, shown

QUANTIZATION_METHODS = frozenset({"nf4", "fp4", "int8", "none"})
_TEXT_CHARACTERS = 256
_MOST_ITEMS = 256
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class QuantizationSpec:
    """How base weights are quantised while an adapter trains or serves.

    Attributes:
        method: `nf4`, `fp4`, `int8` or `none`.
        double_quantization: whether the quantisation constants are quantised again.
        compute_dtype: dtype of the matmuls, e.g. `float32`.
    """

    method: str
    double_quantization: bool
    compute_dtype: str

    def label(self) -> str:
        """Returns the short form for tables, e.g. `nf4+double/float32`."""
        return f"{self.method}{'+double' if self.double_quantization else ''}/{self.compute_dtype}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One score.

    Attributes:
        name: what was measured, e.g. `exact_match`.
        value: finite.
        dataset_digest: data it was measured on; empty when unknown.
    """

    name: str
    value: float
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What produced a version; everything is optional, empty means unknown.

    Attributes:
        dataset_digest: digest of the training data.
        recipe_digest: digest of the resolved recipe.
        code_commit: commit of the code that trained.
        training_quantization: how the base was quantised during training.
        parents: manifest digests of the versions it was continued or merged from.
        metrics: scores.
        environment: library to version, e.g. `peft` to `0.21.2`.
    """

    dataset_digest: str = ""
    recipe_digest: str = ""
    code_commit: str = ""
    training_quantization: QuantizationSpec | None = None
    parents: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def document(self, base_digest: str) -> dict[str, Json]:
        """Returns the JSON document that a version stores, `base_digest` included."""
        quantization = self.training_quantization
        return {
            "schema": _SCHEMA,
            "base_digest": base_digest,
            "dataset_digest": self.dataset_digest,
            "recipe_digest": self.recipe_digest,
            "code_commit": self.code_commit,
            "training_quantization": None
            if quantization is None
            else {
                "method": quantization.method,
                "double_quantization": quantization.double_quantization,
                "compute_dtype": quantization.compute_dtype,
            },
            "parents": list(self.parents),
            "metrics": [
                {"name": metric.name, "value": float(metric.value), "dataset_digest": metric.dataset_digest}
                for metric in self.metrics
            ],
            "environment": dict(self.environment),
        }


def lineage_from_document(document: Mapping[str, Json]) -> Lineage:
    """Reads a document that `Lineage.document` made.

    Raises:
        KeyError, TypeError: the document was not made by it.
    """
    quantization = document["training_quantization"]
    metrics, parents, environment = document["metrics"], document["parents"], document["environment"]
    if not (isinstance(metrics, list) and isinstance(parents, list) and isinstance(environment, dict)):
        raise TypeError("lineage document has an unknown layout")
    return Lineage(
        dataset_digest=str(document["dataset_digest"]),
        recipe_digest=str(document["recipe_digest"]),
        code_commit=str(document["code_commit"]),
        training_quantization=_quantization(quantization) if isinstance(quantization, dict) else None,
        parents=tuple(str(parent) for parent in parents),
        metrics=tuple(_metric(metric) for metric in metrics if isinstance(metric, dict)),
        environment={key: str(value) for key, value in environment.items()},
    )


def _quantization(document: Mapping[str, Json]) -> QuantizationSpec:
    return QuantizationSpec(
        str(document["method"]), document["double_quantization"] is True, str(document["compute_dtype"])
    )


def _metric(document: Mapping[str, Json]) -> Metric:
    value = document["value"]
    if not isinstance(value, (int, float)):
        raise TypeError("metric value is not a number")
    return Metric(str(document["name"]), float(value), str(document["dataset_digest"]))


def check_lineage(lineage: Lineage, findings: Findings) -> None:
    """Records every fault of a lineage that somebody sent."""

    def require(field_name: str, value: object, ok: bool, expected: str) -> None:
        if not ok:
            findings.fault(Reason.LINEAGE, f"lineage.{field_name}", f"{shown(value)}; expected {expected}")

    for name in ("dataset_digest", "recipe_digest"):
        value = getattr(lineage, name)
        require(name, value, value == "" or is_digest(value), "a sha256 digest or nothing")
    require("code_commit", lineage.code_commit, _is_text(lineage.code_commit), "short printable text")
    quantization = lineage.training_quantization
    if quantization is not None:
        require(
            "training_quantization.method",
            quantization.method,
            quantization.method in QUANTIZATION_METHODS,
            f"one of {', '.join(sorted(QUANTIZATION_METHODS))}",
        )
        require(
            "training_quantization.compute_dtype",
            quantization.compute_dtype,
            _is_text(quantization.compute_dtype) and bool(quantization.compute_dtype),
            "a dtype name",
        )
    for index, parent in enumerate(lineage.parents):
        require(f"parents[{index}]", parent, is_digest(parent), "the manifest digest of a version")
    _check_metrics(lineage, require)
    for key, version in lineage.environment.items():
        require("environment", {key: version}, _is_text(key) and _is_text(version), "short printable text")
    for name in ("parents", "metrics", "environment"):
        count = len(getattr(lineage, name))
        require(name, count, count <= _MOST_ITEMS, f"at most {_MOST_ITEMS} entries")


def _check_metrics(lineage: Lineage, require: Callable[[str, object, bool, str], None]) -> None:
    for index, metric in enumerate(lineage.metrics):
        field_name = f"metrics[{index}]"
        require(f"{field_name}.name", metric.name, _is_text(metric.name) and bool(metric.name), "a short name")
        require(f"{field_name}.value", metric.value, math.isfinite(metric.value), "a finite number")
        known = metric.dataset_digest == "" or is_digest(metric.dataset_digest)
        require(f"{field_name}.dataset_digest", metric.dataset_digest, known, "a sha256 digest or nothing")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_CHARACTERS and (value == "" or value.isprintable())
