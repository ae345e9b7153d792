"""The gate passes what an honest writer makes and refuses every hostile header with the stated reason."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from handmade import HIDDEN, lora_tensors, raw_file, safetensors_file, tensor, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from switchyard.registry.validation.gate import AdapterHeader, read_adapter_header
from switchyard.registry.verdicts import Findings, Reason

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
PAIR = {A: zeros("F32", 8, HIDDEN), B: zeros("F32", HIDDEN, 8)}


def header_of(content: bytes, path: Path) -> tuple[AdapterHeader | None, Findings]:
    path.write_bytes(content)
    findings = Findings()
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_adapter_header(fd, "weights", findings), findings
    finally:
        os.close(fd)


def described(offsets: object = (0, 2048), shape: object = (8, 64), dtype: object = "F32") -> str:
    return json.dumps({A: {"dtype": dtype, "shape": shape, "data_offsets": offsets}})


def with_extra(name: str, extra: object = None) -> bytes:
    return safetensors_file(PAIR | {name: extra or zeros("F32", 4, 4)})  # type: ignore[dict-item]


TWO = {
    A: {"dtype": "F32", "shape": [8, 64], "data_offsets": [0, 2048]},
    B: {"dtype": "F32", "shape": [64, 8], "data_offsets": [2048, 4096]},
}


def shifted(**offsets: list[int]) -> bytes:
    """The honest pair with other offsets for one factor."""
    members = {name: dict(fields) for name, fields in TWO.items()}
    for factor, value in offsets.items():
        members[{"a": A, "b": B}[factor]]["data_offsets"] = value
    return raw_file(json.dumps(members), bytes(4096))


HOSTILE: dict[str, tuple[bytes, Reason]] = {
    "empty file": (b"", Reason.SIZE),
    "seven bytes": (b"1234567", Reason.SIZE),
    "length of all ones": (b"\xff" * 8 + b"{}", Reason.HEADER_LENGTH),
    "length of 101 MB": (struct.pack("<Q", 101 << 20) + b"{}", Reason.HEADER_LENGTH),
    "length past the end": (struct.pack("<Q", 1000) + b"{}", Reason.HEADER_LENGTH),
    "header of 2 MB": (raw_file("{" + " " * (2 << 20) + "}"), Reason.HEADER_LENGTH),
    "pickle": (b"\x80\x04\x95" + bytes(60), Reason.HEADER_LENGTH),
    "zip": (b"PK\x03\x04" + bytes(4) + bytes(60), Reason.HEADER_LENGTH),
    "not UTF-8": (raw_file(b'{"\xff": 1}'), Reason.HEADER_JSON),
    "not JSON": (raw_file("{nonsense}"), Reason.HEADER_JSON),
    "array": (raw_file("[]"), Reason.HEADER_SHAPE),
    "leading spaces": (raw_file(f"  {json.dumps(TWO)}", bytes(4096)), Reason.HEADER_SHAPE),
    "deep nesting": (raw_file('{"a":' * 100_000 + "1" + "}" * 100_000), Reason.HEADER_JSON),
    "no tensors": (raw_file("{}"), Reason.TENSOR_COUNT),
    "5,000 tensors": (
        safetensors_file({f"{A[:-9]}{n}.weight": zeros("F32", 1, 1) for n in range(5_000)}),
        Reason.TENSOR_COUNT,
    ),
    "duplicate tensor": (raw_file(described()[:-1] + "," + described()[1:], bytes(2048)), Reason.DUPLICATE_KEY),
    "duplicate inner key": (raw_file('{"x": {"dtype": "F32", "dtype": "F16"}}'), Reason.DUPLICATE_KEY),
    "overlap": (shifted(b=[1024, 3072]), Reason.OFFSETS),
    "two names for one range": (shifted(b=[0, 2048]), Reason.OFFSETS),
    "hole": (shifted(b=[2052, 4100]) + bytes(4), Reason.OFFSETS),
    "hole at the beginning": (shifted(a=[4, 2052], b=[2052, 4100]) + bytes(4), Reason.OFFSETS),
    "start after end": (shifted(a=[2048, 0]), Reason.OFFSETS),
    "past the end": (shifted(b=[4096, 6144]), Reason.OFFSETS),
    "negative offset": (shifted(a=[-2048, 0]), Reason.OFFSETS),
    "float offset": (raw_file(described([0.0, 2048.0]), bytes(2048)), Reason.OFFSETS),
    "minus zero offset": (
        raw_file(described().replace("[0, 2048]", "[-0, 2048]"), bytes(2048)),
        Reason.OFFSETS,
    ),
    "three offsets": (raw_file(described([0, 2048, 4096]), bytes(2048)), Reason.OFFSETS),
    "text offsets": (raw_file(described("0,2048"), bytes(2048)), Reason.OFFSETS),
    "data_offsets of true": (raw_file(described([False, 2048]), bytes(2048)), Reason.OFFSETS),
    "trailing bytes": (safetensors_file(PAIR) + b"PK\x03\x04", Reason.TRAILING_BYTES),
    "cut off": (safetensors_file(PAIR)[:-1], Reason.OFFSETS),
    "negative shape": (raw_file(described(shape=[-8, -64]), bytes(2048)), Reason.SHAPE),
    "float shape": (raw_file(described(shape=[8.0, 64]), bytes(2048)), Reason.SHAPE),
    "enormous shape": (raw_file(described(shape=[10**23, 64]), bytes(2048)), Reason.SHAPE),
    "overflowing shape": (raw_file(described(shape=[2**32, 2**32]), bytes(2048)), Reason.SHAPE),
    "zero dimension": (raw_file(described([0, 0], [0, 2**62])), Reason.SHAPE),
    "one axis": (raw_file(described([0, 32], [8]), bytes(32)), Reason.SHAPE),
    "100,000 axes": (raw_file(described([0, 4], [1] * 100_000), bytes(4)), Reason.SHAPE),
    "shape of text": (raw_file(described(shape="8,64"), bytes(2048)), Reason.SHAPE),
    "metadata with a number": (safetensors_file(PAIR, {"a": 1}), Reason.METADATA),
    "metadata with a list": (safetensors_file(PAIR, ["a"]), Reason.METADATA),
    "tensor is a list": (raw_file(json.dumps({A: [1, 2]})), Reason.TENSOR_FIELDS),
    "tensor with another field": (raw_file('{"x": {"dtype": "F32", "shape": [1, 1]}}'), Reason.TENSOR_FIELDS),
    **{
        f"dtype {dtype}": (safetensors_file(PAIR | {A: zeros(dtype, 8, 64)}), Reason.DTYPE)
        for dtype in ("I8", "U8", "F8_E4M3", "F64", "BOOL", "C64", "I64")
    },
    "dtype of a list": (raw_file(described(dtype=["F32"]), bytes(2048)), Reason.DTYPE),
    "unknown dtype": (raw_file(described(dtype="F31"), bytes(2048)), Reason.DTYPE),
    "extra lm_head.weight": (with_extra("lm_head.weight"), Reason.TENSOR_NAME),
    "a copy of three axes": (with_extra("base_model.model.lm_head.weight", zeros("F32", 2, 2, 2)), Reason.SHAPE),
    "a magnitude of two axes": (with_extra(A.replace("lora_A.weight", "lora_magnitude_vector")), Reason.SHAPE),
    "gains of one axis": (with_extra(A.replace("lora_A.weight", "ia3_l"), zeros("F32", 64)), Reason.SHAPE),
    "gains of an inner layer": (with_extra(A.replace("lora_A.weight", "base_layer.ia3_l")), Reason.TENSOR_NAME),
    "factors of factors": (with_extra(A.replace("lora_A.weight", "lora_B.lora_A.weight")), Reason.TENSOR_NAME),
    "packed base layer": (with_extra(A.replace("lora_A", "base_layer"), zeros("U8", 64, 1)), Reason.DTYPE),
    "base layer in float": (with_extra(A.replace("lora_A", "base_layer")), Reason.TENSOR_NAME),
    "another adapter's name": (with_extra(A.replace("lora_A.", "lora_A.alice.")), Reason.TENSOR_NAME),
    "name with NUL": (with_extra(A[:-7] + "\0weight"), Reason.TENSOR_NAME),
    "name with newline": (with_extra(A + "\n"), Reason.TENSOR_NAME),
    "name with bidi": (with_extra("base_model.model.\u202eq.lora_A.weight"), Reason.TENSOR_NAME),
    "name with path": (with_extra("base_model.model.../../x.lora_A.weight"), Reason.TENSOR_NAME),
    "name of 100,000": (with_extra("x" * 100_000), Reason.TENSOR_NAME),
    "empty name": (with_extra(""), Reason.TENSOR_NAME),
    "wrong prefix": (safetensors_file({"model.q_proj.lora_A.weight": zeros("F32", 8, 64)}), Reason.TENSOR_NAME),
    "DoRA": (with_extra(A.replace("lora_A.weight", "lora_magnitude_vector.weight")), Reason.FEATURE_UNSUPPORTED),
    "lora bias": (with_extra(A.replace("lora_A.weight", "lora_B.bias")), Reason.FEATURE_UNSUPPORTED),
    "embedding": (with_extra("base_model.model.model.embed_tokens.lora_embedding_A"), Reason.TENSORS_MISSING),
    "modules_to_save": (
        with_extra("base_model.model.lm_head.modules_to_save.weight"),
        Reason.FEATURE_UNSUPPORTED,
    ),
    "half a pair": (safetensors_file({A: PAIR[A]}), Reason.TENSORS_MISSING),
    "ranks differ": (safetensors_file(PAIR | {B: zeros("F32", HIDDEN, 4)}), Reason.RANK_MISMATCH),
    "rank 257": (
        safetensors_file({A: zeros("F32", 257, HIDDEN), B: zeros("F32", HIDDEN, 257)}),
        Reason.RANK,
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(kind: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[kind]
    header, findings = header_of(content, tmp_path / "w")
    assert header is None
    assert reason in {verdict.reason for verdict in findings.faults}
    for verdict in findings.faults:
        assert str(verdict).isprintable()
        assert len(str(verdict)) < 600


def test_every_bad_tensor_is_listed(tmp_path: Path) -> None:
    content = safetensors_file(PAIR | {"x.weight": zeros("F32", 1, 1), "y.weight": zeros("F32", 1, 1)})
    _, findings = header_of(content, tmp_path / "w")
    assert [verdict.subject for verdict in findings.faults] == ["weights#'x.weight'", "weights#'y.weight'"]


def test_a_thousand_bad_tensors_are_counted_not_listed(tmp_path: Path) -> None:
    content = safetensors_file({f"x{n}": zeros("F32", 1, 1) for n in range(1_000)})
    _, findings = header_of(content, tmp_path / "w")
    assert len(findings.faults) == 101
    assert "900 further" in findings.faults[-1].message


def test_honest_files_pass(tmp_path: Path) -> None:
    arrays = {name: np.frombuffer(data, "<f4").reshape(shape) for name, (_, shape, data) in lora_tensors().items()}
    for content in (save_safetensors(arrays, {"format": "pt"}), safetensors_file(lora_tensors())):
        header, findings = header_of(content, tmp_path / "w")
        assert findings.faults == ()
        assert header is not None
        assert {pair.a.name for pair in header.pairs.values()} | {
            pair.b.name for pair in header.pairs.values()
        } == set(arrays)
        for entry in header.tensors:
            at = header.header.data_start_bytes
            assert content[at + entry.start_bytes : at + entry.stop_bytes] == arrays[entry.name].tobytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fuzz_what_passes_means_the_same_to_the_reader(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is done to a file, the gate does not crash, and what it passes safetensors reads alike."""
    content = bytearray(safetensors_file(PAIR | {A: tensor(np.ones((8, HIDDEN), "f4"))}))
    for _ in range(data.draw(st.integers(0, 4))):
        # Most of the file is zeros; only the header is worth changing.
        position = data.draw(st.integers(0, min(400, len(content)) - 1))
        kind = data.draw(st.sampled_from(["flip", "insert", "cut"]))
        if kind == "flip":
            content[position] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            del content[position : position + data.draw(st.integers(1, 8))]
    header, findings = header_of(bytes(content), tmp_path_factory.getbasetemp() / "fuzzed")
    assert (header is None) == bool(findings.faults)
    if header is not None:
        try:
            read = load_safetensors(bytes(content))
        except SafetensorError as error:
            pytest.fail(f"passed by the gate, refused by safetensors: {error}")
        assert {name: array.shape for name, array in read.items()} == {
            entry.name: entry.shape for entry in header.tensors
        }


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300))
def test_fuzz_arbitrary_bytes_never_crash(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    for shaped in (content, raw_file(content), raw_file(b"{" + content)):
        header, findings = header_of(shaped, tmp_path_factory.getbasetemp() / "fuzzed")
        assert header is None
        assert findings.faults
