"""What each kernel takes beside its floor in bytes and beside what else could be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import bitsandbytes
import torch
from sizes import Sizes
from stopwatch import median_s
from subjects import AttentionSubject, LoraSubject, Nf4Subject

from switchyard.server.gpu.dispatch import rule
from switchyard.server.gpu.paged_attention import attend_by_kernel, attend_by_torch
from switchyard.server.lora.segments import Segments

_MOST_COPIES = 40


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table.

    Attributes:
        name: what was timed.
        ours_s: our kernels.
        floor_s: bytes that have to be read, over the bandwidth of a copy.
        peers_s: others, by name.
    """

    name: str
    ours_s: float
    floor_s: float
    peers_s: dict[str, float]

    def __str__(self) -> str:
        """One line: microseconds, and the share of the floor's speed."""
        peers = "".join(f"  {name} {1e6 * taken:.1f}" for name, taken in self.peers_s.items())
        share = self.floor_s / self.ours_s
        return f"{self.name:32} {1e6 * self.ours_s:9.1f} us  floor {1e6 * self.floor_s:7.1f} ({share:4.0%}){peers}"

    def as_json(self) -> dict[str, object]:
        """For the result file."""
        return asdict(self)


def bandwidth(device: torch.device, size_bytes: int = 1 << 30) -> float:
    """Bytes per second that a copy reads and writes."""
    size = size_bytes if device.type == "cuda" else 1 << 20
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_s([lambda: target.copy_(source)], 10, device)


def measures(sizes: Sizes, device: torch.device, out_of_time: Callable[[], bool]) -> Iterator[Measure]:
    """All measures, the most telling first, until the time is up."""
    speed = bandwidth(device)
    for source in (_lora(sizes, device, speed), _nf4(sizes, device, speed), _attention(sizes, device, speed)):
        for measure in source:
            yield measure
            if out_of_time():
                return


def _copies(size_bytes: int, sizes: Sizes) -> int:
    return max(1, min(_MOST_COPIES, sizes.cold_bytes // max(1, size_bytes)))


def _lora(sizes: Sizes, device: torch.device, speed: float) -> Iterator[Measure]:
    first = LoraSubject(sizes, device, fixed_grid=True)
    copies = _copies(first.nbytes, sizes)
    subjects = [first, *(LoraSubject(sizes, device, fixed_grid=True) for _ in range(copies - 1))]
    y, x = (torch.randn(sizes.adapters, sizes.hidden, device=device).to(sizes.dtype) for _ in range(2))
    for name, slots in (("distinct", list(range(sizes.adapters))), ("identical", [0] * sizes.adapters)):
        segments = Segments.of(slots)
        for subject in subjects:
            subject.backend.prepare(segments)
        works = [lambda s=s, of=segments: s.backend(y, x, of, s.table) for s in subjects]
        taken = median_s(works, sizes.repeats, device)
        read = sum(first.adapters[slot].nbytes for slot in set(slots)) + 2 * y.nbytes + x.nbytes
        yield Measure(f"LoRA {name}, {sizes.adapters} rows", taken, read / speed, {})


def _nf4(sizes: Sizes, device: torch.device, speed: float) -> Iterator[Measure]:
    for name, shape in sizes.products.items():
        first = Nf4Subject(shape, device, sizes.dtype)
        subjects = [first, *(Nf4Subject(shape, device, sizes.dtype) for _ in range(_copies(first.nbytes, sizes) - 1))]
        wide = torch.randn(shape.outputs, shape.inputs, device=device).to(sizes.dtype)
        for rows in sizes.rows:
            tile = rule(rows, shape, shadowed=False).tile
            if tile is None:
                continue
            x = torch.randn(rows, shape.inputs, device=device).to(sizes.dtype)
            ours = [lambda s=s, x=x, tile=tile: s.product(x, tile) for s in subjects]
            theirs = [lambda s=s, x=x: bitsandbytes.matmul_4bit(x, s.packed.t(), s.state) for s in subjects]
            peers = {
                "bitsandbytes": median_s(theirs, sizes.repeats, device),
                "16 bits": median_s([lambda x=x, wide=wide: x @ wide.t()], sizes.repeats, device),
            }
            read = first.nbytes + x.nbytes + rows * shape.outputs * sizes.dtype.itemsize
            yield Measure(f"NF4 {name}, {rows} rows", median_s(ours, sizes.repeats, device), read / speed, peers)


def _attention(sizes: Sizes, device: torch.device, speed: float) -> Iterator[Measure]:
    for count in sizes.rows:
        subject = AttentionSubject(sizes, count, device)
        given = (subject.q, subject.pages, subject.queries, subject.scale)
        taken = median_s([lambda g=given: attend_by_kernel(*g)], sizes.repeats, device)
        peers = {}
        if device.type != "cuda":
            # It asks the device for lengths, which no graph can hold.
            peers["torch"] = median_s([lambda g=given: attend_by_torch(*g)], sizes.repeats, device)
        yield Measure(f"attention, {count} sequences", taken, subject.nbytes / speed, peers)
