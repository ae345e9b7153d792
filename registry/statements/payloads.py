"""What the bytes of a statement must say, by kind. Pure: bytes in, summary or all faults out.

An evaluation is what somebody measured:

    {"dataset_digest": "sha256:…", "metrics": [{"name": "exact_match", "value": 0.98}],
     "serving_quantization": {"method": "nf4", "double_quantization": true, "compute_dtype": "float32"},
     "tool": "switchyard eval 0.1"}

An approval is what somebody decided: `{"approver": "ann", "note": "…", "expires_at_s": 1790000000}`; the
last is optional. Provenance is an in-toto statement, https://in-toto.io/Statement/v1, about the version's
digest. Fields that are not named here are refused: a misspelt one would mean nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from types import MappingProxyType
from typing import TypeAlias

from switchyard.registry.digest import canonical_json, hex_of, is_digest
from switchyard.registry.errors import StatementRefused
from switchyard.registry.lineage import QUANTIZATION_METHODS
from switchyard.registry.statements.kinds import StatementKind
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.verdicts import Findings, Reason, shown

LIMIT_BYTES = 1 << 20
IN_TOTO = "https://in-toto.io/Statement/v1"
_TEXT_CHARACTERS = 256
_NOTE_CHARACTERS = 10_000
_MOST_METRICS = 256
_Fields: TypeAlias = Mapping[str, Json]


def summary_of(kind: StatementKind, payload: bytes, subject_digest: str, actor: str) -> dict[str, Json]:
    """Checks a statement that needs no key and returns its facts.

    Args:
        kind: EVALUATION, APPROVAL or PROVENANCE.
        payload: its bytes.
        subject_digest: the version that it is attached to.
        actor: who attaches it; an approval must be the actor's own.

    Raises:
        StatementRefused: faults in the document, all of them.
    """
    findings = Findings()
    summary: dict[str, Json] = {}
    try:
        document = parse_json(payload)
    except JsonRefused as error:
        findings.fault(Reason.STATEMENT, kind, f"{error}; expected a JSON object")
    else:
        if isinstance(document, dict):
            look = _Look(kind, document, findings)
            summary = _READERS[kind](look, subject_digest, actor)
        else:
            findings.fault(Reason.STATEMENT, kind, f"{shown(document)}; expected a JSON object")
    if findings.faults:
        raise StatementRefused(findings.faults)
    return summary


def named(kind: StatementKind, payload: bytes, actor: str) -> bytes:
    """Returns a checked statement with its author in it.

    Equal statements are kept once, so approvals that say nothing must not be equal for two people.
    """
    document = parse_json(payload) if kind is StatementKind.APPROVAL else None
    if not isinstance(document, dict) or "approver" in document:
        return payload
    return canonical_json({**document, "approver": actor})


class _Look:
    """Reads the fields of one object and records what is wrong with them."""

    def __init__(self, where: str, fields: _Fields, findings: Findings) -> None:
        self.where = where
        self.fields = fields
        self.findings = findings

    def known(self, names: Set[str]) -> None:
        """Refuses fields that are not among `names`."""
        for name in sorted(set(self.fields) - names):
            self.fault(shown(name), f"is not a field of it; known are {', '.join(sorted(names))}")

    def text(self, name: str, *, most: int = _TEXT_CHARACTERS, multiline: bool = False) -> str:
        """Reads a printable text that is not empty."""
        value = self.fields.get(name)
        if isinstance(value, str) and 0 < len(value) <= most and _is_printable(value, multiline):
            return value
        self.fault(name, f"{shown(value)}; expected printable text of 1 to {most} characters")
        return ""

    def digest(self, name: str) -> str:
        """Reads a digest."""
        value = self.fields.get(name)
        if isinstance(value, str) and is_digest(value):
            return value
        self.fault(name, f"{shown(value)}; expected a sha256 digest")
        return ""

    def number(self, name: str) -> float:
        """Reads a finite number; JSON has no others here."""
        value = self.fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self.fault(name, f"{shown(value)}; expected a number")
        return 0.0

    def inner(self, name: str) -> _Look | None:
        """Reads an object; None when there is none, which is recorded."""
        value = self.fields.get(name)
        if isinstance(value, dict):
            return _Look(f"{self.where}.{name}", value, self.findings)
        self.fault(name, f"{shown(value)}; expected an object")
        return None

    def items(self, name: str, most: int) -> list[_Look]:
        """Reads a list of objects that is not empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            self.fault(name, f"{shown(value)}; expected a list of 1 to {most} objects")
            return []
        looks = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                looks.append(_Look(f"{self.where}.{name}[{index}]", item, self.findings))
            else:
                self.fault(f"{name}[{index}]", f"{shown(item)}; expected an object")
        return looks

    def fault(self, name: str, message: str) -> None:
        """Records a fault."""
        self.findings.fault(Reason.STATEMENT, f"{self.where}.{name}", message)


def _is_printable(text: str, multiline: bool) -> bool:
    return (text.replace("\n", " ") if multiline else text).isprintable()


def _evaluation(look: _Look, _subject_digest: str, _actor: str) -> dict[str, Json]:
    look.known({"dataset_digest", "metrics", "serving_quantization", "tool"})
    metrics: list[Json] = []
    names: set[str] = set()
    for item in look.items("metrics", _MOST_METRICS):
        item.known({"name", "value"})
        name = item.text("name")
        if name in names:
            item.fault("name", f"{shown(name)} is given twice; name each metric once")
        names.add(name)
        metrics.append({"name": name, "value": item.number("value")})
    return {
        "dataset_digest": look.digest("dataset_digest"),
        "metrics": metrics,
        "serving_quantization": _quantization(look.inner("serving_quantization")),
        "tool": look.text("tool"),
    }


def _quantization(look: _Look | None) -> dict[str, Json]:
    if look is None:
        return {}
    look.known({"method", "double_quantization", "compute_dtype"})
    method, double = look.fields.get("method"), look.fields.get("double_quantization")
    if method not in QUANTIZATION_METHODS:
        look.fault("method", f"{shown(method)}; expected one of {', '.join(sorted(QUANTIZATION_METHODS))}")
    if not isinstance(double, bool):
        look.fault("double_quantization", f"{shown(double)}; expected true or false")
    return {"method": method, "double_quantization": double, "compute_dtype": look.text("compute_dtype")}


def _approval(look: _Look, _subject_digest: str, actor: str) -> dict[str, Json]:
    look.known({"approver", "note", "expires_at_s"})
    approver = look.text("approver") if "approver" in look.fields else actor
    if approver and approver != actor:
        look.fault("approver", f"{shown(approver)} is not {shown(actor)}, who attaches it; approve for yourself only")
    summary: dict[str, Json] = {"approver": approver}
    if "note" in look.fields:
        summary["note"] = look.text("note", most=_NOTE_CHARACTERS, multiline=True)
    if "expires_at_s" in look.fields:
        summary["expires_at_s"] = look.number("expires_at_s")
    return summary


def _provenance(look: _Look, subject_digest: str, _actor: str) -> dict[str, Json]:
    if look.fields.get("_type") != IN_TOTO:
        look.fault("_type", f"{shown(look.fields.get('_type'))}; expected {IN_TOTO}")
    predicate_type = look.text("predicateType", most=512)
    named = [item.inner("digest") for item in look.items("subject", _MOST_METRICS)]
    digests = [item.fields.get("sha256") for item in named if item is not None]
    if hex_of(subject_digest) not in digests:
        look.fault("subject", f"none of its {len(digests)} subject(s) has the sha256 of {subject_digest}")
    return {"predicate_type": predicate_type}


_READERS: Mapping[StatementKind, Callable[[_Look, str, str], dict[str, Json]]] = MappingProxyType(
    {
        StatementKind.EVALUATION: _evaluation,
        StatementKind.APPROVAL: _approval,
        StatementKind.PROVENANCE: _provenance,
    }
)
