"""Writes the Grafana dashboard from `panels`: `python -P -m switchyard.server.observe.dashboard FILE`."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from switchyard.registry.strict_json import Json
from switchyard.server.observe.panels import PANELS, Panel

_COLUMNS: Final = 24
_PER_LINE: Final = 4
_HEIGHT: Final = 8
_SOURCE: Final[dict[str, Json]] = {"type": "prometheus", "uid": "${datasource}"}


def dashboard_page() -> str:
    """The dashboard as Grafana imports it, ready to be written."""
    return json.dumps(_dashboard(), indent=2, ensure_ascii=False) + "\n"


def _dashboard() -> dict[str, Json]:
    return {
        "uid": "switchyard",
        "title": "Switchyard",
        "tags": ["switchyard"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _job()]},
        "panels": _placed(),
    }


def _datasource() -> dict[str, Json]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _job() -> dict[str, Json]:
    return {
        "name": "job",
        "type": "query",
        "label": "Job",
        "datasource": _SOURCE,
        "query": {"query": "label_values(switchyard_build_info, job)", "refId": "job"},
        "refresh": 1,
    }


def _placed() -> list[Json]:
    placed: list[Json] = []
    top = 0
    for row, panels in groupby(PANELS, key=lambda panel: panel.row):
        heading = {"type": "row", "title": row, "panels": [], "gridPos": _place(0, top, _COLUMNS, 1)}
        placed.append({"id": len(placed) + 1, **heading})
        top += 1
        below = list(panels)
        for number, panel in enumerate(below):
            line, column = divmod(number, _PER_LINE)
            width = _COLUMNS // min(_PER_LINE, len(below))
            place = _place(column * width, top + line * _HEIGHT, width, _HEIGHT)
            placed.append({"id": len(placed) + 1, **_drawn(panel), "gridPos": place})
        top += _HEIGHT * -(-len(below) // _PER_LINE)
    return placed


def _place(x: int, y: int, width: int, height: int) -> dict[str, Json]:
    return {"x": x, "y": y, "w": width, "h": height}


def _drawn(panel: Panel) -> dict[str, Json]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + number), "expr": query.expression, "legendFormat": query.legend, "datasource": _SOURCE}
            for number, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(dashboard_page(), encoding="utf-8")
