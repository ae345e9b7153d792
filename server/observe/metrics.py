"""The server's metrics: typed methods in, Prometheus text out.

Rooms call the methods below and never see a metric name; names, units and
labels live in `table`. `Metrics` satisfies the observer ports of the engine and
of adapter residency.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from switchyard.server.adapters.tiers import AdapterState
from switchyard.server.engine.types import AdapterSelection, EngineLoad
from switchyard.server.observe import table
from switchyard.server.observe.busiest import BusiestKeys
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.observe.table import Kind, MetricSpec

BASE_LABEL: Final = "base"
OTHER_LABEL: Final = "other"

_REMEMBERED_LABELS: Final = 4096
"""Adapters whose ref is remembered between requests; beyond it a series is named by digest."""


def adapter_label(selection: AdapterSelection) -> str:
    """The name of a selection in metrics: its ref, or its recipe."""
    if selection.recipe_digest:
        return f"recipe@{selection.recipe_digest}"
    part = selection.parts[0]
    return f"{part.namespace}/{part.adapter}:{part.version}"


class Metrics:
    """Every metric of one server process; all methods are thread-safe and take microseconds."""

    def __init__(self, *, adapter_series: int = 32) -> None:
        """Makes all collectors, each at zero.

        Args:
            adapter_series: adapters that have series of their own; the rest share `other`.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._counters = {s: self._counter(s) for s in table.METRICS if s.kind is Kind.COUNTER}
        self._histograms = {s: self._histogram(s) for s in table.METRICS if s.kind is Kind.HISTOGRAM}
        self._gauges = {
            s: Gauge(s.name, s.help, s.labels, registry=self.registry)
            for s in table.METRICS
            if s.kind is Kind.GAUGE and s is not table.LORA_REQUESTS
        }
        for spec, labels in table.BEGIN_AT_ZERO:
            self._counters[spec].labels(*labels)
        self._adapter_series: dict[MetricSpec, dict[str, Histogram]] = {table.TTFT: {}, table.ITL: {}}
        self._lock = threading.Lock()
        self._busiest = BusiestKeys(adapter_series, self._forget_series)
        self._labels: OrderedDict[str, str] = OrderedDict()
        self.traffic = AdapterTraffic(self._name)
        self.registry.register(self.traffic)
        self._gauges[table.RSS].set_function(resident_bytes)

    def introduce(self, selection: AdapterSelection) -> None:
        """Remembers the ref behind a key; without it a series is named by digest."""
        with self._lock:
            self._labels[selection.key] = adapter_label(selection)
            self._labels.move_to_end(selection.key)
            if len(self._labels) > _REMEMBERED_LABELS:
                self._labels.popitem(last=False)

    # -- the engine's observer

    def queued(self, adapter_key: str | None) -> None:
        """A request was accepted."""
        if adapter_key is not None:
            self.traffic.queued(adapter_key)

    def started(self, adapter_key: str | None, queue_s: float, adapter_wait_s: float) -> None:
        """A request entered the batch."""
        self._histograms[table.QUEUE_TIME].observe(queue_s)
        self._histograms[table.ADAPTER_WAIT].observe(adapter_wait_s)
        if adapter_key is not None:
            self.traffic.started(adapter_key)

    def first_token(self, adapter_key: str | None, ttft_s: float) -> None:
        """A request produced its first token."""
        self._series(table.TTFT, self._label(adapter_key)).observe(ttft_s)

    def token(self, adapter_key: str | None, itl_s: float) -> None:
        """A request produced a further token."""
        self._series(table.ITL, self._label(adapter_key)).observe(itl_s)

    def finished(self, adapter_key: str | None, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A request ended; `outcome` is its finish reason or the reason of its error."""
        label = self._label(adapter_key)
        self._counters[table.REQUESTS].labels(outcome).inc()
        self._counters[table.PROMPT_TOKENS].labels(label).inc(prompt_tokens)
        self._counters[table.COMPLETION_TOKENS].labels(label).inc(completion_tokens)
        if adapter_key is not None:
            self.traffic.finished(adapter_key)

    def step(self, duration_s: float, sequences: int, tokens: int) -> None:
        """One engine step ran."""
        self._histograms[table.STEP_TIME].observe(duration_s)
        self._histograms[table.STEP_SEQUENCES].observe(sequences)
        self._counters[table.STEP_TOKENS].inc(tokens)

    def prefix(self, cached_tokens: int) -> None:
        """A sequence started, with so many tokens of its prompt from the prefix cache."""
        self._counters[table.PREFIX_TOKENS].inc(cached_tokens)

    def preempted(self) -> None:
        """A running sequence gave up its place; it goes on later."""
        self._counters[table.PREEMPTIONS].inc()

    def shed(self) -> None:
        """A waiting request was ended because it could not be answered in time."""
        self._counters[table.SHED].inc()

    # -- residency's observer

    def load_phase(self, phase: str, seconds: float) -> None:
        """One phase of bringing an adapter into memory ended."""
        self._histograms[table.ADAPTER_LOAD].labels(phase).observe(seconds)

    def evicted(self, tier: str) -> None:
        """An adapter left a tier."""
        self._counters[table.ADAPTER_EVICTIONS].labels(tier).inc()

    def resident(self, count_by_state: Mapping[str, int], bytes_by_tier: Mapping[str, int]) -> None:
        """Where adapters are now; replaces what was said before."""
        for state in AdapterState:
            self._gauges[table.ADAPTERS_KNOWN].labels(state.value).set(count_by_state.get(state.value, 0))
        for tier, size_bytes in bytes_by_tier.items():
            self._gauges[table.ADAPTER_BYTES].labels(tier).set(size_bytes)

    # -- the transport's observer

    def refused(self, reason: str) -> None:
        """A request was refused before acceptance."""
        self._counters[table.REFUSED].labels(reason).inc()

    def rpc(self, method: str, code: str) -> None:
        """A call ended; `method` is one that this server has, `code` the name of its status."""
        self._counters[table.RPCS].labels(method, code).inc()

    # -- the rollouts' observer

    def rollouts(self, running: int) -> None:
        """So many rollouts go on."""
        self._gauges[table.ROLLOUTS].set(running)

    def rollout_answers(self, side: str, outcome: str, count: int) -> None:
        """So many more answers of a side count for a rollout."""
        self._counters[table.ROLLOUT_ANSWERS].labels(side, outcome).inc(count)

    def rollout_ended(self, state: str) -> None:
        """This server has ended a rollout."""
        self._counters[table.ROLLOUTS_ENDED].labels(state).inc()

    # -- composition

    def describe_build(self, *, version: str, base_name: str, base_digest: str, quantization: str) -> None:
        """Says once what runs."""
        self._gauges[table.BUILD_INFO].labels(version, base_name, base_digest, quantization).set(1)

    def describe_memory(self, *, base_bytes: int, adapter_slots: int) -> None:
        """Says once what was set aside."""
        self._gauges[table.BASE_BYTES].set(base_bytes)
        self.traffic.adapter_slots = adapter_slots

    def watch_load(self, load: Callable[[], EngineLoad], rss_bytes: Callable[[], int] = resident_bytes) -> None:
        """Reads the engine's load, and the memory of all that serves, at every scrape."""
        self._gauges[table.RSS].set_function(rss_bytes)
        self._gauges[table.REQUESTS_RUNNING].set_function(lambda: load().running_sequences)
        self._gauges[table.REQUESTS_WAITING].set_function(lambda: load().waiting_requests)
        self._gauges[table.KV_ROWS_USED].set_function(lambda: load().kv_rows_used)
        self._gauges[table.KV_ROWS_TOTAL].set_function(lambda: load().kv_rows_total)
        blocks = self._gauges[table.KV_BLOCKS]
        blocks.labels("running").set_function(lambda: load().kv_blocks_running)
        blocks.labels("cached").set_function(lambda: load().kv_blocks_cached)
        self._gauges[table.KV_BLOCKS_TOTAL].set_function(lambda: load().kv_blocks_total)
        self._gauges[table.DRAINING].set_function(lambda: load().draining)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """What a scrape gets.

        Args:
            accept: the scraper's Accept header; chooses between Prometheus and OpenMetrics text.

        Returns:
            Body and content type.
        """
        if "application/openmetrics-text" in accept:
            # By default the library writes `_` for the colon of vLLM's name, although the name is legal.
            names = {"escaping": openmetrics.ALLOWUTF8, "version": "1.0.0"}
            body: bytes = openmetrics.generate_latest(self.registry, **names)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _label(self, adapter_key: str | None) -> str:
        if adapter_key is None:
            return BASE_LABEL
        with self._lock:
            label = self._labels.get(adapter_key, adapter_key)
            return label if self._busiest.owns(label) else OTHER_LABEL

    def _series(self, spec: MetricSpec, label: str) -> Histogram:
        series = self._adapter_series[spec].get(label)
        if series is None:
            series = self._adapter_series[spec][label] = self._histograms[spec].labels(label)
        return series

    def _name(self, adapter_key: str) -> str:
        with self._lock:
            return self._labels.get(adapter_key, adapter_key)

    def _forget_series(self, label: str) -> None:
        for spec, series in self._adapter_series.items():
            series.pop(label, None)
            self._histograms[spec].remove(label)
        for spec in (table.PROMPT_TOKENS, table.COMPLETION_TOKENS):
            self._counters[spec].remove(label)

    def _counter(self, spec: MetricSpec) -> Counter:
        return Counter(spec.name, spec.help, spec.labels, registry=self.registry)

    def _histogram(self, spec: MetricSpec) -> Histogram:
        return Histogram(spec.name, spec.help, spec.labels, buckets=spec.buckets, registry=self.registry)


class AdapterTraffic(Collector):
    """Which adapters have running and waiting requests; one series, whatever their number."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self.adapter_slots = 0
        self._name = name
        self._lock = threading.Lock()
        self._waiting: Counts[str] = Counts()
        self._running: Counts[str] = Counts()

    def queued(self, adapter_key: str) -> None:
        """A request waits."""
        with self._lock:
            self._waiting[adapter_key] += 1

    def started(self, adapter_key: str) -> None:
        """A waiting request runs."""
        with self._lock:
            self._take(self._waiting, adapter_key)
            self._running[adapter_key] += 1

    def finished(self, adapter_key: str) -> None:
        """One request of this adapter ended; a running one is taken to be meant before a waiting one."""
        with self._lock:
            self._take(self._running if adapter_key in self._running else self._waiting, adapter_key)

    def collect(self) -> Iterable[Metric]:
        """Yields the one gauge."""
        spec = table.LORA_REQUESTS
        with self._lock:
            running, waiting = list(self._running), list(self._waiting)
        family = GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
        names = [",".join(sorted(self._name(key) for key in keys)) for keys in (running, waiting)]
        family.add_metric([str(self.adapter_slots), *names], time.time())
        yield family

    @staticmethod
    def _take(requests: Counts[str], adapter_key: str) -> None:
        requests[adapter_key] -= 1
        if requests[adapter_key] <= 0:
            del requests[adapter_key]
