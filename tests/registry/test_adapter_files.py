"""Only named regular files are taken from a directory; pickles and code are refused whatever lies beside them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from handmade import write_adapter

from switchyard.registry.manifest import FileEntry
from switchyard.registry.validation.adapter_files import check_entries, collect_files, read_chunks
from switchyard.registry.verdicts import Findings, Reason

DIGEST = "sha256:" + "0" * 64


def collected(directory: Path) -> tuple[list[str], list[tuple[Reason, str]], list[str]]:
    findings = Findings()
    source = collect_files(directory, findings)
    return (
        [entry.path for entry in source.files],
        [(verdict.reason, verdict.subject.strip("'")) for verdict in findings.faults],
        [verdict.subject.strip("'") for verdict in source.warnings],
    )


def test_what_a_training_run_leaves_is_sorted_out(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "checkpoint-200").mkdir()
    files, faults, left_out = collected(tmp_path)
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors", "metrics.json"]
    assert faults == []
    assert left_out == [
        "chat_template.jinja",
        "checkpoint-200",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "x.pkl",
        "x.ckpt",
        "x.PT",
        "modeling.py",
        "x.so",
        "adapter_model-00001.safetensors",
        "notes.txt",
        ".hidden",
        "model.gguf",
    ],
)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    """Also beside a good safetensors file."""
    write_adapter(tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04.")
    assert collected(tmp_path)[1] == [(Reason.FILE_NOT_ALLOWED, name)]


@pytest.mark.parametrize("name", ["Adapter_Model.safetensors", "README.MD", "a\u202eb", "a\nb"])
def test_names_that_mislead_are_refused(name: str, tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / name).write_bytes(b"x")
    ((reason, subject),) = collected(tmp_path)[1]
    assert reason is Reason.FILE_NAME
    assert subject.isprintable()


def test_a_directory_that_is_not_left_behind_by_training(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "src").mkdir()
    assert collected(tmp_path)[1] == [(Reason.FILE_NOT_ALLOWED, "src")]


def test_missing_files(tmp_path: Path) -> None:
    assert [fault for fault, _ in collected(tmp_path / "nowhere")[1]] == [Reason.FILE_MISSING] * 3
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert collected(tmp_path)[1] == [
        (Reason.FILE_NOT_ALLOWED, "adapter_model.bin"),
        (Reason.FILE_MISSING, "adapter_config.json"),
        (Reason.FILE_MISSING, "adapter_model.safetensors"),
    ]


@pytest.mark.parametrize("kind", ["link", "sibling link", "dangling link", "pipe", "socket", "directory", "device"])
def test_only_regular_files_are_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write_adapter(tmp_path / "a")
    path = directory / "adapter_model.safetensors"
    path.rename(directory.parent / "aside") if kind != "sibling link" else path.rename(directory / "README.md")
    server = socket.socket(socket.AF_UNIX)
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "sibling link":
            path.symlink_to("README.md")
        case "dangling link":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(directory)
            server.bind(path.name)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    server.close()
    assert collected(directory)[1] == [(Reason.NOT_REGULAR_FILE, "adapter_model.safetensors")]


def test_sizes(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "README.md").write_bytes(b"")
    with (tmp_path / "adapter_model.safetensors").open("wb") as file:
        file.truncate((2 << 30) + 1)
    assert collected(tmp_path)[1] == [(Reason.SIZE, "README.md"), (Reason.SIZE, "adapter_model.safetensors")]


def test_a_file_that_became_a_link_is_not_read(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="link"):
        list(read_chunks(tmp_path / "README.md"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("adapter_model.bin", Reason.FILE_NOT_ALLOWED),
        ("tokenizer.json", Reason.FILE_NOT_ALLOWED),
        ("../README.md", Reason.FILE_NAME),
        ("/etc/passwd", Reason.FILE_NAME),
        ("a/README.md", Reason.FILE_NAME),
        ("readme.md", Reason.FILE_NAME),
        ("", Reason.FILE_NAME),
        ("README.md\0", Reason.FILE_NAME),
    ],
)
def test_declared_files_are_held_to_the_same_names(path: str, reason: Reason) -> None:
    findings = Findings()
    check_entries([FileEntry(path, DIGEST, 1), *GOOD], findings)
    assert [verdict.reason for verdict in findings.faults] == [reason]


GOOD = [FileEntry("adapter_config.json", DIGEST, 1), FileEntry("adapter_model.safetensors", DIGEST, 1)]


def test_every_fault_of_a_declaration_is_listed() -> None:
    findings = Findings()
    files = [
        FileEntry("README.md", "md5", 1),
        FileEntry("README.md", DIGEST, 0),
        FileEntry("metrics.json", DIGEST, 2 << 20),
        FileEntry("adapter_model.safetensors", DIGEST, 3 << 30),
    ]
    check_entries(files, findings)
    assert [(verdict.reason, verdict.subject.strip("'")) for verdict in findings.faults] == [
        (Reason.DIGEST, "README.md"),
        (Reason.FILE_NAME, "README.md"),
        (Reason.SIZE, "README.md"),
        (Reason.SIZE, "metrics.json"),
        (Reason.SIZE, "adapter_model.safetensors"),
        (Reason.FILE_MISSING, "adapter_config.json"),
    ]
