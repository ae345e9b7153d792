"""`python bench/engine/run.py [SHAPE]`: the engine against PEFT on one NF4 base; writes bench/results/engine.md.

One process, one thread, interleaved rounds, CPU time beside wall time, the best
of the rounds. PEFT runs in float32 and bfloat16, with both of its attentions;
its best setting counts, case by case.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from peers import SETTINGS, PeftPeer
from rich.console import Console

from switchyard.registry.base_model import describe_base
from switchyard.server.config import ServerConfig
from switchyard.server.measure.decode import PROMPT_TOKENS, decode_once, rows_of
from switchyard.server.measure.material import make_adapters, make_base
from switchyard.server.measure.report import draw, figure, machine, markdown_table
from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig, fill
from switchyard.server.measure.shapes import BENCH_512X8, BENCH_1024X16, SHAPES, TINY, Shape
from switchyard.server.measure.spent import Rounds, Spent
from switchyard.server.measure.suite import FULL, QUICK, run_suite
from switchyard.server.measure.workloads import batch

RESULTS = Path(__file__).parents[1] / "results"
LOOK_TOKENS = 3
TOKENS = 8
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Against:
    """One comparison: how many requests, how many adapters, and which way of PEFT.

    Attributes:
        label: row of the issue's table.
        requests: in the batch.
        adapters: distinct ones among them.
        way: method of `PeftPeer`.
        goal: least ratio.
    """

    label: str
    requests: int
    adapters: int
    way: str
    goal: float

    @property
    def case(self) -> str:
        """In words."""
        ways = {"mixed": "PEFT's mixed batch", "switching": "PEFT switching", "single": "PEFT's one adapter"}
        return f"{self.requests} requests, {self.adapters} adapters, over {ways[self.way]}"


LARGE = (
    Against("a", 16, 16, "mixed", 3.5),
    Against("c", 16, 16, "switching", 9.0),
    Against("e", 1, 1, "single", 3.0),
)
MANY = (Against("b", 64, 64, "mixed", 8.0),)


def main() -> None:
    """Runs everything and writes the table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    large = SHAPES[sys.argv[1]] if len(sys.argv) > 1 else BENCH_1024X16
    many, effort = (TINY, QUICK) if large is TINY else (BENCH_512X8, FULL)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as name:
        place = Path(name)
        against = [
            *_compared(place / "large", large, LARGE),
            *_compared(place / "many", many, MANY),
        ]
        suite = place / "suite"
        suite.mkdir()
        base = place / "large" / "base"
        stages = Console(stderr=True).print
        own = []
        for row in run_suite(base, suite, rank=large.rank, effort=effort, threads=1, on_stage=stages):
            stages(f"{row.case}: {figure(row)} {row.unit}")
            own.append(row)
    _write(large, against, own)


def _compared(place: Path, shape: Shape, cases: Sequence[Against]) -> Iterator[tuple[Against, Row]]:
    """Every case on one base, ours and PEFT's by turns."""
    base = make_base(place / "base", shape)
    count = max(case.adapters for case in cases)
    adapters = make_adapters(place / "adapters", describe_base(base).modules, ranks=[shape.rank] * count)
    fill(place / "registry", base, adapters)
    sequences = max(case.requests for case in cases)
    config = ServerConfig(
        base=str(base),
        registry=place / "registry",
        threads=1,
        max_sequences=sequences,
        adapter_slots=count,
        prefill_chunk_tokens=sequences * PROMPT_TOKENS,
    )
    with Rig(config) as rig:
        peers = {str(setting): PeftPeer(base, adapters, setting) for setting in SETTINGS}
        for case in cases:
            row = _ratio(rig, peers, case)
            Console(stderr=True).print(f"{case.label}: {case.case}: {figure(row)}x; {row.note}")
            yield case, row


def _ratio(rig: Rig, peers: dict[str, PeftPeer], case: Against) -> Row:
    rows = [row % case.adapters for row in range(case.requests)]
    prompts = torch.tensor(
        [
            ask.prompt
            for ask in batch(
                rows_of(case.requests, case.adapters), prompt_tokens=PROMPT_TOKENS, tokens=1, vocab=rig.vocab
            )
        ]
    )
    # One look at all of PEFT's settings; the best of them then runs against ours. Switching is one adapter after the
    # other, and what is best for one adapter is best for each.
    way = replace(case, way="single", requests=1) if case.way == "switching" else case
    look = Rounds.of(_runs(peers, way, prompts[: way.requests], rows[: way.requests], LOOK_TOKENS), 1)
    setting = min(look.spent, key=lambda name: look.best(name).cpu_s)
    theirs = _runs({setting: peers[setting]}, case, prompts, rows, TOKENS)
    ours = {"ours": partial(decode_once, rig, case.requests, case.adapters, TOKENS)}
    found = Rounds.of(ours | {"theirs": theirs[setting]}, ROUNDS)
    done = case.requests * TOKENS
    note = (
        f"{done / found.best('ours').cpu_s:.0f} over {done / found.best('theirs').cpu_s:.0f} tokens/CPU-s; "
        f"on the clock {found.wall_ratio('theirs', 'ours'):.2f}x; PEFT with {setting}"
    )
    return Row("against PEFT", case.case, found.ratio("theirs", "ours"), "x", note)


def _runs(
    peers: dict[str, PeftPeer], case: Against, prompts: torch.Tensor, rows: Sequence[int], tokens: int
) -> dict[str, Callable[[], Spent]]:
    return {name: partial(getattr(peer, case.way), prompts, rows, tokens) for name, peer in peers.items()}


def _write(shape: Shape, against: Sequence[tuple[Against, Row]], own: Sequence[Row]) -> None:
    lines = [
        f"# The engine on {shape.name}, r={shape.rank} on all linear layers, NF4 with double quantisation",
        "",
        f"{datetime.now(UTC):%Y-%m-%d} · {machine()}, one thread · `make bench-engine`",
        "",
        "| # | against PEFT on the same 4-bit base | ratio | goal | figures |",
        "|---|---|---|---|---|",
        *(f"| {case.label} | {row.case} | {figure(row)}x | {case.goal:g}x | {row.note} |" for case, row in against),
        "",
        f"Row b runs on {BENCH_512X8.name} with r={BENCH_512X8.rank}. `switchyard bench --shape {shape.name}` in the same run:",
        "",
        markdown_table(own),
        "",
        "![the same as a picture](engine.png)",
    ]
    text = "\n".join(lines) + "\n"
    Console().print(text)
    if shape is not TINY:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "engine.md").write_text(text)
        (RESULTS / "engine.png").write_bytes(draw(own, shape.name))


if __name__ == "__main__":
    main()
