"""Commands that other rooms bring to the command line.

`serve`, `train` and the like live with what they run, and this package may not
import those rooms. They are found through the entry-point group
`switchyard.commands` and imported only when the command itself runs: listing
commands must not load torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from switchyard.clients.errors import CommandUnavailable

GROUP: Final = "switchyard.commands"

REGISTRY_PANEL: Final = "Registry"
OPERATIONS_PANEL: Final = "Operating a registry"
SERVING_PANEL: Final = "Serving"
TRAINING_PANEL: Final = "Training"
DEMO_PANEL: Final = "Demo"

_SUMMARIES: Final[Mapping[str, tuple[str, str]]] = {
    "serve": (SERVING_PANEL, "Serve a 4-bit base with every adapter published."),
    "registry-service": (SERVING_PANEL, "Serve a registry alone, without a model."),
    "bench": (SERVING_PANEL, "Measure a server on this machine."),
    "train": (TRAINING_PANEL, "Train an adapter from a recipe (QLoRA)."),
    "sign": (REGISTRY_PANEL, "Sign a version with a key of your own."),
    "verify": (REGISTRY_PANEL, "Check who signed a version."),
    "import": (REGISTRY_PANEL, "Bring in a version from the Hub's or OCI's layout."),
    "export": (REGISTRY_PANEL, "Write a version in the Hub's or OCI's layout, or merged into its base."),
    "compose": (REGISTRY_PANEL, "Make one version of several."),
    "registry": (OPERATIONS_PANEL, "Make, prove and mend a registry on this machine."),
    "doctor": (OPERATIONS_PANEL, "Prove that disk, database and bucket keep what they acknowledge."),
    "fsck": (OPERATIONS_PANEL, "Find everything that is wrong; change nothing."),
    "backup": (OPERATIONS_PANEL, "Copy a registry while it is in use."),
    "restore": (OPERATIONS_PANEL, "Make a registry from a backup."),
    "demo-data": (DEMO_PANEL, "Write the demo tasks' data and recipes."),
}
"""Panel and one line for the listing; the command's own help has the rest."""


class LazyCommand(TyperCommand):
    """Stands for a command until it runs; its own options and help are those of the command itself."""

    def __init__(self, entry_point: EntryPoint, variants: Mapping[str, EntryPoint] = MappingProxyType({})) -> None:
        """Knows the command by its entry point only.

        Args:
            entry_point: the command.
            variants: flag to what runs instead when the flag is given; other rooms bring them.
        """
        panel, summary = _SUMMARIES.get(entry_point.name, ("Extensions", f"From {entry_point.value}."))
        super().__init__(entry_point.name, help=summary, rich_help_panel=panel)
        self._entry_point = entry_point
        self.variants = variants

    def make_context(  # type: ignore[override]  # typer names its own context class only
        self,
        info_name: str | None,
        args: list[str],
        parent: typer.Context | None = None,
        **extra: object,
    ) -> typer.Context:
        """Imports the command and lets it parse its own arguments.

        Raises:
            CommandUnavailable: it cannot be imported.
        """
        flag = next((word for word in args if word in self.variants), None)
        if flag is not None:
            info_name, args = f"{info_name} {flag}", [word for word in args if word != flag]
        made: typer.Context = self._load(flag).make_context(info_name, args, parent, **extra)  # type: ignore[assignment]
        return made

    def _load(self, flag: str | None = None) -> TyperCommand | TyperGroup:
        entry_point = self._entry_point if flag is None else self.variants[flag]
        try:
            found = entry_point.load()
        except (ImportError, AttributeError) as error:
            raise CommandUnavailable(
                f"`switchyard {self.name}` cannot be loaded from {entry_point.value}: {error}. "
                "Install the whole package, dependencies included (`make setup`)."
            ) from error
        return command_of(found)


def command_of(found: object) -> TyperCommand | TyperGroup:
    """Makes a command of what an entry point names: a `typer.Typer`, a command or a plain function.

    Raises:
        CommandUnavailable: it is none of these.
    """
    if isinstance(found, TyperCommand | TyperGroup):
        return found
    if isinstance(found, typer.Typer):
        return get_command(found)  # type: ignore[return-value]
    if callable(found):
        return _command_of_function(found)
    raise CommandUnavailable(f"an entry point of {GROUP} names {type(found).__name__}, expected a function.")


def add_commands(group: TyperGroup) -> None:
    """Adds every command found in `GROUP` that `group` does not have itself, in the order of names.

    An entry point `export.merged` is what `export` runs when it is given `--merged`.
    """
    found = {one.name: one for one in entry_points(group=GROUP)}
    for name, entry_point in sorted(found.items()):
        if "." not in name and name not in group.commands:
            variants = {
                f"--{other.removeprefix(f'{name}.')}": one
                for other, one in found.items()
                if other.startswith(f"{name}.")
            }
            group.add_command(LazyCommand(entry_point, variants))


def _command_of_function(function: Callable[..., object]) -> TyperCommand | TyperGroup:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    return get_command(app)  # type: ignore[return-value]
