"""Dashboard, alerts and metrics against a real Prometheus that scrapes a real server."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitored import NAMES, ask, make_place, start_rollout
from prometheus_server import Prometheus, find_tool, prometheus
from whole_server import serving

from switchyard.server.observe.dashboard import dashboard_page
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.panels import PANELS
from switchyard.server.observe.table import METRICS, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
EXPRESSIONS = [query.expression for panel in PANELS for query in panel.queries]

needs_prometheus = pytest.mark.skipif(
    find_tool("prometheus") is None, reason="prometheus is not here; `make tools` fetches it"
)


def named(expression: str) -> set[str]:
    """Metrics that a query names, without the suffixes of histograms."""
    found = re.findall(r"\b(?:switchyard_\w+|vllm:\w+)", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_the_dashboard_is_what_the_panels_say() -> None:
    committed = (DEPLOY / "grafana" / "switchyard.json").read_text(encoding="utf-8")
    assert committed == dashboard_page(), "run `python -P -m switchyard.server.observe.dashboard FILE`"
    places = [panel["gridPos"] for panel in json.loads(committed)["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_queries_and_alerts_name_metrics_that_there_are() -> None:
    known = {spec.name for spec in METRICS}
    for expression in (*EXPRESSIONS, *(rule["expr"] for rule in RULES)):
        assert named(expression) <= known, expression


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for expression in EXPRESSIONS for name in named(expression)}
    # The last is for routers, which read labels.
    assert {spec.name for spec in METRICS} - shown == {"vllm:lora_requests_info"}


def test_every_alert_says_what_and_what_to_do_and_is_tested() -> None:
    tested = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}


def test_what_alerts_wait_for_is_there_before_it_happens() -> None:
    """A counter that begins with its first event has not increased, and the alert would be silent that once."""
    samples = {
        (sample.name, value)
        for family in Metrics().registry.collect()
        for sample in family.samples
        for value in sample.labels.values()
    }
    waited = re.findall(r'increase\((\w+){\w+="(\w+)"}', " ".join(rule["expr"] for rule in RULES))
    assert len(waited) == 4
    assert set(waited) <= samples


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    tool = find_tool("promtool")
    assert tool is not None
    done = subprocess.run([tool, *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def until(what: Callable[[], Any], limit_s: float = 60.0) -> Any:
    """Looks again until there is something."""
    async with asyncio.timeout(limit_s):
        while not (found := await asyncio.to_thread(what)):
            await asyncio.sleep(0.2)
    return found


def filled(expression: str) -> str:
    """A query as Grafana would send it."""
    return expression.replace("$job", "switchyard").replace("$__rate_interval", "1m")


@needs_prometheus
@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_live_prometheus_gets_every_metric_and_fills_every_panel(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    async with serving(place, adapter_slots=1, rollout_look_s=0.2) as (addresses, _):
        with prometheus(_made(tmp_path / "prometheus"), addresses.http) as server:
            start_rollout(place)
            refs = [f"{NAMES[0]}@prod"] * 24 + [f"{name}@prod" for name in NAMES] * 2 + ["base", "team/nobody@prod"]
            codes = await ask(addresses.grpc, refs)
            assert codes[-1] == "NOT_FOUND"
            assert set(codes[:24]) > {"ok"}
            await until(lambda: server.ask('switchyard_rollouts_ended_total{state="ROLLED_BACK"} == 1'))
            await ask(addresses.grpc, refs)
            for expression in map(filled, EXPRESSIONS):
                await until(lambda expression=expression: server.ask(expression))
            await asyncio.to_thread(_check_every_metric, server)
            before = await asyncio.to_thread(server.ask, 'count({job="switchyard"})')
            unknown = await ask(addresses.grpc, [f"team/unknown-{number}@prod" for number in range(500)])
            assert set(unknown) == {"NOT_FOUND"}
            refused = 'sum(switchyard_requests_refused_total{reason="ADAPTER_NOT_FOUND"}) >= 502'
            await until(lambda: server.ask(refused))
            after = await asyncio.to_thread(server.ask, 'count({job="switchyard"})')
    assert after[0]["value"][1] == before[0]["value"][1]


def _check_every_metric(server: Prometheus) -> None:
    told = server.get("/api/v1/metadata")
    for spec in METRICS:
        # In OpenMetrics, which Prometheus asks for, the name of a counter is without its suffix.
        entries = told.get(spec.name) or told[spec.name.removesuffix("_total")]
        kind = {entry["type"] for entry in entries}
        assert kind == {spec.kind.value}, spec.name
        sample = f"{spec.name}_count" if spec.kind is Kind.HISTOGRAM else spec.name
        series = server.ask(f'{{__name__="{sample}", job="switchyard"}}')
        assert series, spec.name
        for one in series:
            assert set(one["metric"]) - {"__name__", "job", "instance"} == _labels(spec.labels, one), spec.name


def _labels(labels: tuple[str, ...], one: Any) -> set[str]:
    """The labels of a series as Prometheus keeps it: without those that are empty."""
    return {label for label in labels if one["metric"].get(label)}


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
