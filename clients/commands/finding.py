"""`search`, `diff`, `impacted-by`, `card` and `tag`: what is known of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.clients.commands.options import JsonOption, RefArgument, pairs
from switchyard.clients.registry_tables import comparison_tables, impact_table
from switchyard.clients.render import adapters_table, console, print_json, version_table, versions_table
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry


def search(
    context: typer.Context,
    terms: Annotated[
        list[str],
        typer.Argument(
            metavar="TERM...",
            help="All must hold: tag:task=ner metric:exact_match>=0.9 alias:prod state:ready rank<=16 name*",
        ),
    ],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find versions by name, tags, scores, aliases, state, shape and lineage."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.search(" ".join(terms))
    print_json(found) if as_json else console().print(versions_table(found))


def diff(
    context: typer.Context,
    ref: RefArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Version to compare it with.")],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: configuration, lineage, and the weights module by module.

    `norm` is the size of a module's change to the base, `rank` how many directions it really uses,
    `cosine` 1 where both versions change the module alike.
    """
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.compare(ref, other)
    if as_json:
        print_json(found)
        return
    tables = comparison_tables(found)
    if found.version.digest == found.other.digest:
        console().print("the same content", markup=False)
        return
    for table in tables:
        console().print(table)


def impacted_by(
    context: typer.Context,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="Of a data set, a recipe or a version.")],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions that a data set reached, directly or through their parents."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.impacted_by(digest)
    print_json(found) if as_json else console().print(impact_table(found))


def card(
    context: typer.Context,
    ref: RefArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
) -> None:
    """Print the model card of a version, in the Hub's format."""
    with open_registry(choose(context, server, registry)) as client:
        text = client.catalog.card(ref)
    typer.echo(text, nl=not text.endswith("\n"))


def tag(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="NAME", help="Adapter ns/name, or one version ns/name:7.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Tags to set.", show_default=False)
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Tag to remove; repeatable.", show_default=False)
    ] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the adapter is for.", show_default=False)
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="WHO", help="Whom to ask about it.", show_default=False)
    ] = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set and remove tags of an adapter or of one version, and say what an adapter is for."""
    name, colon, number = target.partition(":")
    if colon and (not number.isdecimal() or description is not None or owner is not None):
        raise typer.BadParameter(
            f"found {target!r}, expected ns/name or ns/name:7; description and owner belong to the adapter.",
            ctx=context,
            param_hint="NAME",
        )
    tags = pairs(changes or [], context)
    with open_registry(choose(context, server, registry)) as client:
        if colon:
            version = client.catalog.tag_version(name, int(number), tags, remove or ())
            print_json(version) if as_json else console().print(version_table(version))
            return
        found = client.catalog.tag_adapter(name, tags, remove or ())
        if description is not None or owner is not None:
            found = client.catalog.describe(name, description=description, owner=owner)
    print_json(found) if as_json else console().print(adapters_table([found]))
