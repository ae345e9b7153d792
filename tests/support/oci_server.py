"""A real container registry (Debian's docker-registry) on a loopback port of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "build" / "tools"
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")


def find_binary() -> str | None:
    """The program of the package, installed or unpacked by `make tools`."""
    unpacked = TOOLS / "usr" / "bin" / "docker-registry"
    return shutil.which("docker-registry") or (str(unpacked) if unpacked.exists() else None)


@contextmanager
def oci_server(directory: Path, *, htpasswd: str = "") -> Iterator[str]:
    """Runs a registry that keeps its blobs in a directory; yields `host:port`."""
    binary = find_binary()
    assert binary is not None
    auth = ""
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        auth = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}\n"
    (directory / "config.yml").write_text(
        "version: 0.1\nlog: {level: info, formatter: text}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}}}\n"
        f"http: {{addr: 127.0.0.1:0}}\n{auth}"
    )
    process = subprocess.Popen(
        [binary, "serve", str(directory / "config.yml")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := _LISTENING.search(line)))
        # Nobody reads further: the log of a few requests fits the pipe.
        yield address
    finally:
        process.terminate()
        process.wait(10)
        if process.stderr:
            process.stderr.close()
