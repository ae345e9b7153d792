"""Draws the dashboard: a server under load, a real Prometheus beside it, and every panel from what its queries gave.

`make dashboard` runs it; the picture is docs/dashboard.png.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from drawing import draw
from monitored import NAMES, ask, make_place, start_rollout
from prometheus_server import Prometheus, prometheus
from whole_server import serving

from switchyard.server.observe.panels import PANELS

_STEP_S = 2
_RANGE = "15s"


async def load(address: str, place: Path, seconds: float) -> None:
    """Three waves of callers; a rollout of a version that cannot be loaded begins in the second."""
    draw_one, end_s, began = random.Random(7), time.monotonic() + seconds, False  # noqa: S311 - not for secrets
    refs = [*(f"{name}@prod" for name in NAMES), "base"]
    while (left_s := end_s - time.monotonic()) > 0:
        if not began and left_s < seconds / 2:
            start_rollout(place)
            began = True
        wave = 4 if int(left_s / seconds * 6) % 2 else 12
        chosen = draw_one.choices(refs, weights=(6, 3, 1, 2), k=wave)
        strangers = ["team/nobody@prod"] if draw_one.random() < 0.3 else []
        await ask(address, [*chosen, *strangers], max_tokens=draw_one.choice((8, 24, 48)))


def series_of(server: Prometheus, expression: str, start_s: float, end_s: float) -> list[dict[str, object]]:
    """What a query of a panel gave over the run."""
    filled = expression.replace("$job", "switchyard").replace("$__rate_interval", _RANGE)
    times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": str(_STEP_S)}
    found: list[dict[str, object]] = server.get("/api/v1/query_range", query=filled, **times)["result"]
    return found


async def main(seconds: float, out: Path) -> None:
    """Serves, loads, asks and draws."""
    with tempfile.TemporaryDirectory() as scratch:
        place = make_place(Path(scratch))
        (place / "prometheus").mkdir()
        async with serving(place, adapter_slots=2, rollout_look_s=1.0) as (addresses, _):
            with prometheus(place / "prometheus", addresses.http) as server:
                start_s = time.time()
                await load(addresses.grpc, place, seconds)
                found = {
                    query: await asyncio.to_thread(series_of, server, query.expression, start_s, time.time())
                    for panel in PANELS
                    for query in panel.queries
                }
    draw(found, start_s, out)
    print(f"{len(found)} queries, {sum(map(len, found.values()))} series -> {out}")
    print("without data:", [query.expression for query, series in found.items() if not series])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    arguments = parser.parse_args()
    asyncio.run(main(arguments.seconds, arguments.out))
