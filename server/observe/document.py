"""Writes `docs/metrics.md` from the table: `python -P -m switchyard.server.observe.document docs/metrics.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from switchyard.server.observe.table import METRICS, MetricSpec

_HEADER = """\
# Metrics

Generated from `server/observe/table.py`; a test compares this page, the table and a live scrape.
Scrape `http://<http address>/metrics`. Series with an `adapter` label are bounded: the busiest adapters have
one each, all the rest share `adapter="other"`, and requests to the base count as `adapter="base"`.

| Metric | Type | Unit | Labels | Meaning |
|---|---|---|---|---|
"""


def metrics_page() -> str:
    """The page, ready to be written."""
    return _HEADER + "".join(_row(spec) for spec in METRICS)


def _row(spec: MetricSpec) -> str:
    labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
    return f"| `{spec.name}` | {spec.kind.value} | {spec.unit or '-'} | {labels} | {spec.help} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(metrics_page(), encoding="utf-8")
