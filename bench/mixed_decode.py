"""Decode tokens per CPU second: this engine against PEFT on the same NF4 base.

One process, one thread, interleaved rounds, CPU time as the clock, the best of
the rounds; the prefill and the first token are subtracted. The peer gets the
better of its two attention settings. The numbers of one row are from one run;
compare ratios, not rows of different machines.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from peers import PeftPeer
from rich.console import Console
from workbench import VOCAB, Bench, Shape, machine, make_adapters, make_base

SHAPE = Shape("bench-512x8", hidden=512, layers=8, rank=8)
CASES = ((1, 1), (4, 4), (16, 1), (16, 4), (16, 16))
PROMPT_TOKENS = 32
TOKENS = 24
ROUNDS = 3
RESULT = Path(__file__).parent / "results" / "mixed_decode.md"


def main() -> None:
    """Runs all cases and writes the table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        rows = _measure(Path(root))
    lines = [
        f"# Mixed decode, {SHAPE.name}, r={SHAPE.rank} on all linear layers, NF4 with double quantisation, float32",
        "",
        f"{datetime.now(UTC):%Y-%m-%d} · {machine()} · `make bench`",
        "",
        f"Decode tokens per CPU second, prompts of {PROMPT_TOKENS}, {TOKENS} tokens, best of {ROUNDS} interleaved rounds.",
        "",
        "| requests | distinct adapters | Switchyard | PEFT mixed batch | ratio | PEFT switching | ratio | bare base | tax |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "`tax` is Switchyard with adapters over Switchyard without. PEFT at one adapter runs without `adapter_names`.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    Console().print("\n".join(lines))


def _measure(root: Path) -> list[str]:
    base = make_base(root / "base", SHAPE)
    adapters = make_adapters(base, root / "adapters", SHAPE, max(count for _, count in CASES))
    bench = Bench(base, adapters, root / "registry", sequences=16)
    peers = [PeftPeer(base, adapters, attention) for attention in ("sdpa", "eager")]
    generator = torch.Generator().manual_seed(1)
    rows = []
    for batch, distinct in CASES:
        prompts = torch.randint(5, VOCAB, (batch, PROMPT_TOKENS), generator=generator)
        own = [row % distinct for row in range(batch)]
        runs: dict[str, Callable[[int], float]] = {
            "own": lambda tokens, p=prompts, a=own: bench.generate(p, a, tokens),
            "base": lambda tokens, p=prompts, n=batch: bench.generate(p, [None] * n, tokens),
        }
        for index, peer in enumerate(peers):
            runs[f"mixed{index}"] = _mixed(peer, prompts, own, distinct)
            runs[f"switching{index}"] = lambda tokens, p=prompts, a=own, peer=peer: peer.switching(p, a, tokens)
        best = _rates(runs, batch)
        mixed = max(best["mixed0"], best["mixed1"])
        switching = max(best["switching0"], best["switching1"])
        rows.append(
            f"| {batch} | {distinct} | {best['own']:.0f} | {mixed:.0f} | {best['own'] / mixed:.2f}x "
            f"| {switching:.0f} | {best['own'] / switching:.2f}x | {best['base']:.0f} | {best['own'] / best['base']:.2f} |"
        )
    bench.close()
    return rows


def _mixed(peer: PeftPeer, prompts: torch.Tensor, own: Sequence[int], distinct: int) -> Callable[[int], float]:
    if distinct == 1:
        return lambda tokens: peer.single(prompts, 0, tokens)
    return lambda tokens: peer.mixed(prompts, own, tokens)


def _rates(runs: dict[str, Callable[[int], float]], batch: int) -> dict[str, float]:
    """Decode tokens per CPU second of each run, best of the interleaved rounds."""
    for run in runs.values():
        run(2)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds = run(1 + TOKENS) - run(1)
            best[name] = max(best.get(name, 0.0), batch * TOKENS / seconds)
    return best
