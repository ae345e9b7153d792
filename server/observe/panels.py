"""The panels of the dashboard, as data; `dashboard` writes Grafana's JSON from it.

A query names the job as `$job` and its range as `$__rate_interval`, which
Grafana fills in; tests fill them in themselves and ask a live Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_JOB: Final = '{job="$job"}'


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL.
        legend: name of its series, in Grafana's template of labels.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        row: heading that it stands under.
        title: what it shows.
        unit: Grafana's name of the unit.
        queries: what it draws.
    """

    row: str
    title: str
    unit: str
    queries: tuple[Query, ...]


def _rate(metric: str, by: str = "", labels: str = "") -> str:
    where = _JOB if not labels else f'{{job="$job",{labels}}}'
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{where}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "") -> str:
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', groups)})"


def _quantiles(metric: str) -> tuple[Query, ...]:
    return tuple(Query(_quantile(share, metric), f"p{100 * share:g}") for share in (0.5, 0.9, 0.99))


def _by(metric: str, label: str) -> tuple[Query, ...]:
    """One series for each value of a label of a counter."""
    return (Query(_rate(metric, label), f"{{{{{label}}}}}"),)


def _gauge(metric: str, by: str = "") -> str:
    return f"sum by ({by}) ({metric}{_JOB})" if by else f"sum({metric}{_JOB})"


PANELS: Final = (
    Panel("Requests", "Ended, by outcome", "reqps", _by("switchyard_requests_total", "outcome")),
    Panel("Requests", "Refused, by reason", "reqps", _by("switchyard_requests_refused_total", "reason")),
    Panel("Requests", "Calls, by code", "reqps", _by("switchyard_rpcs_total", "code")),
    Panel("Latency", "Time to first token", "s", _quantiles("switchyard_time_to_first_token_seconds")),
    Panel("Latency", "Time between tokens", "s", _quantiles("switchyard_inter_token_latency_seconds")),
    Panel(
        "Latency",
        "Time to first token, p90 by adapter",
        "s",
        (Query(_quantile(0.9, "switchyard_time_to_first_token_seconds", "adapter"), "{{adapter}}"),),
    ),
    Panel(
        "Latency",
        "Waiting, p90",
        "s",
        (
            Query(_quantile(0.9, "switchyard_queue_time_seconds"), "queue"),
            Query(_quantile(0.9, "switchyard_adapter_wait_seconds"), "adapter"),
        ),
    ),
    Panel(
        "Throughput",
        "Tokens per second",
        "short",
        (
            Query(_rate("switchyard_prompt_tokens_total"), "prompt"),
            Query(_rate("switchyard_prefix_cached_tokens_total"), "prompt, from cache"),
            Query(_rate("switchyard_completion_tokens_total"), "completion"),
            Query(_rate("switchyard_step_tokens_total"), "computed"),
        ),
    ),
    Panel(
        "Throughput",
        "Completion tokens per second, by adapter",
        "short",
        (Query(_rate("switchyard_completion_tokens_total", "adapter"), "{{adapter}}"),),
    ),
    Panel("Throughput", "Duration of a step", "s", _quantiles("switchyard_step_seconds")),
    Panel("Throughput", "Sequences in a step", "short", _quantiles("switchyard_step_sequences")),
    Panel(
        "Load",
        "Running and waiting",
        "short",
        (
            Query(_gauge("switchyard_sequences_running"), "sequences running"),
            Query(_gauge("switchyard_requests_waiting"), "requests waiting"),
        ),
    ),
    Panel(
        "Load",
        "KV blocks",
        "short",
        (
            Query(_gauge("switchyard_kv_blocks_used", "use"), "{{use}}"),
            Query(_gauge("switchyard_kv_blocks"), "all"),
        ),
    ),
    Panel(
        "Load",
        "KV rows",
        "short",
        (Query(_gauge("switchyard_kv_rows_used"), "used"), Query(_gauge("switchyard_kv_rows"), "all")),
    ),
    Panel(
        "Load",
        "Preempted and shed",
        "reqps",
        (
            Query(_rate("switchyard_preemptions_total"), "preempted"),
            Query(_rate("switchyard_requests_shed_total"), "shed"),
        ),
    ),
    Panel("Adapters", "Known, by state", "short", (Query(_gauge("switchyard_adapters", "state"), "{{state}}"),)),
    Panel("Adapters", "Memory, by tier", "bytes", (Query(_gauge("switchyard_adapter_bytes", "tier"), "{{tier}}"),)),
    Panel(
        "Adapters",
        "Loading, p90 by phase",
        "s",
        (Query(_quantile(0.9, "switchyard_adapter_load_seconds", "phase"), "{{phase}}"),),
    ),
    Panel(
        "Adapters",
        "Evictions, by tier",
        "ops",
        (Query(_rate("switchyard_adapter_evictions_total", "tier"), "{{tier}}"),),
    ),
    Panel(
        "Rollouts",
        "Answers, by side and outcome",
        "reqps",
        (Query(_rate("switchyard_rollout_answers_total", "side, outcome"), "{{side}} {{outcome}}"),),
    ),
    Panel(
        "Rollouts",
        "Going on, and ended",
        "short",
        (
            Query(f"max(switchyard_rollouts{_JOB})", "going on"),
            Query(_gauge("switchyard_rollouts_ended_total", "state"), "{{state}}"),
        ),
    ),
    Panel(
        "Servers",
        "Memory",
        "bytes",
        (
            Query(f"switchyard_process_resident_bytes{_JOB}", "{{instance}} resident"),
            Query(f"switchyard_base_bytes{_JOB}", "{{instance}} base"),
        ),
    ),
    Panel(
        "Servers",
        "Up, and draining",
        "short",
        (Query(f"sum(up{_JOB})", "up"), Query(_gauge("switchyard_draining"), "draining")),
    ),
    Panel(
        "Servers",
        "What runs",
        "short",
        (
            Query(
                f"sum by (version, base_name, quantization) (switchyard_build_info{_JOB})",
                "{{version}} {{base_name}} {{quantization}}",
            ),
        ),
    ),
)
"""Every panel, in the order of the dashboard."""
