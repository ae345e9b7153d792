"""How much memory the base and the adapters take, against the bytes they have to be.

    python -m switchyard.server.measure.memory BASE

prints the growth of this process by loading the base: a fresh process, because
what a library leaves behind is part of the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig
from switchyard.server.measure.sizes import Sizes
from switchyard.server.model.loading import load_base
from switchyard.server.observe.memory import resident_bytes


def base_memory(base: Path, rig: Rig) -> Iterator[Row]:
    """Resident growth by loading the base, over its 4-bit weights, 16-bit head and embeddings."""
    command = [sys.executable, "-P", "-m", "switchyard.server.measure.memory", str(base)]
    grown = int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["grown_bytes"])
    floor = Sizes.of(rig.core.base.spec).resident_bytes
    note = f"{grown / 1e6:.0f} MB grown, {floor / 1e6:.0f} MB of weights"
    yield Row("memory", "RSS of the base over its 4-bit and 16-bit weights", grown / floor, "x", note)


def adapter_memory(rig: Rig, file_bytes: int) -> Iterator[Row]:
    """Bytes of the largest resident adapter over its file."""
    sizes = [status.device_bytes for status in rig.core.host.statuses() if status.device_bytes]
    note = f"{max(sizes)} of {file_bytes} bytes"
    yield Row("memory", "bytes per resident adapter over its file", max(sizes) / file_bytes, "x", note)


def main() -> None:
    """Loads the base named on the command line and prints by how much the process grew."""
    before = resident_bytes()
    base = load_base(sys.argv[1])
    print(json.dumps({"grown_bytes": resident_bytes() - before, "accounted_bytes": base.nbytes}))  # noqa: T201


if __name__ == "__main__":
    main()
