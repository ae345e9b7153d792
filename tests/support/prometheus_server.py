"""A real Prometheus (Debian's package) on a loopback port, scraping one server every second."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parents[2] / "build" / "tools"
_START_S = 60.0


def find_tool(name: str) -> str | None:
    """A program of the package, installed or unpacked by `make tools`."""
    unpacked = TOOLS / "usr" / "bin" / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


@dataclass(frozen=True)
class Prometheus:
    """One that runs.

    Attributes:
        url: where it answers.
    """

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:  # noqa: S310 - our own
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[Any]:
        """The series that a query gives now."""
        found: list[Any] = self.get("/api/v1/query", query=expression)["result"]
        return found


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[Prometheus]:
    """Runs one that scrapes `target` as the job `switchyard` until the block ends."""
    binary = find_tool("prometheus")
    assert binary is not None
    config = directory / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: switchyard, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    storage, listen = f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={address}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([binary, f"--config.file={config}", storage, listen], stdout=log, stderr=log)
    try:
        _wait_until_ready(process, f"http://{address}", directory / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):  # noqa: S310 - our own
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end_s:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.05)
