"""Every kernel against its oracle, on whatever this runs on; nothing is measured before all of it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from sizes import Sizes
from subjects import AttentionSubject, LoraSubject, Nf4Subject

from switchyard.server.gpu.dispatch import rule
from switchyard.server.gpu.paged_attention import attend_by_kernel, attend_by_torch
from switchyard.server.lora.reference import add_lora_reference
from switchyard.server.lora.segments import NO_ADAPTER, Segments

_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest difference over the largest number of the oracle; 16-bit results are rounded once."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One comparison.

    Attributes:
        name: what was compared.
        error: largest difference over the oracle's largest number.
        bound: what is allowed.
        same_bits: whether two runs gave the same bits, and rows that nothing reaches kept theirs.
    """

    name: str
    error: float
    bound: float
    same_bits: bool

    @property
    def holds(self) -> bool:
        """Whether it may be measured."""
        return self.error <= self.bound and self.same_bits

    def __str__(self) -> str:
        """One line."""
        verdict = "ok" if self.holds else "WRONG"
        return f"{verdict:5} {self.name}: error {self.error:.1e} of {self.bound:.0e}, same bits {self.same_bits}"


def proofs(sizes: Sizes, device: torch.device) -> Iterator[Proof]:
    """All comparisons, in float32 and in the dtype of the run."""
    for dtype in dict.fromkeys((torch.float32, sizes.dtype)):
        own = replace(sizes, dtype=dtype)
        yield from _lora(own, device)
        yield from _nf4(own, device)
        yield from _attention(own, device)


def _proof(name: str, dtype: torch.dtype, found: list[torch.Tensor], exact: torch.Tensor, *, kept: bool) -> Proof:
    error = float((found[0].float() - exact.float()).abs().max() / exact.float().abs().max())
    same = kept and torch.equal(found[0], found[1])
    return Proof(f"{name}, {str(dtype).removeprefix('torch.')}", error, _BOUNDS[dtype], same)


def _lora(sizes: Sizes, device: torch.device) -> Iterator[Proof]:
    count = sizes.adapters
    popularity = {
        "distinct": list(range(count)),
        "identical": [1] * count,
        "with base rows": [slot if slot % 2 else NO_ADAPTER for slot in range(count)],
    }
    subject = LoraSubject(sizes, device)
    for name, slots in popularity.items():
        y, x = (torch.randn(count, sizes.hidden, device=device).to(sizes.dtype) for _ in range(2))
        found = []
        for _ in range(2):
            result = y.clone()
            subject.backend(result, x, Segments.of(slots), subject.table)
            found.append(result)
        alone = [row for row, slot in enumerate(slots) if slot == NO_ADAPTER]
        exact = add_lora_reference(y.float(), x, slots, subject.adapters)
        yield _proof(f"LoRA {name}", sizes.dtype, found, exact, kept=torch.equal(found[0][alone], y[alone]))


def _nf4(sizes: Sizes, device: torch.device) -> Iterator[Proof]:
    for name, shape in sizes.products.items():
        subject = Nf4Subject(shape, device, sizes.dtype)
        for rows in sizes.rows:
            tile = rule(rows, shape, shadowed=False).tile
            if tile is not None:
                x = torch.randn(rows, shape.inputs, device=device).to(sizes.dtype)
                found = [subject.product(x, tile) for _ in range(2)]
                yield _proof(f"NF4 {name}, {rows} rows", sizes.dtype, found, subject.exact(x), kept=True)


def _attention(sizes: Sizes, device: torch.device) -> Iterator[Proof]:
    for count in sizes.rows:
        subject = AttentionSubject(sizes, count, device)
        given = (subject.q, subject.pages, subject.queries, subject.scale)
        found = [attend_by_kernel(*given) for _ in range(2)]
        exact = attend_by_torch(subject.q.float(), subject.pages, subject.queries, subject.scale)
        yield _proof(f"attention, {count} sequences", sizes.dtype, found, exact, kept=True)
