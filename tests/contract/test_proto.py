"""The wire contract: generated code is current, buf is content, and a break would be seen."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
FILES = sorted(PROTO.glob("*/v1/*.proto"))
BUF = ["npx", "--yes", "@bufbuild/buf@1.75.0"]


def test_generated_code_is_what_protoc_makes(tmp_path: Path) -> None:
    virtual = [f"switchyard/proto/{path.relative_to(PROTO)}" for path in FILES]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-P", "-m", "grpc_tools.protoc", f"-Iswitchyard/proto={PROTO}", *outputs, *virtual]
    subprocess.run(command, check=True, cwd=ROOT)
    made = sorted((tmp_path / "switchyard" / "proto").rglob("*_pb2*"))
    assert len(made) == 3 * len(FILES)
    for path in made:
        committed = PROTO / path.relative_to(tmp_path / "switchyard" / "proto")
        assert filecmp.cmp(path, committed, shallow=False), f"{committed} is stale; run `make proto`"


def buf_workspace(directory: Path) -> Path:
    """The protos under the folders that their packages name, as buf wants them."""
    for path in FILES:
        target = directory / "switchyard" / path.relative_to(PROTO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(PROTO / "buf.yaml", directory / "buf.yaml")
    return directory


@pytest.fixture(scope="module")
def buf() -> list[str]:
    if shutil.which("npx") is None:
        pytest.skip("npx is not installed; buf comes through it")
    if subprocess.run([*BUF, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("buf cannot be installed here")
    return BUF


def test_buf_lint_and_breaking_pass(buf: list[str], tmp_path: Path) -> None:
    workspace = buf_workspace(tmp_path)
    subprocess.run([*buf, "lint"], cwd=workspace, check=True)
    subprocess.run([*buf, "breaking", "--against", str(PROTO / "released.binpb")], cwd=workspace, check=True)


def test_a_break_is_seen(buf: list[str], tmp_path: Path) -> None:
    workspace = buf_workspace(tmp_path)
    contract = workspace / "switchyard" / "inference" / "v1" / "inference.proto"
    contract.write_text(contract.read_text().replace("string request_id = 8;", "string request_id = 99;"))
    result = subprocess.run(
        [*buf, "breaking", "--against", str(PROTO / "released.binpb")],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "request_id" in result.stdout
