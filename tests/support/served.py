"""A real `switchyard serve` process and clients of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchyard.clients.admin import AdminClient
from switchyard.clients.inference import InferenceClient
from switchyard.clients.registry import RegistryClient

START_S = 90


@dataclass
class Running:
    """A server process and clients of it."""

    process: subprocess.Popen[bytes]
    addresses: dict[str, str]
    base: Path
    adapters: dict[str, Path]
    inference: InferenceClient
    registry: RegistryClient
    admin: AdminClient

    def fingerprint(self) -> str:
        return self.admin.info().base_fingerprint


def start_server(base: Path, root: Path, *flags: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """Starts `switchyard serve` on free ports and waits until it is ready."""
    ready = root / "ready.json"
    command = [
        str(Path(sys.executable).parent / "switchyard"),
        *("serve", "--base", str(base), "--registry", str(root / "registry"), "--threads", "1"),
        *("--port", "0", "--health-port", "0", "--http-port", "0", "--ready-file", str(ready)),
        *flags,
    ]
    ready.unlink(missing_ok=True)
    with (root / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.fail((root / "serve.log").read_text())
        time.sleep(0.05)
    return process, json.loads(ready.read_text())


def stop_server(process: subprocess.Popen[bytes]) -> int:
    """Asks the server to drain and returns its exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60)
