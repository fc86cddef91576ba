"""Commands of the reward model: `dreamprm prm check`."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from dreamprm_cli.errors import CheckpointError, ConfigError
from dreamprm_cli.output import print_json, stderr

prm_app = typer.Typer(help="The process reward model's checkpoints.", no_args_is_help=True)
DTYPES = ("auto", "bf16", "fp32")


@prm_app.command()
def check(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A folder or a shipped name; the one in the settings.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:NUMBER.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32; auto is what `solve` computes in.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Verify that CHECKPOINT is whole, and gives the same rewards however it is asked.

    The same programs are scored all at once, function by function as `solve` does, and by a plain forward of
    transformers' own model. Exit code 1 when they disagree.
    """
    from dreamprm_cli.config import load_settings
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.view.progress import download_bar

    if dtype not in DTYPES:
        raise ConfigError(f"--dtype cannot be {dtype!r}", f"one of {', '.join(DTYPES)}")
    settings = load_settings({"prm": checkpoint, "device": device})
    if settings.prm == "none":
        raise ConfigError("there is no PRM to check: prm is none", "name a checkpoint")
    try:
        from dreamprm_cli.prm.verify import verify
    except ImportError as error:
        raise CheckpointError(f"the PRM needs {error.name}", "pip install 'dreamprm[prm]'") from None
    with download_bar(stderr(), quiet=json_) as progress:
        found = verify(
            settings.prm, device=settings.device, dtype=cast(Literal["auto", "bf16", "fp32"], dtype), progress=progress
        )
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "prm": settings.prm, **found.to_json()})
        return
    typer.echo(f"{settings.prm}: {found.steps} steps in {found.dtype}, one answer however it is asked")
    typer.echo(f"  step by step against all at once  {found.incremental:.1e}")
    typer.echo(f"  against transformers in fp32      {found.transformers:.1e}")
