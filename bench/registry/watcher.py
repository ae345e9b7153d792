"""The other process of the watch benchmark: prints when it has seen which revision."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from switchyard.registry.index.changes import Event
from switchyard.registry.store import Registry


def main() -> None:
    """Follows a registry until it has seen so many changes."""
    root, after, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stop, seen = threading.Event(), []
    with Registry.open(root) as registry:
        for change in registry.feed.watch(after, stop=stop):
            if not isinstance(change, Event):
                if not seen:
                    print("ready", flush=True)
                continue
            seen.append(f"{change.revision}:{time.monotonic()}")
            if len(seen) == count:
                break
        stop.set()
    print("\n".join(seen))


if __name__ == "__main__":
    main()
