from __future__ import annotations

import subprocess
from pathlib import Path

from switchyard.trainer.provenance import code_commit, environment, quantization_spec
from switchyard.trainer.recipe import DType, QuantizationMethod, QuantizationSection


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_says_when_files_differ_from_it(tmp_path: Path) -> None:
    assert code_commit(tmp_path) == ""
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = code_commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert code_commit(tmp_path) == f"{clean}-dirty"


def test_double_quantisation_of_nothing_is_not_recorded() -> None:
    nf4 = QuantizationSection(compute_dtype=DType.BFLOAT16)
    none = QuantizationSection(method=QuantizationMethod.NONE)
    assert quantization_spec(nf4).label() == "nf4+double/bfloat16"
    assert quantization_spec(none).label() == "none/float32"


def test_the_environment_names_the_libraries_that_decide_the_bits() -> None:
    found = environment()
    assert {"torch", "transformers", "peft", "trl", "bitsandbytes", "python", "device", "threads"} <= found.keys()
    assert all(value and value != "not installed" for value in found.values())
