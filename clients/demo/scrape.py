"""One scrape of a server's metrics, and the few numbers of it that the demo shows."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from switchyard.clients.errors import DemoFailed
from switchyard.clients.render import size

_LINE: Final = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition format."""

    name: str
    labels: Mapping[str, str]
    value: float


def scrape(address: str) -> list[Sample]:
    """Reads `/metrics` of the server at `address` (`host:port`).

    Raises:
        DemoFailed: there is no answer.
    """
    # This machine's own socket: a proxy of the environment could not reach it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=_TIMEOUT_S) as response:
            text = response.read().decode("utf-8")
    except OSError as error:
        raise DemoFailed(f"no metrics at http://{address}/metrics: {error}.") from error
    return parse(text)


def parse(text: str) -> list[Sample]:
    """Reads the Prometheus exposition format, as far as names, labels and values."""
    samples = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and not line.startswith("#"):
            labels = dict(_LABEL.findall(match["labels"] or ""))
            samples.append(Sample(match["name"], labels, float(match["value"])))
    return samples


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """Sum over all series of `name` that have these labels."""
    return sum(
        one.value
        for one in samples
        if one.name == name and all(one.labels.get(key) == value for key, value in labels.items())
    )


def highlights(samples: list[Sample]) -> dict[str, str]:
    """The few numbers that tell the demo's story."""

    def mean(name: str, **labels: str) -> float:
        return total(samples, f"{name}_sum", **labels) / max(total(samples, f"{name}_count", **labels), 1.0)

    loads = total(samples, "switchyard_adapter_load_seconds_count", phase="host")
    return {
        "requests answered": f"{total(samples, 'switchyard_requests_total'):,.0f}",
        "tokens produced": f"{total(samples, 'switchyard_completion_tokens_total'):,.0f}",
        "mean TTFT": f"{mean('switchyard_time_to_first_token_seconds') * 1000:.1f} ms",
        "mean ITL": f"{mean('switchyard_inter_token_latency_seconds') * 1000:.2f} ms",
        "mean sequences per step": f"{mean('switchyard_step_sequences'):.1f}",
        "adapter loads": f"{loads:.0f}",
        "adapters resident": f"{total(samples, 'switchyard_adapters', state='resident'):.0f}",
        "adapter bytes": f"{size(int(total(samples, 'switchyard_adapter_bytes')))}",
        "base weights": f"{size(int(total(samples, 'switchyard_base_bytes')))}",
        "process memory": f"{size(int(total(samples, 'switchyard_process_resident_bytes')))}",
    }
