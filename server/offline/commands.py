"""`switchyard compose` and `switchyard export --merged`.

Both open the registry's directory themselves, like every command that makes
something of what lies there. Nothing that imports torch is imported at the top.
"""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from switchyard.registry.commands.output import DirectoryOption, console, say, show, working
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.records import PublishResult
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.server.adapters.composition import PARAMETERS_OF
from switchyard.server.engine.recipe import Recipe

if TYPE_CHECKING:
    from switchyard.server.offline.merged_base import Progress as Told


class Method(StrEnum):
    """How versions become one; the names are those of PEFT's `add_weighted_adapter`."""

    CAT = "cat"
    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"
    MAGNITUDE_PRUNE = "magnitude_prune"


class MajoritySign(StrEnum):
    """How the sign of each value is elected."""

    TOTAL = "total"
    FREQUENCY = "frequency"


class CopyDtype(StrEnum):
    """16-bit dtypes."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


Parts = Annotated[
    list[str], typer.Argument(metavar="REF[=WEIGHT]...", help="Versions with their factors, e.g. team/a@prod=0.5.")
]


def compose(
    parts: Parts,
    registry: DirectoryOption,
    push: Annotated[
        str, typer.Option(metavar="ADAPTER", help="Publish the result as a version of ns/name.", show_default=False)
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the result's files into this new directory.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How the versions become one.")] = Method.CAT,
    density: Annotated[float | None, typer.Option(help="Fraction of the values that is kept, above 0 to 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the random choice of dare; 0 when not given.", min=0)] = None,
    majority_sign: Annotated[MajoritySign | None, typer.Option(help="Of ties; total when not given.")] = None,
    svd_rank: Annotated[int | None, typer.Option(help="Rank of svd; else the largest of the parts.", min=1)] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The base model; dare draws in the order of its modules.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Alias to move to the new version.")] = None,
    note: Annotated[str, typer.Option(help="Free text for people.", show_default=False)] = "",
) -> None:
    """Make one version of several, equal to what a server composes of them for a request.

    The result is what PEFT's add_weighted_adapter gives for the same adapters, weights and seed. Its parts are its
    parents in the lineage.
    """
    if not push and out is None:
        raise ArgumentInvalid("nothing would be kept; name --push ns/name, --out DIR or both")
    name = AdapterName.parse(push) if push else None
    recipe, wanted = _recipe(method, density, seed, majority_sign, svd_rank), _weighted(parts)
    from switchyard.server.offline.composer import compose as composed
    from switchyard.server.offline.ingredients import gather

    with Registry.open(registry) as opened, tempfile.TemporaryDirectory() as scratch:
        ingredients = gather(opened, wanted)
        order: tuple[str, ...] = ()
        if base is not None:
            order = _order(base, ingredients[0].version.base.digest)
        with working("merging"):
            made = composed(opened, ingredients, recipe, order)
        made.write(Path(scratch))
        if out is not None:
            _keep(Path(scratch), out)
            say(f"{len(made.files)} files are in {out}")
        if name is not None:
            result = opened.publish(
                name,
                Path(scratch),
                base_digest=ingredients[0].version.base.digest,
                lineage=made.lineage,
                publisher=getpass.getuser(),
                note=note,
                set_alias=alias,
            )
            _tell(result, made.selection.recipe_digest)


def export_merged(
    parts: Parts,
    registry: DirectoryOption,
    base: Annotated[Path, typer.Option(metavar="DIR", help="The base model, in 16 or 32 bits.", exists=True)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to make.")],
    dtype: Annotated[CopyDtype, typer.Option(help="Of the copy.")] = CopyDtype.BFLOAT16,
) -> None:
    """Write a 16-bit copy of the base with versions merged into its weights.

    For programs that cannot serve adapters. One version alone with weight 1 may use any feature that is served;
    several, or one with another weight, may only add low-rank updates. A quantised base is refused: round after
    merging, not before.
    """
    from switchyard.server.offline.ingredients import gather
    from switchyard.server.offline.merged_base import PROVENANCE_FILE
    from switchyard.server.offline.merged_base import export_merged as write

    wanted = _weighted(parts)
    with Registry.open(registry) as opened, _bar() as told:
        ingredients = gather(opened, wanted)
        write(opened, ingredients, base, out, dtype=dtype, progress=told)
    say(f"{' + '.join(f'{one.weight:g} x {one.ref}' for one in ingredients)} merged into {out} ({dtype})")
    say(f"what it is made of is in {out / PROVENANCE_FILE}")


def _weighted(parts: list[str]) -> list[tuple[str, float]]:
    found = []
    for part in parts:
        ref, given, weight = part.rpartition("=")
        try:
            found.append((ref, float(weight)) if given else (part, 1.0))
        except ValueError:
            raise ArgumentInvalid(f"{part} has the weight {weight!r}; expected a number, e.g. {ref}=0.5") from None
    return found


def _recipe(
    method: Method,
    density: float | None,
    seed: int | None,
    majority_sign: MajoritySign | None,
    svd_rank: int | None,
) -> Recipe:
    given = {"density": density, "seed": seed, "majority_sign": majority_sign, "svd_rank": svd_rank}
    takes = PARAMETERS_OF[method]
    for name, value in given.items():
        if value is not None and name not in takes:
            raise ArgumentInvalid(f"method {method} has no --{name.replace('_', '-')}; leave it out")
    if "density" in takes and (density is None or not 0 < density <= 1):
        raise ArgumentInvalid(f"method {method} needs --density above 0 and at most 1, found {density}")
    return Recipe(str(method), density, seed, None if majority_sign is None else str(majority_sign), svd_rank)


def _order(base: Path, expected: str) -> tuple[str, ...]:
    from switchyard.registry.base_model import describe_base
    from switchyard.server.errors import BaseMismatch
    from switchyard.server.offline.module_order import module_order

    found = describe_base(base).digest
    if found != expected:
        raise BaseMismatch(f"{base} holds base {found}; the versions were made for {expected}")
    return module_order(base)


def _keep(made: Path, out: Path) -> None:
    from switchyard.registry.storage.durable import new_directory, write_durably

    with new_directory(out) as staged:
        for path in sorted(made.iterdir()):
            write_durably(staged / path.name, path.read_bytes())


def _tell(result: PublishResult, recipe_digest: str) -> None:
    for warning in result.warnings:
        say(f"warning {warning}")
    if result.version is not None:
        version = result.version
        rows = {"ref": f"{version.name}:{version.version}", "digest": version.digest, "recipe": recipe_digest}
        show(version, rows, as_json=False)


@contextmanager
def _bar() -> Iterator[Told]:
    """A bar over the tensors, on a terminal only."""
    output = console(stderr=True)
    with Progress(console=output, disable=not output.is_terminal, transient=True) as progress:
        task = progress.add_task("merging", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
