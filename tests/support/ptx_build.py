"""Compiles every GPU kernel for a Hopper device, where there is none: what the interpreter takes, a compiler may not.

Run as a program of its own, without the interpreter; prints one JSON object, shared memory in bytes by kernel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from switchyard.server.gpu.kernels import attention, lora, nf4

HOPPER = GPUTarget("cuda", 90, 32)


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel as it is launched.

    Attributes:
        name: in the output.
        kernel: the Triton function.
        types: types of its arguments, by name; the others are 32-bit numbers.
        constants: its compile-time parameters.
        warps: warps of a program.
    """

    name: str
    kernel: object
    types: Mapping[str, str]
    constants: Mapping[str, object]
    warps: int = 4


def lora_cases() -> list[Case]:
    tables = {"pieces": "*i32", "records": "*i64", "shares": "*fp32"}
    cases = []
    for element, rows in (("bf16", 16), ("fp32", 64)):
        pointer, sizes = f"*{element}", {"BLOCK_ROWS": rows, "BLOCK_RANK": 16}
        shrinking = {**sizes, "NARROW": element == "bf16", "BLOCK_IN": 64}
        expanding = {**sizes, "SPLITS": 8, "BLOCK_OUT": 64}
        cases.append(Case(f"shrink {element} {rows}", lora.shrink, {"x": pointer, **tables}, shrinking))
        cases.append(Case(f"expand {element} {rows}", lora.expand, {"y": pointer, **tables}, expanding))
    return cases


def nf4_cases() -> list[Case]:
    pointers = {"tiles": "*i32", "parts": "*i64", "codes": "*fp32", "shares": "*fp32", "bias": "*fp32"}
    kind = {"BLOCK": 64, "NESTED": True, "ALIGNED": True, "PAIRED": True, "WIDE": False}
    cases = [
        Case(
            f"nf4 {element} {rows}",
            nf4.product,
            {"x": f"*{element}", **pointers},
            {**kind, "BLOCK_ROWS": rows, "BLOCK_OUT": 64},
        )
        for element, rows in (("bf16", 16), ("bf16", 128), ("fp32", 16))
    ]
    odd = {**kind, "ALIGNED": False, "PAIRED": False, "BLOCK_ROWS": 16, "BLOCK_OUT": 64}
    sums = {"BIASED": True, "SPLITS": 4, "BLOCK_OUT": 256}
    return [
        *cases,
        Case("nf4 of an odd width", nf4.product, {"x": "*bf16", **pointers}, odd),
        Case("add_shares", nf4.add_shares, {"y": "*bf16", **pointers}, sums),
    ]


def attention_cases() -> list[Case]:
    tables = dict.fromkeys(("tables", "table_rows", "visible"), "*i32")
    numbers = {"sums": "*fp32", "peaks": "*fp32", "scale": "fp32"}
    pages = dict.fromkeys(("q", "keys", "values", "out"), "*bf16")
    types = {**tables, **numbers, **pages}
    sizes = {
        "KV_HEADS": 8,
        "GROUP": 4,
        "HEAD_DIM": 128,
        "PAGE": 64,
        "STRETCH": 4,
        "BLOCK_GROUP": 16,
        "BLOCK_DIM": 128,
    }
    joined = {"HEADS": 32, "HEAD_DIM": 128, "SPAN": 256, "BLOCK_DIM": 128}
    return [
        Case("attend_stretch", attention.attend_stretch, types, sizes),
        Case("join_stretches", attention.join_stretches, types, joined),
    ]


def shared_bytes(case: Case) -> int:
    """Compiles down to machine code."""
    names = case.kernel.arg_names
    signature = {name: "constexpr" if name in case.constants else case.types.get(name, "i32") for name in names}
    source = ASTSource(case.kernel, signature, {(names.index(n),): value for n, value in case.constants.items()})
    built = triton.compile(source, target=HOPPER, options={"num_warps": case.warps})
    if not built.asm["cubin"]:
        raise RuntimeError(f"{case.name}: no machine code")
    return built.metadata.shared


def main() -> None:
    cases = {case.name: shared_bytes(case) for case in chain(lora_cases(), nf4_cases(), attention_cases())}
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main()
