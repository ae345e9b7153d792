"""The command `switchyard job`: what the trainer's image starts.

Owns its options, most of which are also variables of the environment, and its exit codes: 0 done, 1 it would fail
again as it is, 2 wrong usage, 75 the same job goes on later (stopped with its state in the store, or the store or the
server did not answer), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from switchyard.trainer.job.job import JobDone, JobOrder, RegistryStore

_FAILED = 1
_USAGE = 2
_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
_INTERRUPTED = 130

RecipeArgument = Annotated[
    str, typer.Argument(metavar="URL", envvar="SWITCHYARD_JOB_RECIPE", help="Recipe file in the object store.")
]
OutOption = Annotated[
    str,
    typer.Option(metavar="URL", envvar="SWITCHYARD_JOB_OUT", help="Where states and results of this run go."),
]
PublishOption = Annotated[
    str | None,
    typer.Option(metavar="REF", envvar="SWITCHYARD_JOB_PUBLISH", help="Publish as ns/name, or ns/name@alias."),
]
ServerOption = Annotated[
    str | None, typer.Option(metavar="ADDR", envvar="SWITCHYARD_JOB_SERVER", help="Publish to this server.")
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", envvar="SWITCHYARD_JOB_REGISTRY", help="Publish to this registry directory."),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="SWITCHYARD_JOB_DATABASE", help="Publish to the registry in this database."),
]
BlobsOption = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="SWITCHYARD_JOB_BLOBS", help="Object store of the registry in --database."),
]
BaseOption = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="SWITCHYARD_JOB_BASE", help="Base model, or a directory of this machine."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value than the recipe's; may be repeated."),
]
ScratchOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", envvar="SWITCHYARD_JOB_SCRATCH", help="Disk to work on; the system's by default."),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, envvar="SWITCHYARD_JOB_THREADS", help="CPU threads; all by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def job(
    recipe: RecipeArgument,
    out: OutOption,
    publish: PublishOption = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
    database: DatabaseOption = None,
    blobs: BlobsOption = None,
    base: BaseOption = None,
    changes: SetOption = None,
    scratch: ScratchOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train from object store to object store, on a machine that may be lost at any time.

    URLs are s3://, gs://, az:// or file:///. Started again after whatever ended it, on a fresh machine, the same job
    goes on from the last state in the store and ends with the same adapter. SIGTERM saves and exits with 75.
    """
    from rich.console import Console

    from switchyard.trainer.commands import stoppable
    from switchyard.trainer.progress import progress_for

    console = Console(stderr=True)

    def warn(sentence: str) -> None:
        console.print(f"warning: {sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    with _told(console, as_json=as_json), stoppable() as stop, progress_for(console) as progress:
        # Imported under the bar, because torch and its friends take seconds to load.
        from switchyard.trainer.job.job import JobOrder, run_job
        from switchyard.trainer.objects import ObjectUrl, is_object_url

        order = JobOrder(
            recipe=ObjectUrl.parse(recipe),
            out=ObjectUrl.parse(out),
            changes=tuple(changes or ()),
            base=None if base is None else ObjectUrl.parse(base) if is_object_url(base) else Path(base),
            ref=publish,
            registry=registry,
            server=server,
            store=_store(database, blobs, registry),
            scratch=scratch,
            threads=threads,
        )
        _require_directory(order)
        done = run_job(order, listeners=[progress], stop=stop, warn=warn)
    _print(done, as_json=as_json)


def _store(database: str | None, blobs: str | None, registry: Path | None) -> RegistryStore | None:
    from switchyard.trainer.errors import PublishTargetInvalid
    from switchyard.trainer.job.job import RegistryStore

    if database is None and blobs is None:
        return None
    if database is None or blobs is None or registry is not None:
        raise PublishTargetInvalid("a registry is --registry DIR, or --database URL and --blobs URL together")
    return RegistryStore(database, blobs)


def _require_directory(order: JobOrder) -> None:
    from switchyard.trainer.errors import RunError

    if order.scratch is not None and not order.scratch.is_dir():
        raise RunError(f"there is no directory {order.scratch} to work in; make it, or leave out --scratch")


@contextlib.contextmanager
def _told(console: Console, *, as_json: bool) -> Iterator[None]:
    from switchyard.trainer.error_page import exit_with
    from switchyard.trainer.errors import (
        ObjectsUnavailable,
        PublishDelayed,
        PublishTargetInvalid,
        RunStopped,
        TrainerError,
    )

    try:
        yield
    except PublishTargetInvalid as error:
        raise exit_with(error, _USAGE, console, as_json=as_json) from error
    except (RunStopped, ObjectsUnavailable, PublishDelayed) as error:
        raise exit_with(error, _AGAIN, console, as_json=as_json) from error
    except TrainerError as error:
        raise exit_with(error, _FAILED, console, as_json=as_json) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; what the store holds stays")
        raise typer.Exit(_INTERRUPTED) from error


def _print(done: JobDone, *, as_json: bool) -> None:
    if as_json:
        document = {
            "out": str(done.out),
            "was_finished": done.was_finished,
            "outcome": dataclasses.asdict(done.outcome),
            "published": None if done.published is None else dataclasses.asdict(done.published),
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    again = "; an earlier machine had trained it" if done.was_finished else ""
    typer.echo(f"results   {done.out}{again}")
    for missed in done.outcome.missed:
        typer.echo(f"missed  {missed}")
    if done.published is not None:
        alias = f", alias {done.published.alias}" if done.published.alias is not None else ""
        typer.echo(f"published {done.published.ref}{alias}\ndigest    {done.published.digest}")
