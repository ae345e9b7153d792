"""Every fault of a version's files is found at once, by the same code in this process and in the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import (
    HIDDEN,
    MODULES,
    TENSORS,
    bfloat16,
    lora_config,
    lora_tensors,
    safetensors_file,
    tensor,
    write_adapter,
    zeros,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import ValidationFailed
from switchyard.registry.manifest import FileEntry
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.validation.gate import read_adapter_header
from switchyard.registry.validation.scan import scan_values
from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest, validate_files
from switchyard.registry.validation.worker import WorkerLimits, validate_in_worker
from switchyard.registry.verdicts import Findings, Reason

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
V1 = "base_model.model.model.layers.1.self_attn.v_proj"


def request_for(directory: Path) -> ValidationRequest:
    files = collect_files(directory, Findings()).files
    return ValidationRequest(tuple((entry, directory / entry.path) for entry in files), MODULES, tensors=TENSORS)


def outcome_of(
    directory: Path, validate: Callable[[ValidationRequest], ValidationOutcome] = validate_files
) -> ValidationOutcome:
    return validate(request_for(directory))


def reasons(outcome: ValidationOutcome) -> list[Reason]:
    return [verdict.reason for verdict in outcome.faults]


def with_tensor(name: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return lora_tensors() | {name: tensor(values)}


def spoiled(factor: str, value: float, dtype: str = "f4") -> dict[str, Any]:
    values = np.ones((8, HIDDEN) if factor == "A" else (HIDDEN, 8), dtype=dtype)
    values[3, 5] = value
    return with_tensor(f"{Q0}.lora_{factor}.weight", values)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], set[Reason]]] = {
    "extra lm_head.weight": (lora_tensors() | {"lm_head.weight": zeros("F32", 8, 8)}, {}, {Reason.TENSOR_NAME}),
    "NaN": (spoiled("A", float("nan")), {}, {Reason.NON_FINITE}),
    "infinity": (spoiled("B", float("-inf")), {}, {Reason.NON_FINITE}),
    "NaN in float16": (spoiled("A", float("nan"), "f2"), {}, {Reason.NON_FINITE}),
    "3e38": (spoiled("A", 3e38), {}, {Reason.SCALE_RANGE}),
    "alpha of 1e308": ({}, {"lora_alpha": 1e308}, {Reason.SCALE_RANGE}),
    "half of a layer": (
        {name: value for name, value in lora_tensors().items() if not name.startswith(V1)},
        {},
        {Reason.TENSORS_MISSING},
    ),
    "rank of the configuration": ({}, {"r": 4}, {Reason.RANK_MISMATCH}),
    "rank of a pattern": ({}, {"rank_pattern": {"v_proj": 4}}, {Reason.RANK_MISMATCH}),
    "another width": (
        lora_tensors() | {f"{Q0}.lora_A.weight": zeros("F32", 8, 32)},
        {},
        {Reason.BASE_MISMATCH},
    ),
    "another module": (
        lora_tensors() | {f"{Q0[:-6]}x_proj.lora_{f}.weight": zeros("F32", 8, 8) for f in "AB"},
        {},
        {Reason.TENSOR_NAME},
    ),
    "the output head": (
        lora_tensors() | {f"base_model.model.lm_head.lora_{f}.weight": zeros("F32", 8, 8) for f in "AB"},
        {},
        {Reason.BASE_MISMATCH, Reason.TENSOR_NAME},
    ),
    "not a target": ({}, {"target_modules": ["q_proj"]}, {Reason.TENSOR_NAME}),
    "no targets": ({}, {"target_modules": ["query_key_value"]}, {Reason.NO_TARGETS, Reason.TENSOR_NAME}),
    "everything": (
        spoiled("A", float("nan")) | {"lm_head.weight": zeros("I64", 1, 1)},
        {"lora_bias": True, "r": 0},
        {Reason.DTYPE, Reason.FEATURE_UNSUPPORTED, Reason.RANK},
    ),
}


def wrong_adapter(kind: str, directory: Path) -> Path:
    tensors, config, _ = WRONG[kind]
    return write_adapter(directory, tensors=tensors or None, config=lora_config(**config))


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_refused(kind: str, tmp_path: Path) -> None:
    outcome = outcome_of(wrong_adapter(kind, tmp_path))
    assert set(reasons(outcome)) == WRONG[kind][2]
    assert outcome.shape is None
    assert all(str(verdict).isprintable() for verdict in outcome.faults)


def test_faults_of_configuration_and_weights_come_together(tmp_path: Path) -> None:
    tensors = spoiled("A", float("nan")) | {f"{V1}.lora_A.weight": zeros("F32", 8, 32)}
    outcome = outcome_of(write_adapter(tmp_path, tensors=tensors, config=lora_config(lora_bias=True)))
    assert set(reasons(outcome)) == {Reason.NON_FINITE, Reason.BASE_MISMATCH, Reason.FEATURE_UNSUPPORTED}


def test_messages_have_both_numbers(tmp_path: Path) -> None:
    (fault,) = outcome_of(wrong_adapter("another width", tmp_path)).faults
    assert "maps 32 to 64 features, the base model's layer 64 to 64" in fault.message
    (fault,) = outcome_of(wrong_adapter("NaN", tmp_path)).faults
    assert fault.subject.endswith("q_proj.lora_A.weight")
    assert fault.message.startswith("1 value(s)")


def test_an_honest_adapter(tmp_path: Path) -> None:
    outcome = outcome_of(write_adapter(tmp_path))
    assert (outcome.faults, outcome.warnings) == ((), ())
    assert outcome.shape is not None
    assert outcome.shape.rank == 8
    assert outcome.shape.target_modules == ("q_proj", "v_proj")
    assert outcome.shape.dtype == "float32"
    assert outcome.shape.parameter_count == 2 * (8 * 64 + 64 * 8 + 8 * 64 + 32 * 8)
    assert outcome.shape.weights_bytes == 4 * outcome.shape.parameter_count


def test_bfloat16_and_float16_pass(tmp_path: Path) -> None:
    tensors = lora_tensors()
    values = np.full((8, HIDDEN), 0.5, dtype=np.float32)
    tensors |= {f"{Q0}.lora_A.weight": bfloat16(values), f"{V1}.lora_A.weight": tensor(values.astype("f2"))}
    outcome = outcome_of(write_adapter(tmp_path, tensors=tensors))
    assert outcome.faults == ()
    assert outcome.shape is not None
    assert outcome.shape.dtype == "bfloat16+float16+float32"


@pytest.mark.parametrize("factor", ["A", "B"])
def test_an_adapter_without_effect_is_a_warning(factor: str, tmp_path: Path) -> None:
    tensors = {
        name: (dtype, shape, bytes(len(data)) if f"lora_{factor}" in name else data)
        for name, (dtype, shape, data) in lora_tensors().items()
    }
    outcome = outcome_of(write_adapter(tmp_path, tensors=tensors))
    assert outcome.faults == ()
    assert [verdict.reason for verdict in outcome.warnings] == [Reason.NO_EFFECT]


def test_a_pattern_key_that_decides_nothing_is_a_warning(tmp_path: Path) -> None:
    config = lora_config(rank_pattern={"up_proj": 4, "q_proj": 8, "self_attn.q_proj": 8})
    outcome = outcome_of(write_adapter(tmp_path, config=config))
    assert outcome.faults == ()
    assert [verdict.subject for verdict in outcome.warnings] == [
        "adapter_config.json#rank_pattern.up_proj",
        "adapter_config.json#rank_pattern.self_attn.q_proj",
    ]


@pytest.mark.parametrize(
    ("file", "content"),
    [("metrics.json", b'{"a": 1, "a": 2}'), ("training_manifest.json", b"[NaN]"), ("README.md", b"\xff\xfe")],
)
def test_documents_beside_the_weights_are_read_strictly(file: str, content: bytes, tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / file).write_bytes(content)
    outcome = outcome_of(tmp_path)
    assert [(verdict.reason, verdict.subject) for verdict in outcome.faults] == [(Reason.FILE_CONTENT, file)]


def test_bytes_that_are_not_those_of_the_digest(tmp_path: Path) -> None:
    """The file changed after its digest was taken."""
    request = request_for(write_adapter(tmp_path))
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        content = bytearray((tmp_path / file).read_bytes())
        content[-1] ^= 1
        (tmp_path / file).write_bytes(content)
    assert Reason.DIGEST in reasons(validate_files(request))
    (tmp_path / "README.md").write_text("longer than before")
    assert Reason.SIZE in reasons(validate_files(request))


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    kind=st.sampled_from(["f4", "f2", "bf16"]),
)
def test_the_scan_equals_numpy(values: list[float], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The slow twin: decode to float32, `isfinite`, `abs`, `max`."""
    array = np.array([values], dtype="<f4")
    with np.errstate(over="ignore"):
        a = bfloat16(array) if kind == "bf16" else tensor(array.astype(kind))
    decoded = np.frombuffer(a[2], "<f2").astype("f4") if kind == "f2" else array[0]
    if kind == "bf16":
        decoded = (array[0].view("<u4") >> 16 << 16).view("<f4")
    content = safetensors_file({f"{Q0}.lora_A.weight": a, f"{Q0}.lora_B.weight": zeros("F32", 4, 1)})
    path = tmp_path_factory.getbasetemp() / "scanned"
    path.write_bytes(content)
    findings = Findings()
    with path.open("rb") as file:
        header = read_adapter_header(file.fileno(), "weights", findings)
        assert header is not None
        scan = scan_values(file.fileno(), header, findings)
    finite = decoded[np.isfinite(decoded)]
    assert scan.digest == sha256_digest(content)
    assert scan.largest[f"{Q0}.lora_A.weight"] == np.abs(finite).max(initial=0)
    bad = int((~np.isfinite(decoded)).sum())
    assert [verdict.message.split()[0] for verdict in findings.faults] == ([str(bad)] if bad else [])


# -- the worker ----------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "everything", "NaN"])
def test_the_worker_says_what_this_process_says(kind: str | None, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path) if kind is None else wrong_adapter(kind, tmp_path)
    assert outcome_of(directory, validate_in_worker) == outcome_of(directory)


@pytest.mark.parametrize(
    ("program", "limits", "message"),
    [
        ("while True: pass", WorkerLimits(wall_s=0.5), "not validated within"),
        (
            "from switchyard.registry.validation import worker; import json, sys\n"
            "worker._apply(worker.WorkerLimits(memory_bytes=1 << 30)); x = bytes(2 << 30)",
            WorkerLimits(),
            "MemoryError",
        ),
        ("import os; os.abort()", WorkerLimits(), "status -6"),
        ("print('{}')", WorkerLimits(), "no verdict"),
        ("print('[' * 100000)", WorkerLimits(), "no verdict"),
        ("raise SystemExit(3)", WorkerLimits(), "status 3"),
    ],
)
def test_a_worker_that_misbehaves(program: str, limits: WorkerLimits, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match=message):
        validate_in_worker(request_for(write_adapter(tmp_path)), limits, program=program)


def test_the_worker_cannot_write_or_see_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    program = (
        "import os, sys, json; from switchyard.registry.validation import worker\n"
        "worker._apply(worker.WorkerLimits())\n"
        f"path = {str(tmp_path / 'written')!r}\n"
        "try:\n    open(path, 'wb', buffering=0).write(b'x'); wrote = True\n"
        "except OSError:\n    wrote = False\n"
        "sys.exit(40 + wrote + 2 * ('SECRET_TOKEN' in os.environ))"
    )
    with pytest.raises(ValidationFailed, match="status 40 "):
        validate_in_worker(request_for(write_adapter(tmp_path / "a")), program=program)


def test_the_worker_is_limited_in_processor_time(tmp_path: Path) -> None:
    program = (
        "from switchyard.registry.validation import worker\n"
        "worker._apply(worker.WorkerLimits(processor_s=1))\nwhile True: pass"
    )
    with pytest.raises(ValidationFailed, match="status -"):
        validate_in_worker(request_for(write_adapter(tmp_path)), program=program)


def test_a_request_survives_the_border(tmp_path: Path) -> None:
    """Relative paths would mean another directory in the worker."""
    directory = write_adapter(tmp_path)
    entry = FileEntry("README.md", sha256_digest((directory / "README.md").read_bytes()), 10)
    relative = Path("README.md")
    outcome = validate_in_worker(ValidationRequest(((entry, relative),), MODULES))
    assert json.dumps([str(verdict) for verdict in outcome.faults])
    assert all(verdict.subject == "README.md" for verdict in outcome.faults)
