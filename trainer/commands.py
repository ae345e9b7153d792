"""The trainer's commands: `switchyard train` and `switchyard demo-data`.

Owns options, exit codes (0 done, 1 an expected failure with its reason, 2 wrong usage, 75 stopped with its
state saved, 130 interrupted) and
what is printed: progress on standard error, the result on standard output. Heavy imports are inside the
functions, so that `switchyard --help` stays fast.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from switchyard.trainer.gate.run import Parent
    from switchyard.trainer.publish import Published, PublishTarget
    from switchyard.trainer.recipe import Recipe
    from switchyard.trainer.result import TrainResult
    from switchyard.trainer.stopping import StopRequest

_FAILED = 1
_USAGE = 2
_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
_INTERRUPTED = 130
_RUNS = Path("runs")


RecipeArgument = Annotated[
    Path | None, typer.Argument(help="Recipe file (YAML); left out with --verify.", show_default=False)
]
PublishOption = Annotated[
    str | None, typer.Option(metavar="REF", help="Publish as ns/name, or ns/name@alias to move the alias too.")
]
RegistryOption = Annotated[
    Path | None, typer.Option(metavar="DIR", envvar="SWITCHYARD_REGISTRY", help="Publish to this registry directory.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(metavar="ADDR", envvar="SWITCHYARD_SERVER", help="Publish to the server at this address."),
]
BaseOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Base model to use instead of the recipe's.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Another value than the recipe's, e.g. train.epochs=3; may be repeated."
    ),
]
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Output directory; runs/<name>-<time> by default.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out, or with the newest unfinished one in runs/.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.", show_default=False)]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that share the run, one for each GPU; parallel.processes by default."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Print steps, tokens, parameters and memory of the run; train nothing.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and take one step; keep and publish nothing.")
]
VerifyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="LOCK", help="Repeat the run of a lock.json and compare; publish nothing.", show_default=False
    ),
]


def train(
    context: typer.Context,
    recipe: RecipeArgument = None,
    publish: PublishOption = None,
    registry: RegistryOption = None,
    server: ServerOption = None,
    base: BaseOption = None,
    changes: SetOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
    explain: ExplainOption = False,
    dry_run: DryRunOption = False,
    verify: VerifyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter from a recipe.

    It is published when --publish, --registry or --server is given; the recipe's `publish` section says under
    which name where --publish does not.

    A run that was cut off goes on when the same recipe is trained into the same --out. SIGTERM and Ctrl-C end a
    run after its current step, save its state and exit with 75.
    """
    from rich.console import Console

    from switchyard.trainer.gate.parent import parent_of
    from switchyard.trainer.parallel.following import follows
    from switchyard.trainer.publish import publish_target
    from switchyard.trainer.result_page import print_result

    console = Console(stderr=True)
    if verify is not None:
        _verify(context, verify, out, base, threads, console, as_json=as_json)
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe file, or --verify LOCK.", ctx=context, param_hint="RECIPE")
    with _expected_failures(context, console, as_json=as_json):
        what = _recipe(recipe, changes or (), base, processes)
        if follows(what, out, threads, is_run=not (explain or dry_run)):
            return
        registry, server = _chosen_place(context, publish, registry, server)
        target = publish_target(what, ref=publish, registry=registry, server=server)
        if explain or dry_run:
            _foresee(what, out or _RUNS, target, threads, steps=dry_run, as_json=as_json)
            return
        out = _output(what, out, resume=resume)
        _warn(what, target, console)
        with parent_of(what.gate.parent, target) as parent:
            result = _train(what, out, threads, console, parent)
        published = _publish(result, what, target, console, as_json=as_json)
    print_result(result, published, as_json=as_json)


def _recipe(path: Path, changes: Sequence[str], base: Path | None, processes: int | None) -> Recipe:
    from switchyard.trainer.recipe_file import load_recipe

    more = () if processes is None else (f"parallel.processes={processes}",)
    recipe = load_recipe(path, (*changes, *more))
    return recipe if base is None else recipe.with_base(base)


def _verify(
    context: typer.Context,
    lock: Path,
    out: Path | None,
    base: Path | None,
    threads: int | None,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """Repeats a run; ends with 1 when the new one is another."""
    from rich.console import Console

    from switchyard.trainer.progress import progress_for
    from switchyard.trainer.verification_page import print_verification

    _refuse_with_verify(context)
    out = out or _RUNS / f"verify-{time.strftime('%Y%m%d-%H%M%S')}"
    with _expected_failures(context, console, as_json=as_json), stoppable() as stop, progress_for(console) as bar:
        from switchyard.trainer.verifying import Verdict, verify

        found = verify(lock, out_dir=out, base=base, threads=threads, listeners=[bar], stop=stop)
    if as_json:
        typer.echo(json.dumps(found.document(), ensure_ascii=False))
    else:
        print_verification(found, Console())
    if found.verdict is Verdict.DIFFERENT:
        raise typer.Exit(_FAILED)


def _refuse_with_verify(context: typer.Context) -> None:
    """Refuses what a verification would have to ignore; the environment says where to publish, never whether to."""
    taken = {"verify", "out", "base", "threads", "as_json"}
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in taken
        and (source := context.get_parameter_source(str(parameter.name))) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"found {', '.join(given)} beside --verify, which takes --out, --base, --threads and --json.", ctx=context
        )


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Lets SIGTERM and Ctrl-C ask the run in the block to stop, and says so."""
    from switchyard.trainer.stopping import stop_on_signals

    def notice(signal: str) -> None:
        typer.echo(f"{signal}: saving after this step; once more ends the run at once", err=True)

    with stop_on_signals(notice) as stop:
        yield stop


def _warn(recipe: Recipe, target: PublishTarget | None, console: Console) -> None:
    """Says what would become of the adapter, before hours are spent; it decides nothing."""
    from switchyard.trainer.servability import foreseen

    for sentence in foreseen(recipe, target):
        console.print(f"warning: {sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _expected_failures(context: typer.Context, console: Console, *, as_json: bool) -> Iterator[None]:
    from switchyard.trainer.error_page import exit_with
    from switchyard.trainer.errors import (
        GateRefused,
        PublishFailed,
        PublishTargetInvalid,
        RunStopped,
        TrainerError,
    )

    try:
        yield
    except PublishTargetInvalid as error:
        raise exit_with(error, _USAGE, console, as_json=as_json) from error
    except (GateRefused, PublishFailed) as error:
        # What was trained was reported where it was judged and published.
        raise typer.Exit(_FAILED) from error
    except RunStopped as error:
        ended = exit_with(error, _STOPPED, console, as_json=as_json)
        again = _same_command(context, error.directory)
        console.print(f"to go on:\n  {again}", markup=False, highlight=False, soft_wrap=True)
        raise ended from error
    except TrainerError as error:
        raise exit_with(error, _FAILED, console, as_json=as_json) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; no adapter was written")
        raise typer.Exit(_INTERRUPTED) from error


def _foresee(
    recipe: Recipe, out: Path, target: PublishTarget | None, threads: int | None, *, steps: bool, as_json: bool
) -> None:
    """Prints what a run would do, after one step of it when `steps`."""
    from rich.console import Console

    from switchyard.trainer.dry_run import dry_run
    from switchyard.trainer.explain import explain
    from switchyard.trainer.explain_page import print_dry_run, print_explanation

    if steps:
        found = dry_run(recipe, out_dir=out, target=target, threads=threads)
        document, show = found.document(), partial(print_dry_run, found)
    else:
        explanation = explain(recipe)
        document, show = explanation.document(), partial(print_explanation, explanation)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        show(Console())


def demo_data(
    directory: Annotated[Path, typer.Argument(help="Where to write; one directory per task.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rows.")] = 0,
) -> None:
    """Write the demo tasks' data and recipes."""
    from rich.console import Console

    from switchyard.trainer.demo_data import write_demo_data

    console = Console(stderr=True)
    try:
        recipes = write_demo_data(directory, seed=seed)
    except OSError as error:
        message = f"cannot write the demo's data to {directory}: {error.strerror or error}"
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(_FAILED) from error
    for path in recipes:
        typer.echo(path)


def _chosen_place(
    context: typer.Context, publish: str | None, registry: Path | None, server: str | None
) -> tuple[Path | None, str | None]:
    """Returns the places that count: the environment says where to publish, never whether to."""
    sources = {name: context.get_parameter_source(name) for name in ("registry", "server")}
    by_hand = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if by_hand or publish is None:
        return (registry if "registry" in by_hand else None), (server if "server" in by_hand else None)
    return registry, server


def _output(recipe: Recipe, out: Path | None, *, resume: bool) -> Path:
    from switchyard.trainer.continuing import require_checkpoint, unfinished_run

    if not resume:
        return out or _RUNS / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if out is None:
        return unfinished_run(_RUNS, recipe.name)
    require_checkpoint(out)
    return out


def _same_command(context: typer.Context, out: Path) -> str:
    """Returns the command line as it was given, with the output directory spelt out."""
    recipe = context.params["recipe"]
    words = ["switchyard", "train", *([str(recipe)] if recipe is not None else []), "--out", str(out)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in {"recipe", "out", "resume"} or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        values = value if isinstance(value, list | tuple) else [value]
        words += (
            [parameter.opts[0]]
            if value is True
            else [part for one in values for part in (parameter.opts[0], str(one))]
        )
    return shlex.join(words)


def _train(recipe: Recipe, out: Path, threads: int | None, console: Console, parent: Parent | None) -> TrainResult:
    from switchyard.trainer.progress import progress_for

    with stoppable() as stop, progress_for(console) as progress:
        # Imported under the bar, because torch and its friends take seconds to load.
        from switchyard.trainer.run import train as run

        return run(recipe, out_dir=out, listeners=[progress], threads=threads, stop=stop, parent=parent)


def _publish(
    result: TrainResult, recipe: Recipe, target: PublishTarget | None, console: Console, *, as_json: bool
) -> Published | None:
    from switchyard.trainer.error_page import error_document, print_error
    from switchyard.trainer.errors import GateRefused, PublishFailed
    from switchyard.trainer.gate.consequence import target_after
    from switchyard.trainer.publish import publish_run
    from switchyard.trainer.result_page import print_result

    try:
        target = target_after(result, recipe.gate, target)
        return None if target is None else publish_run(result, target)
    except (GateRefused, PublishFailed) as error:
        if as_json:
            document = result.document() | {"published": None, "error": error_document(error)}
            typer.echo(json.dumps(document, ensure_ascii=False))
        else:
            print_result(result, None, as_json=False)
            print_error(error, console)
        raise
