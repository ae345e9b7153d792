"""A scrape holds every row of the table and nothing else, and series stay bounded."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest, EngineLoad
from switchyard.server.observe.document import metrics_page
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.table import METRICS, Kind, MetricSpec


def selection(number: int) -> AdapterSelection:
    digest = Digest(f"sha256:{number:064x}")
    part = AdapterPart("ns", f"a{number}", 1, digest, "", 0, 1.0, 8, "w", "c", 10)
    return AdapterSelection(digest, (part,), 8)


def used() -> Metrics:
    """Metrics to which everything has happened once."""
    metrics = Metrics(adapter_series=2)
    chosen = selection(1)
    metrics.describe_build(version="1", base_name="b", base_digest="d", quantization="nf4")
    metrics.describe_memory(base_bytes=1000, adapter_slots=4)
    metrics.watch_load(lambda: EngineLoad(1, 2, 3, 4, draining=False))
    metrics.introduce(chosen)
    metrics.queued(chosen.key)
    metrics.started(chosen.key, 0.2, 0.1)
    metrics.first_token(chosen.key, 0.3)
    metrics.token(chosen.key, 0.01)
    metrics.step(0.005, 3, 7)
    metrics.finished(chosen.key, "stop", 5, 2)
    metrics.load_phase("fetch", 0.5)
    metrics.evicted("device")
    metrics.resident({"host": 2}, {"host": 100, "device": 50})
    metrics.refused("QUEUE_FULL")
    metrics.rpc("/service/Method", "OK")
    metrics.rollouts(1)
    metrics.rollout_answers("second", "failed", 2)
    metrics.rollout_ended("ROLLED_BACK")
    return metrics


def scrape(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.exposition()[0].decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return samples


def sample_name(spec: MetricSpec) -> str:
    return f"{spec.name}_count" if spec.kind is Kind.HISTOGRAM else spec.name


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_each_row_of_the_table_is_scraped_with_its_type_and_labels(spec: MetricSpec) -> None:
    metrics = used()
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition()[0].decode())}
    family = families[spec.name.removesuffix("_total") if spec.kind is Kind.COUNTER else spec.name]
    assert family.type == spec.kind.value
    assert family.documentation == spec.help
    labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
    assert labels == {frozenset(spec.labels)}


def test_nothing_is_scraped_that_is_not_in_the_table() -> None:
    known = {spec.name.removesuffix("_total") for spec in METRICS}
    families = text_string_to_metric_families(used().exposition()[0].decode())
    assert {family.name.removesuffix("_total") for family in families} == known


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_names_are_those_of_the_table_in_either_format(accept: str) -> None:
    text = used().exposition(accept)[0].decode()
    for spec in METRICS:
        name = sample_name(spec)
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name


def test_names_say_their_unit() -> None:
    for spec in METRICS:
        stem = spec.name.removesuffix("_total")
        if spec.unit in {"seconds", "bytes"} and not spec.name.startswith("vllm:"):
            assert stem.endswith(spec.unit)
        assert spec.name.endswith("_total") == (spec.kind is Kind.COUNTER)
        assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)


def test_values_are_what_was_told() -> None:
    samples = scrape(used())
    assert samples["switchyard_time_to_first_token_seconds_sum"] == [({"adapter": "ns/a1:1"}, 0.3)]
    ended = {labels["outcome"]: value for labels, value in samples["switchyard_requests_total"]}
    assert ended == {"stop": 1.0, "length": 0.0, "NUMERIC_FAULT": 0.0, "ENGINE_FAILED": 0.0}
    assert samples["switchyard_prompt_tokens_total"] == [({"adapter": "ns/a1:1"}, 5.0)]
    assert samples["switchyard_adapter_load_seconds_sum"] == [({"phase": "fetch"}, 0.5)]
    assert samples["switchyard_kv_rows"] == [({}, 4.0)]
    assert samples["switchyard_process_resident_bytes"][0][1] > 1_000_000
    states = {labels["state"]: value for labels, value in samples["switchyard_adapters"]}
    assert states == {"fetching": 0, "host": 2, "resident": 0, "failed": 0}


def test_a_hundred_thousand_adapters_leave_the_series_bounded() -> None:
    metrics = Metrics(adapter_series=4)
    for number in range(100_000):
        key = f"sha256:{number:064x}"
        metrics.first_token(key, 0.1)
        metrics.finished(key, "stop", 1, 1)
    samples = scrape(metrics)
    assert len(samples["switchyard_time_to_first_token_seconds_count"]) <= 5
    assert len(samples["switchyard_prompt_tokens_total"]) <= 5
    assert "other" in {labels["adapter"] for labels, _ in samples["switchyard_prompt_tokens_total"]}


def test_the_busy_displace_the_idle() -> None:
    metrics = Metrics(adapter_series=2)
    metrics.finished("early-1", "stop", 1, 1)
    metrics.finished("early-2", "stop", 1, 1)
    for _ in range(3):
        metrics.finished("busy", "stop", 1, 1)
    owners = {labels["adapter"] for labels, _ in scrape(metrics)["switchyard_prompt_tokens_total"]}
    assert "busy" in owners
    assert len(owners - {"other"}) == 2


def test_the_base_has_its_own_series() -> None:
    metrics = Metrics(adapter_series=1)
    metrics.token(None, 0.1)
    metrics.queued(None)
    metrics.started(None, 0.0, 0.0)
    metrics.finished(None, "length", 3, 1)
    assert scrape(metrics)["switchyard_prompt_tokens_total"] == [({"adapter": "base"}, 3.0)]


def lora_info(metrics: Metrics) -> tuple[dict[str, str], float]:
    [sample] = scrape(metrics)["vllm:lora_requests_info"]
    return sample


def test_routers_see_who_runs_and_who_waits_in_one_series() -> None:
    metrics = Metrics()
    metrics.describe_memory(base_bytes=0, adapter_slots=4)
    first, second = selection(1), selection(2)
    for chosen in (first, second):
        metrics.introduce(chosen)
        metrics.queued(chosen.key)
    metrics.queued(first.key)
    metrics.started(first.key, 0.0, 0.0)
    labels, value = lora_info(metrics)
    assert labels == {
        "max_lora": "4",
        "running_lora_adapters": "ns/a1:1",
        "waiting_lora_adapters": "ns/a1:1,ns/a2:1",
    }
    assert abs(value - time.time()) < 60
    metrics.finished(first.key, "stop", 1, 1)
    metrics.finished(first.key, "CANCELLED", 1, 0)
    metrics.finished(second.key, "CANCELLED", 1, 0)
    labels, _ = lora_info(metrics)
    assert (labels["running_lora_adapters"], labels["waiting_lora_adapters"]) == ("", "")


def test_a_composition_is_named_by_its_recipe() -> None:
    metrics = Metrics()
    part = selection(1).parts[0]
    recipe = Digest("sha256:" + "f" * 64)
    metrics.introduce(AdapterSelection(recipe, (part, part), 16, recipe_digest=recipe))
    metrics.finished(recipe, "stop", 1, 1)
    assert scrape(metrics)["switchyard_prompt_tokens_total"] == [({"adapter": f"recipe@{recipe}"}, 1.0)]


def test_openmetrics_is_spoken_to_those_who_ask() -> None:
    body, content_type = used().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_page_is_what_the_table_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == metrics_page(), (
        "write it again: python -P -m switchyard.server.observe.document docs/metrics.md"
    )
