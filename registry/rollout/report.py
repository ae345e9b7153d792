"""What a look at a rollout's step found, as it is written into the history and shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from switchyard.registry.rollout.tally import Tallies, Tally
from switchyard.registry.rollout.verdict import LATENCY_SHARE, Finding, Standing, Verdict
from switchyard.registry.strict_json import Json


@dataclass(frozen=True, slots=True)
class Side:
    """One version of a split.

    Attributes:
        version: its number.
        answers: as in `Tally`.
        failures: as in `Tally`.
        not_finite: as in `Tally`.
        ttft_p90_s: 90th percentile of the times to the first token; None for none.
        itl_p90_s: the same of the mean gaps between tokens.
    """

    version: int
    answers: int
    failures: int
    not_finite: int
    ttft_p90_s: float | None
    itl_p90_s: float | None

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is written."""
        return {
            "version": self.version,
            "answers": self.answers,
            "failures": self.failures,
            "not_finite": self.not_finite,
            "ttft_p90_s": _rounded(self.ttft_p90_s),
            "itl_p90_s": _rounded(self.itl_p90_s),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Both versions of a split, compared.

    Attributes:
        elapsed_s: seconds since the step began.
        servers: how many have told something.
        first: the version that the alias points to.
        second: the candidate.
        findings: every condition.
    """

    elapsed_s: float
    servers: int
    first: Side
    second: Side
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is written."""
        return {
            "elapsed_s": round(self.elapsed_s, 3),
            "servers": self.servers,
            "first": self.first.document(),
            "second": self.second.document(),
            "conditions": [
                {
                    "condition": finding.condition,
                    "standing": str(finding.standing),
                    "first": _rounded(finding.first),
                    "second": _rounded(finding.second),
                    "limit": _rounded(finding.limit),
                }
                for finding in self.findings
            ],
        }


def report_of(
    versions: tuple[int, int], tallies: Tallies, servers: int, elapsed_s: float, verdict: Verdict
) -> Report:
    """Returns what was seen of both versions of a split."""
    first, second = _side(versions[0], tallies.first), _side(versions[1], tallies.second)
    return Report(elapsed_s, servers, first, second, verdict.findings)


def report_from(document: Mapping[str, Json]) -> Report | None:
    """Reads what `Report.document` made; None for anything else, because people may write evidence, too."""
    try:
        return Report(
            _number(document["elapsed_s"]),
            _count(document["servers"]),
            _side_from(document["first"]),
            _side_from(document["second"]),
            tuple(_finding(one) for one in _objects(document["conditions"])),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _side(version: int, tally: Tally) -> Side:
    return Side(
        version,
        tally.answers,
        tally.failures,
        tally.not_finite,
        tally.ttft.quantile_s(LATENCY_SHARE),
        tally.itl.quantile_s(LATENCY_SHARE),
    )


def _side_from(document: Json) -> Side:
    (side,) = _objects([document])
    return Side(
        *(_count(side[name]) for name in ("version", "answers", "failures", "not_finite")),
        *(_measure(side[name]) for name in ("ttft_p90_s", "itl_p90_s")),
    )


def _finding(document: Mapping[str, Json]) -> Finding:
    first, second, limit = (_measure(document[name]) for name in ("first", "second", "limit"))
    return Finding(str(document["condition"]), Standing(str(document["standing"])), first, second, limit)


def _objects(value: Json) -> Sequence[Mapping[str, Json]]:
    if not isinstance(value, list):
        raise TypeError("no list")
    objects = [one for one in value if isinstance(one, dict)]
    if len(objects) != len(value):
        raise TypeError("no list of objects")
    return objects


def _count(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("no count")
    return value


def _number(value: Json) -> float:
    if type(value) not in {int, float}:
        raise TypeError("no number")
    return float(value)  # type: ignore[arg-type]


def _measure(value: Json) -> float | None:
    return None if value is None else _number(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
