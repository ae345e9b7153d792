"""Every metric that the server exposes, as data.

The facade in `metrics` builds its collectors from this table, `document` writes
`docs/metrics.md` from it, and tests compare a live scrape with it: a metric that
is not here does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Prometheus metric types in use; the value is the word in the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class MetricSpec:
    """One metric; compared and hashed by identity, because it is looked up for every token.

    Attributes:
        name: full name as it is scraped, without the suffixes of a histogram.
        kind: type.
        unit: unit of the value; empty for counts.
        labels: label names, in order.
        help: one sentence for operators.
        buckets: upper bounds of a histogram, in `unit`.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From one decode step of a small model to a queue that nobody should wait in."""

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

ADAPTER = ("adapter",)
"""Label of a version: its ref, `base`, or `other` for all but the busiest."""

TTFT = MetricSpec(
    "switchyard_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ADAPTER,
    "Accepted to first token, including the queue and the wait for the adapter.",
    LATENCY_BUCKETS_S,
)
ITL = MetricSpec(
    "switchyard_inter_token_latency_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ADAPTER,
    "Gap between consecutive tokens of one answer.",
    LATENCY_BUCKETS_S,
)
QUEUE_TIME = MetricSpec(
    "switchyard_queue_time_seconds",
    Kind.HISTOGRAM,
    "seconds",
    (),
    "Accepted to first planned.",
    LATENCY_BUCKETS_S,
)
ADAPTER_WAIT = MetricSpec(
    "switchyard_adapter_wait_seconds",
    Kind.HISTOGRAM,
    "seconds",
    (),
    "Part of the queue time spent waiting for the adapter to become resident.",
    LATENCY_BUCKETS_S,
)
REQUESTS = MetricSpec(
    "switchyard_requests_total",
    Kind.COUNTER,
    "",
    ("outcome",),
    "Accepted requests that ended, by outcome: stop, length, or the reason of the error.",
)
REFUSED = MetricSpec(
    "switchyard_requests_refused_total",
    Kind.COUNTER,
    "",
    ("reason",),
    "Requests refused before acceptance, by reason.",
)
PROMPT_TOKENS = MetricSpec(
    "switchyard_prompt_tokens_total",
    Kind.COUNTER,
    "tokens",
    ADAPTER,
    "Tokens of prompts of requests that ended.",
)
COMPLETION_TOKENS = MetricSpec(
    "switchyard_completion_tokens_total",
    Kind.COUNTER,
    "tokens",
    ADAPTER,
    "Tokens produced by requests that ended.",
)
ADAPTER_LOAD = MetricSpec(
    "switchyard_adapter_load_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("phase",),
    "Time to load an adapter, by phase: fetch (read), host (unpack), verify (its digest), device (copy to a slot).",
    LATENCY_BUCKETS_S,
)
ADAPTER_EVICTIONS = MetricSpec(
    "switchyard_adapter_evictions_total",
    Kind.COUNTER,
    "",
    ("tier",),
    "Adapters evicted, by the tier they left: host, device.",
)
ADAPTERS_KNOWN = MetricSpec(
    "switchyard_adapters",
    Kind.GAUGE,
    "",
    ("state",),
    "Adapters known to the server, by state: fetching, host, resident, failed.",
)
ADAPTER_BYTES = MetricSpec(
    "switchyard_adapter_bytes",
    Kind.GAUGE,
    "bytes",
    ("tier",),
    "Memory held by adapters, by tier: host, device.",
)
REQUESTS_RUNNING = MetricSpec(
    "switchyard_sequences_running", Kind.GAUGE, "", (), "Sequences that take part in steps now."
)
REQUESTS_WAITING = MetricSpec("switchyard_requests_waiting", Kind.GAUGE, "", (), "Accepted requests that wait.")
KV_ROWS_USED = MetricSpec("switchyard_kv_rows_used", Kind.GAUGE, "", (), "Rows of the KV cache in use.")
KV_ROWS_TOTAL = MetricSpec("switchyard_kv_rows", Kind.GAUGE, "", (), "Rows of the KV cache.")
KV_BLOCKS = MetricSpec(
    "switchyard_kv_blocks_used",
    Kind.GAUGE,
    "",
    ("use",),
    "Blocks of KV memory, 64 tokens each, by use: running (sequences), cached (beginnings of prompts).",
)
KV_BLOCKS_TOTAL = MetricSpec("switchyard_kv_blocks", Kind.GAUGE, "", (), "Blocks of KV memory that may be used.")
PREFIX_TOKENS = MetricSpec(
    "switchyard_prefix_cached_tokens_total",
    Kind.COUNTER,
    "tokens",
    (),
    "Prompt tokens that were not computed because their beginning was cached.",
)
PREEMPTIONS = MetricSpec(
    "switchyard_preemptions_total",
    Kind.COUNTER,
    "",
    (),
    "Running sequences that gave up their place and went on later.",
)
SHED = MetricSpec(
    "switchyard_requests_shed_total",
    Kind.COUNTER,
    "",
    (),
    "Waiting requests that were ended because they could not have been answered in time.",
)
DRAINING = MetricSpec("switchyard_draining", Kind.GAUGE, "", (), "1 while the server refuses new requests to stop.")
ROLLOUTS = MetricSpec("switchyard_rollouts", Kind.GAUGE, "", (), "Rollouts of the registry that go on.")
ROLLOUT_ANSWERS = MetricSpec(
    "switchyard_rollout_answers_total",
    Kind.COUNTER,
    "",
    ("side", "outcome"),
    "Answers that count for a rollout, by side (first, second) and outcome: answered, failed, not_finite.",
)
ROLLOUTS_ENDED = MetricSpec(
    "switchyard_rollouts_ended_total",
    Kind.COUNTER,
    "",
    ("state",),
    "Rollouts that this server has ended, by state: PROMOTED, ROLLED_BACK, UNDECIDED.",
)
STEP_TIME = MetricSpec(
    "switchyard_step_seconds",
    Kind.HISTOGRAM,
    "seconds",
    (),
    "Duration of one engine step.",
    LATENCY_BUCKETS_S,
)
STEP_SEQUENCES = MetricSpec(
    "switchyard_step_sequences", Kind.HISTOGRAM, "", (), "Sequences in one engine step.", BATCH_BUCKETS
)
STEP_TOKENS = MetricSpec("switchyard_step_tokens_total", Kind.COUNTER, "tokens", (), "Tokens processed in steps.")
RPCS = MetricSpec(
    "switchyard_rpcs_total",
    Kind.COUNTER,
    "",
    ("method", "code"),
    "Calls that ended, by gRPC method or HTTP path, and code.",
)
RSS = MetricSpec(
    "switchyard_process_resident_bytes", Kind.GAUGE, "bytes", (), "Resident memory of the server process."
)
BASE_BYTES = MetricSpec("switchyard_base_bytes", Kind.GAUGE, "bytes", (), "Memory held by the base model's weights.")
BUILD_INFO = MetricSpec(
    "switchyard_build_info",
    Kind.GAUGE,
    "",
    ("version", "base_name", "base_digest", "quantization"),
    "Always 1; the labels say what runs.",
)
LORA_REQUESTS = MetricSpec(
    "vllm:lora_requests_info",
    Kind.GAUGE,
    "seconds",
    ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
    "Unix time of the scrape; the labels name adapters with running and waiting requests, as vLLM's gauge does.",
)

BEGIN_AT_ZERO: tuple[tuple[MetricSpec, tuple[str, ...]], ...] = (
    *((REQUESTS, (outcome,)) for outcome in ("stop", "length", "NUMERIC_FAULT", "ENGINE_FAILED")),
    *((ROLLOUT_ANSWERS, (side, how)) for side in ("first", "second") for how in ("answered", "failed", "not_finite")),
    *((ROLLOUTS_ENDED, (state,)) for state in ("PROMOTED", "ROLLED_BACK", "UNDECIDED")),
)
"""Counters that are there from the start: what appears with its first event has not increased for an alert."""

METRICS: tuple[MetricSpec, ...] = (
    TTFT,
    ITL,
    QUEUE_TIME,
    ADAPTER_WAIT,
    REQUESTS,
    REFUSED,
    PROMPT_TOKENS,
    COMPLETION_TOKENS,
    ADAPTER_LOAD,
    ADAPTER_EVICTIONS,
    ADAPTERS_KNOWN,
    ADAPTER_BYTES,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    KV_ROWS_USED,
    KV_ROWS_TOTAL,
    KV_BLOCKS,
    KV_BLOCKS_TOTAL,
    PREFIX_TOKENS,
    PREEMPTIONS,
    SHED,
    DRAINING,
    ROLLOUTS,
    ROLLOUT_ANSWERS,
    ROLLOUTS_ENDED,
    STEP_TIME,
    STEP_SEQUENCES,
    STEP_TOKENS,
    RPCS,
    RSS,
    BASE_BYTES,
    BUILD_INFO,
    LORA_REQUESTS,
)
"""Every metric, in the order of the documentation."""
