"""Adapters that somebody might send: a good one, spoiled in every way that the rows of `docs/hostile-files.md` name.

`python tests/support/hostile_files.py DIR` writes all of them, and prints what is to be said about each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from handmade import HIDDEN, lora_config, lora_tensors, raw_file, safetensors_file, write_adapter, zeros
from spoiling import (
    CONFIG,
    LAST_LAYER,
    PICKLE,
    STEM,
    WEIGHTS,
    A,
    Case,
    archive,
    beside,
    bomb,
    both,
    changed,
    config,
    extra,
    header,
    ia3,
    instead,
    kept_head,
    make_socket,
    many_tensors,
    no_effect,
    nonsense,
    not_a_number,
    of_other_base,
    one,
    spoiled_value,
    text,
    weights,
    with_wide_rank,
)

HEAD = zeros("F32", 96, HIDDEN)

ROWS_A = [
    Case(
        1,
        "pickle instead of safetensors",
        both(instead(WEIGHTS, lambda _: None), beside("adapter_model.bin", PICKLE)),
        "FILE_NOT_ALLOWED",
    ),
    Case(2, "pickle beside safetensors", beside("adapter_model.bin", PICKLE), "FILE_NOT_ALLOWED"),
    Case(3, "pickle named safetensors", weights(PICKLE), "HEADER_LENGTH"),
    Case(3, "zip named safetensors", weights(archive), "HEADER_LENGTH"),
    Case(3, "pickle with a fitting length", weights(raw_file(PICKLE)), "HEADER_SHAPE"),
    Case(4, "deflated pickle of 256 MiB", beside("adapter_model.bin", bomb), "FILE_NOT_ALLOWED"),
    Case(4, "deflated bytes named safetensors", weights(bomb), "HEADER_LENGTH"),
    Case(5, "output head", extra("base_model.model.lm_head.weight"), "TENSOR_NAME"),
    Case(5, "norm", extra("base_model.model.model.norm.weight"), "TENSOR_NAME"),
    Case(6, "packed base layer", extra(f"{STEM}.base_layer.weight", zeros("U8", HIDDEN, 1)), "DTYPE"),
    Case(6, "base layer", extra(f"{STEM}.base_layer.weight"), "TENSOR_NAME"),
    Case(7, "tensor of another adapter", extra(f"{STEM}.lora_B.alice.weight"), "TENSOR_NAME"),
    Case(5, "output head of the right shape", extra("base_model.model.lm_head.weight", HEAD), "TENSOR_NAME"),
    Case(5, "output head that is named but another model's", kept_head(zeros("F32", 97, HIDDEN)), "BASE_MISMATCH"),
    Case(5, "output head with a value that is no number", kept_head(not_a_number(HEAD)), "NON_FINITE"),
    Case(5, "norm that is named", config(modules_to_save=["norm"]), "TARGET_UNMATCHED", is_accepted=True),
    Case(5, "linear layer that is named", config(modules_to_save=["up_proj"]), "FEATURE_UNSUPPORTED"),
    Case(6, "bias of a base layer", extra(f"{STEM}.base_layer.bias", zeros("F32", HIDDEN)), "TENSOR_NAME"),
    Case(8, "bias on LoRA", extra(f"{STEM}.lora_B.bias"), "FEATURE_UNSUPPORTED"),
    Case(8, "DoRA under another name", extra(f"{STEM}.lora_magnitude_vector.weight"), "FEATURE_UNSUPPORTED"),
    Case(8, "DoRA that is not named", extra(f"{STEM}.lora_magnitude_vector", zeros("F32", HIDDEN)), "TENSOR_NAME"),
    Case(8, "DoRA without magnitudes", config(use_dora=True), "TENSORS_MISSING"),
    Case(8, "half an embedding", extra("base_model.model.model.embed_tokens.lora_embedding_A"), "TENSORS_MISSING"),
    Case(8, "gains beside LoRA", extra(f"{STEM}.ia3_l", zeros("F32", HIDDEN, 1)), "TENSOR_NAME"),
    Case(8, "LoRA under an (IA)^3 configuration", ia3(), "FEATURE_UNSUPPORTED"),
    Case(8, "bias in the configuration", config(lora_bias=True), "FEATURE_UNSUPPORTED"),
    Case(
        9, "link to a system file", instead(WEIGHTS, lambda path: path.symlink_to("/etc/passwd")), "NOT_REGULAR_FILE"
    ),
    Case(9, "link to a sibling", instead(WEIGHTS, lambda path: path.symlink_to(CONFIG)), "NOT_REGULAR_FILE"),
    Case(9, "link that leads nowhere", instead(CONFIG, lambda path: path.symlink_to("nowhere")), "NOT_REGULAR_FILE"),
    Case(10, "pipe", instead(WEIGHTS, os.mkfifo), "NOT_REGULAR_FILE"),
    Case(10, "device", instead(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), "NOT_REGULAR_FILE"),
    Case(10, "directory", instead(WEIGHTS, lambda path: path.mkdir()), "NOT_REGULAR_FILE"),
    Case(10, "socket", instead(WEIGHTS, make_socket), "NOT_REGULAR_FILE"),
    Case(11, "archive", beside("adapter.zip", archive), "FILE_NOT_ALLOWED"),
    Case(11, "name that differs in case", beside("Adapter_Model.safetensors"), "FILE_NAME"),
    Case(11, "name that writes backwards", beside("README\u202edm.exe"), "FILE_NAME"),
    Case(12, "auto_mapping", config(auto_mapping={"base_model_class": "planted_auto"}), "CONFIG_FIELD_REFUSED"),
    Case(12, "auto_map", config(auto_map={"AutoModel": "planted_auto.Evil"}), "CONFIG_FIELD_REFUSED"),
    Case(13, "megatron_core", config(megatron_core="megatron.evil"), "CONFIG_FIELD_REFUSED"),
    Case(13, "megatron_config", config(megatron_config={"a": 1}), "CONFIG_FIELD_REFUSED"),
    *(
        Case(14, f"peft_type {kind}", config(peft_type=kind), "FEATURE_UNSUPPORTED")
        for kind in ("XLORA", "PROMPT_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "planted_evil", None)
    ),
    *(
        Case(15, field, config(**{field: {"path": "/etc/passwd"}}), "CONFIG_FIELD_REFUSED")
        for field in ("corda_config", "lora_ga_config", "eva_config", "loftq_config")
    ),
    *(
        Case(16, f"initialisation {init}", config(init_lora_weights=init), "FEATURE_UNSUPPORTED")
        for init in ("pissa", "pissa_niter_4", "olora", "loftq", "corda")
    ),
    Case(16, "layer_replication", config(layer_replication=[[0, 2], [0, 2]]), "FEATURE_UNSUPPORTED"),
    Case(17, "empty file", weights(b""), "SIZE"),
    Case(17, "seven bytes", weights(b"1234567"), "SIZE"),
    Case(17, "header of all the bytes there are", weights(nonsense(2**64 - 1, 60)), "HEADER_LENGTH"),
    Case(17, "header of 101 MB", weights(nonsense(101 << 20, 60)), "HEADER_LENGTH"),
    Case(17, "header of 99 MB over a short file", weights(nonsense(99 << 20, 60)), "HEADER_LENGTH"),
    Case(18, "header that is not UTF-8", weights(header(b'{"\xff": 1}')), "HEADER_JSON"),
    Case(18, "header that is not JSON", weights(header("{nonsense}")), "HEADER_JSON"),
    Case(18, "header that is an array", weights(header([])), "HEADER_SHAPE"),
    Case(18, "header with spaces before it", weights(header(f"  {json.dumps(one())}")), "HEADER_SHAPE"),
    Case(18, "header nested 200000 deep", weights(header('{"a":' * 200_000 + "1" + "}" * 200_000)), "HEADER_LENGTH"),
    Case(18, "header nested 100000 deep", weights(header('{"a":' * 100_000 + "1" + "}" * 100_000)), "HEADER_JSON"),
    Case(
        19,
        "tensor named twice",
        weights(header(json.dumps(one())[:-1] + "," + json.dumps(one())[1:])),
        "DUPLICATE_KEY",
    ),
    Case(19, "field given twice", weights(header('{"x":{"dtype":"F32","dtype":"F16"}}')), "DUPLICATE_KEY"),
    Case(20, "tensors that overlap", weights(header(one(data_offsets=[1024, 3072]))), "OFFSETS"),
    Case(20, "two names for the same bytes", weights(header(one(data_offsets=[2048, 4096]))), "OFFSETS"),
    Case(20, "hole", weights(header(one(data_offsets=[4096, 6144]), 6144)), "OFFSETS"),
    Case(20, "start after the end", weights(header(one(data_offsets=[2048, 0]))), "OFFSETS"),
    Case(20, "past the end of the file", weights(header(one(), 2048)), "OFFSETS"),
    Case(21, "bytes after the last tensor", weights(safetensors_file(lora_tensors()) + archive()), "TRAILING_BYTES"),
    Case(22, "negative shape", weights(header(one(shape=[-8, -HIDDEN]))), "SHAPE"),
    Case(22, "shape of fractions", weights(header(one(shape=[8.0, 64]))), "SHAPE"),
    Case(22, "enormous shape", weights(header(one(shape=[10**23, 64]))), "SHAPE"),
    Case(22, "shape that overflows", weights(header(one(shape=[2**32, 2**32]))), "SHAPE"),
    Case(22, "zero by a lot", weights(header(one(shape=[0, 2**63 - 1], data_offsets=[0, 0]))), "SHAPE"),
    Case(22, "100000 axes", weights(header(one(shape=[1] * 100_000))), "SHAPE"),
    Case(22, "one axis", weights(header(one(shape=[512]))), "SHAPE"),
    Case(23, "a million and a half tensors", weights(many_tensors), "HEADER_LENGTH"),
    Case(
        23,
        "5000 tensors",
        weights(lambda: safetensors_file({f"{n}": zeros("F32", 1, 1) for n in range(5000)})),
        "TENSOR_COUNT",
    ),
    Case(
        24, "90 MB of metadata", weights(lambda: header({"__metadata__": {"a": "x" * (90 << 20)}})), "HEADER_LENGTH"
    ),
    Case(24, "metadata that is a number", weights(header({"__metadata__": {"a": 1}} | one())), "METADATA"),
    Case(25, "name with a zero byte", extra(f"{STEM}.lora_A\0.weight"), "TENSOR_NAME"),
    Case(25, "name with a newline", extra(f"{A}\n"), "TENSOR_NAME"),
    Case(
        25, "name that writes backwards in a tensor", extra("base_model.model.\u202eq.lora_A.weight"), "TENSOR_NAME"
    ),
    Case(25, "name that is a path", extra("base_model.model.../../etc/passwd.lora_A.weight"), "TENSOR_NAME"),
    Case(25, "name of 900 kB", extra("x" * 900_000), "TENSOR_NAME"),
    Case(25, "name of 1 MB", extra("x" * (1 << 20)), "HEADER_LENGTH"),
    *(
        Case(26, f"dtype {dtype}", changed(a=zeros(dtype, 8, HIDDEN)), "DTYPE")
        for dtype in ("I8", "F8_E4M3", "F64", "BOOL", "C64")
    ),
    Case(26, "unknown dtype", weights(header(one(dtype="F31"))), "DTYPE"),
    Case(27, "half a pair", changed(b=None), "TENSORS_MISSING"),
    Case(
        27,
        "a layer without tensors",
        weights(lambda: safetensors_file({k: v for k, v in lora_tensors().items() if not k.startswith(LAST_LAYER)})),
        "TENSORS_MISSING",
    ),
    Case(
        28,
        "wrong prefix",
        weights(safetensors_file({k.removeprefix("base_model.model."): v for k, v in lora_tensors().items()})),
        "TENSOR_NAME",
    ),
    Case(28, "unknown names only", weights(safetensors_file({"x": zeros("F32", 4, 4)})), "TENSOR_NAME"),
    Case(29, "shapes of another base", of_other_base, "BASE_MISMATCH"),
    Case(29, "rank that is not the configuration's", config(r=16), "RANK_MISMATCH"),
    Case(29, "factors of different rank", with_wide_rank(), "RANK_MISMATCH"),
    Case(31, "NaN", spoiled_value(float("nan")), "NON_FINITE"),
    Case(31, "infinity", spoiled_value(float("-inf")), "NON_FINITE"),
    Case(32, "weights that overflow", spoiled_value(3e38), "SCALE_RANGE"),
    Case(32, "alpha that overflows", config(lora_alpha=1e308), "SCALE_RANGE"),
    Case(33, "update that does nothing", no_effect(), "NO_EFFECT", is_accepted=True),
    Case(34, "tokenizer beside it", beside("tokenizer.json", b"{}"), "FILE_IGNORED", is_accepted=True),
    Case(34, "template beside it", beside("chat_template.jinja", b"{% for %}"), "FILE_IGNORED", is_accepted=True),
    Case(34, "code beside it", beside("modeling.py", b"import os"), "FILE_NOT_ALLOWED"),
    Case(34, "compiled code beside it", beside("x.so", b"\x7fELF"), "FILE_NOT_ALLOWED"),
]
ROWS_B = [
    *(
        Case(35, f"rank {shown}", config(r=value), "RANK")
        for shown, value in (
            ("0", 0),
            ("minus one", -1),
            ("text", "8"),
            ("true", True),
            ("50 million", 50_000_000),
            ("257", 257),
        )
    ),
    Case(36, "alpha as text", config(lora_alpha="16"), "CONFIG_VALUE"),
    Case(36, "alpha that is no number", text(json.dumps(lora_config(lora_alpha=float("nan")))), "CONFIG_JSON"),
    Case(36, "alpha without end", text(json.dumps(lora_config(lora_alpha=float("inf")))), "CONFIG_JSON"),
    Case(
        36,
        "alpha of a 400-digit number",
        text(json.dumps(lora_config()).replace("16", "1" + "0" * 400)),
        "CONFIG_VALUE",
    ),
    Case(36, "alpha given twice", text(json.dumps(lora_config())[:-1] + ', "lora_alpha": 1}'), "DUPLICATE_KEY"),
    Case(37, "pattern that never ends", config(target_modules="(.+)+Z"), "TARGETS_FROM_TENSORS", is_accepted=True),
    Case(37, "pattern that is none", config(target_modules="(["), "TARGETS_FROM_TENSORS", is_accepted=True),
    Case(37, "pattern of ranks that never ends", config(rank_pattern={"(.+)+Z": 8}), "PATTERN"),
    Case(37, "pattern of alphas that never ends", config(alpha_pattern={"(a|a)*b": 8}), "PATTERN"),
    Case(37, "pattern of 5000 characters", config(target_modules="(a" * 2500), "PATTERN"),
    Case(37, "pattern in a list", config(target_modules=["q_proj", "(.+)+Z"]), "PATTERN"),
    Case(37, "pattern of layers", config(layers_pattern="(.+)+Z", layers_to_transform=[0]), "PATTERN"),
    Case(37, "5000 targets", config(target_modules=[f"m{n}" for n in range(5000)]), "CONFIG_VALUE"),
    Case(37, "a million targets", config(target_modules=["q"] * 1_000_000), "SIZE"),
    Case(37, "no target", config(target_modules=[]), "NO_TARGETS"),
    Case(37, "target that is not there", config(target_modules=["nothing"]), "NO_TARGETS"),
    Case(
        38,
        "configuration of 300 MB",
        instead(CONFIG, lambda path: (path.touch(), os.truncate(path, 300 << 20))),
        "SIZE",
    ),
    Case(38, "number of 5000 digits", text('{"r": ' + "9" * 5000 + "}"), "CONFIG_JSON"),
    Case(38, "byte order mark", text(b"\xef\xbb\xbf" + json.dumps(lora_config()).encode()), "CONFIG_JSON"),
    Case(38, "nested 100000 deep", text('{"a":' * 100_000 + "1" + "}" * 100_000), "CONFIG_JSON"),
    Case(38, "configuration that is a list", text("[]"), "CONFIG_JSON"),
    Case(38, "configuration that is not UTF-8", text(b'{"r": "\xff"}'), "CONFIG_JSON"),
    Case(39, "base that is a path", config(base_model_name_or_path="/etc/passwd"), "", is_accepted=True),
    Case(39, "base that is an address", config(base_model_name_or_path="http://127.0.0.1:9/x"), "", is_accepted=True),
    Case(39, "task that is a list", config(task_type=[]), "FEATURE_UNSUPPORTED"),
    Case(39, "another task", config(task_type="SEQ_CLS"), "FEATURE_UNSUPPORTED"),
]
CASES = {case.name: case for case in [*ROWS_A, *ROWS_B]}
"""By name; the number that each begins with is its row."""

DECLARED = {
    (11, "name that climbs"): ("../adapter_model.safetensors", "FILE_NAME"),
    (11, "absolute name"): ("/etc/passwd", "FILE_NAME"),
    (11, "name in a directory"): ("a/README.md", "FILE_NAME"),
    (11, "name given twice"): (CONFIG, "FILE_NAME"),
    (11, "name with a zero byte"): ("README.md\0.exe", "FILE_NAME"),
    (34, "tokenizer that is declared"): ("tokenizer.json", "FILE_NOT_ALLOWED"),
    (34, "template that is declared"): ("chat_template.jinja", "FILE_NOT_ALLOWED"),
}
"""Names that no directory has, but a caller can declare; row and title to name and reason."""


def write_case(case: Case, directory: Path) -> Path:
    """Makes the hostile directory of one case."""
    case.spoil(write_adapter(directory))
    return directory


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for name, case in CASES.items():
        write_case(case, place / name)
        sys.stdout.write(f"{name}\t{'accepted' if case.is_accepted else 'refused'}\t{case.reason or '-'}\n")
