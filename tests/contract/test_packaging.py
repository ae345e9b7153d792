"""What is installed is what lies in the tree, under one name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("proto", "registry", "trainer", "server", "clients")


def test_package_list_matches_the_tree() -> None:
    """A package missing from the list imports in an editable install and vanishes from the wheel."""
    on_disk = {
        ".".join(("switchyard", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert on_disk == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_package_with_modules_has_an_init() -> None:
    folders = {file.parent for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_generic_name_is_imported() -> None:
    """A second copy of a module, reached through the repository root, would have its own classes."""
    assert not set(ROOMS) & set(sys.modules)


def test_commands_are_there() -> None:
    scripts = PROJECT["project"]["scripts"]
    commands = PROJECT["project"]["entry-points"]["switchyard.commands"]
    installed = {entry.name: entry for entry in metadata.entry_points(group="switchyard.commands")}
    assert set(commands) == set(installed)
    assert set(scripts) == {"switchyard"}
    for entry in installed.values():
        assert callable(entry.load())


def test_version_is_in_the_changelog() -> None:
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_registry_and_clients_do_without_torch() -> None:
    """Both are imported by tools that must start fast and run where torch is not installed."""
    code = (
        "import sys, switchyard.registry.store, switchyard.clients.cli, switchyard.clients.inference;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
