"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("registry", "trainer", "server", "clients", "tests", "bench")
MODULES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if "_pb2" not in path.name and "__pycache__" not in path.parts
)
PRODUCT = [path for path in MODULES if path.relative_to(ROOT).parts[0] not in {"tests", "bench"}]
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
DRAWERS = {"utils", "common", "helpers", "misc", "base", "core"}

# Each of these runs or loads what a file says.
UNSAFE = re.compile(
    r"(?<![.\w])(torch\.load|yaml\.load|eval|exec|__import__)\s*\("
    r"|\bimport_module\s*\(|\bimport (pickle|dill|joblib)\b"
)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_the_tree_is_the_architecture() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}
    assert folders <= {"proto", "registry", "trainer", "server", "clients", "tests", "bench", "deploy", "docs"}
    rooms = {
        "engine",
        "adapters",
        "gpu",
        "lora",
        "model",
        "native",
        "calls",
        "chat",
        "rpc",
        "http",
        "measure",
        "observe",
        "offline",
        "rollout",
        "worker",
    }
    assert {path.parent.name for path in (ROOT / "server").glob("*/__init__.py")} == rooms


def test_modules_are_short() -> None:
    long = [path for path in MODULES if len(path.read_text().splitlines()) > MAX_MODULE_LINES]
    assert names(long) == []


# A migration is one list of statements; splitting it would hide their order.
WITH_FUNCTIONS = [path for path in PRODUCT if "migrations" not in path.parts]


@pytest.mark.parametrize("path", WITH_FUNCTIONS, ids=names(WITH_FUNCTIONS))
def test_functions_are_short(path: Path) -> None:
    tree = ast.parse(path.read_text())
    long = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > MAX_FUNCTION_LINES
    ]
    assert long == []


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the function without its docstring."""
    docstring = ast.get_docstring(node, clean=False)
    return (node.end_lineno or 0) - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)


def test_no_module_is_a_drawer() -> None:
    assert names([path for path in MODULES if path.stem in DRAWERS or path.parent.name in DRAWERS]) == []


def test_nothing_runs_what_a_file_says() -> None:
    """Between the two processes of one server no file says anything: their socket has no name."""
    offenders = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in PRODUCT
        if path != ROOT / "server" / "worker" / "pipe.py"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if UNSAFE.search(line)
    }
    assert offenders == set()


def test_product_code_has_no_assert() -> None:
    """`python -O` removes asserts, and with them whatever they guarded."""
    offenders = [
        path
        for path in PRODUCT
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text())))
    ]
    assert names(offenders) == []


def test_no_registry_host_is_named() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    hosts = re.compile(r"pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian|index-url", re.IGNORECASE)
    offenders = []
    for name in tracked.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".md", ".txt", ".yaml", ".yml", ".cfg", ""} and path.is_file():
            if path.name == "test_house.py":
                continue
            if hosts.search(path.read_text(errors="replace")):
                offenders.append(name)
    assert offenders == []
