"""The gate and the reader of configurations under many small changes to good files.

Whatever is changed, the answer is a verdict and never an exception, its size is bounded, and what passes means
the same to the reader that is used later. `SWITCHYARD_FUZZ_RUNS` says how many changes to try; without it, a few
thousand, the same ones in every run.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import safetensors
from handmade import HIDDEN, bfloat16, lora_config, lora_tensors, safetensors_file, tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import mutated_safetensors, mutated_text
from spoiling import A, B

from switchyard.registry.validation.adapter_config import AdapterConfig, read_adapter_config
from switchyard.registry.validation.gate import AdapterHeader, read_adapter_header
from switchyard.registry.verdicts import Findings

RUNS = int(os.environ.get("SWITCHYARD_FUZZ_RUNS", "5000"))
MOST_FAULTS = 101
"""Listed faults of one kind, and the line that counts the rest."""


def seeds() -> list[bytes]:
    """Good files: several dtypes, with and without metadata, in two orders."""
    small = np.linspace(-1, 1, 2 * HIDDEN, dtype="f4").reshape(2, HIDDEN)
    pair = {A: tensor(small), B: tensor(np.ascontiguousarray(small.T))}
    halves = {name: tensor(values.astype("f2")) for name, values in ((A, small), (B, np.ascontiguousarray(small.T)))}
    brain = {A: bfloat16(small), B: bfloat16(np.ascontiguousarray(small.T))}
    return [
        safetensors_file(pair),
        safetensors_file(pair, {"format": "pt"}),
        safetensors_file(dict(reversed(pair.items()))),
        safetensors_file(halves, {"format": "pt", "a": "ü"}),
        safetensors_file(brain),
        safetensors_file(lora_tensors(rank=1), {"format": "pt"}),
    ]


CONFIGS = [
    lora_config(),
    lora_config(target_modules="all-linear", use_rslora=True),
    lora_config(rank_pattern={"q_proj": 4}, alpha_pattern={"model.layers.0.self_attn.v_proj": 2.5}),
    lora_config(layers_to_transform=[0, 1], layers_pattern="layers", exclude_modules=["k_proj"]),
]


@contextmanager
def memory() -> Iterator[int]:
    fd = os.memfd_create("fuzz")
    try:
        yield fd
    finally:
        os.close(fd)


def through_the_gate(fd: int, content: bytes) -> AdapterHeader | None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)
    findings = Findings()
    header = read_adapter_header(fd, "weights", findings)
    assert (header is None) == bool(findings.faults)
    check_verdicts(findings)
    if header is not None:
        check_same_to_the_library(header, content)
    return header


def check_verdicts(findings: Findings) -> None:
    """Bounded in number and size, and safe to print."""
    by_reason: dict[str, int] = {}
    for verdict in (*findings.faults, *findings.warnings):
        by_reason[verdict.reason] = by_reason.get(verdict.reason, 0) + 1
        line = str(verdict)
        assert len(line) < 1_000
        assert line.isprintable()
    assert max(by_reason.values(), default=0) <= MOST_FAULTS


def check_same_to_the_library(header: AdapterHeader, content: bytes) -> None:
    """Names, dtypes, shapes and every byte, as the reader of the rest of the world has them."""
    start = header.header.data_start_bytes
    ours = {
        entry.name: (entry.dtype, list(entry.shape), content[start + entry.start_bytes : start + entry.stop_bytes])
        for entry in header.tensors
    }
    theirs = {
        name: (view["dtype"], list(view["shape"]), bytes(view["data"]))
        for name, view in safetensors.deserialize(content)
    }
    assert ours == theirs


def test_seeds_are_good() -> None:
    with memory() as fd:
        assert all(through_the_gate(fd, content) is not None for content in seeds())
    assert all(read_config(json.dumps(document).encode()) for document in CONFIGS)


def test_mutated_weights() -> None:
    """Seeds are mutated again and again where that passes, so that changes add up."""
    rng, pool, passed = random.Random(1), seeds(), 0  # noqa: S311 - examples, not secrets
    with memory() as fd:
        for run in range(RUNS):
            content = mutated_safetensors(rng, rng.choice(pool))
            try:
                header = through_the_gate(fd, content)
            except BaseException as error:
                error.add_note(f"run {run}: {content[:2000]!r}")
                raise
            if header is not None:
                passed += 1
                if len(pool) < 200:
                    pool.append(content)
    assert RUNS // 100 < passed < RUNS


def read_config(data: bytes) -> AdapterConfig | None:
    findings = Findings()
    config = read_adapter_config(data, findings)
    assert (config is None) == bool(findings.faults)
    check_verdicts(findings)
    if config is not None:
        check_same_to_json(config, data)
    return config


def check_same_to_json(config: AdapterConfig, data: bytes) -> None:
    """The values are those of a parser without rules, and nothing that PEFT would act on is lost."""
    document: dict[str, Any] = json.loads(data)
    assert config.rank == document["r"]
    assert 1 <= config.rank <= 256
    assert config.alpha == float(document["lora_alpha"])
    assert all(map(math.isfinite, (config.alpha, *config.alpha_pattern.values())))
    assert dict(config.rank_pattern) == (document.get("rank_pattern") or {})
    alphas = (document.get("alpha_pattern") or {}).items()
    assert dict(config.alpha_pattern) == {name: float(alpha) for name, alpha in alphas}
    assert config.use_rslora == bool(document.get("use_rslora"))
    targets = document.get("target_modules")
    assert config.target_modules == (None if isinstance(targets, str) else tuple(targets or ()))
    assert document["peft_type"] == "LORA"
    for name in ("use_dora", "lora_bias", "modules_to_save", "auto_mapping", "layer_replication", "megatron_config"):
        assert not document.get(name)


def test_mutated_configurations() -> None:
    rng, passed = random.Random(2), 0  # noqa: S311
    texts = [json.dumps(document).encode() for document in CONFIGS]
    for run in range(RUNS):
        data = mutated_text(rng, rng.choice(texts))
        try:
            passed += read_config(data) is not None
        except BaseException as error:
            error.add_note(f"run {run}: {data!r}")
            raise
    assert RUNS // 100 < passed < RUNS


NUMBERS = st.one_of(st.integers(-2, 4100), st.sampled_from([2**31, 2**53, 2**63, 10**23]), st.floats(), st.booleans())
FIELDS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "BOOL", "", "f32"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, max_size=3),
    }
)
NAMES = st.one_of(st.sampled_from([A, B, A.replace("layers.0", "layers.1"), "__metadata__"]), st.text(max_size=30))


@settings(max_examples=max(300, RUNS // 100))
@given(members=st.dictionaries(NAMES, st.one_of(FIELDS, NUMBERS), max_size=4), size=st.integers(0, 5000))
def test_headers_that_were_never_good(members: dict[str, Any], size: int) -> None:
    header = json.dumps(members).encode()
    with memory() as fd:
        through_the_gate(fd, len(header).to_bytes(8, "little") + header + bytes(size))


JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=max(300, RUNS // 100))
@given(changes=st.dictionaries(st.sampled_from([*lora_config(), "rank_pattern", "alpha_pattern"]), JSON, max_size=3))
def test_configurations_with_any_value_anywhere(changes: dict[str, Any]) -> None:
    read_config(json.dumps(lora_config(**changes)).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b"[" * 100_000, b'{"r":' * 50_000, b"\xff\xfe{}", b"{}" + b" " * 2**20]
)
def test_documents_of_other_kinds(data: bytes) -> None:
    assert read_config(data) is None
