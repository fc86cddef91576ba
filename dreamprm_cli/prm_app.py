"""Commands of the reward model: `dreamprm prm check` and `export`."""

from __future__ import annotations

from pathlib import Path
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
    prm_engine: Annotated[str, typer.Option(help="torch, or llama: llama.cpp against torch in fp32.")] = "torch",
    against: Annotated[
        list[str] | None, typer.Option(help="Where it is served: http://HOST:PORT, vllm+http://HOST:PORT. Repeatable.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Verify that CHECKPOINT is whole, and gives the same rewards however it is asked.

    The same programs are scored all at once, function by function as `solve` does, by a plain forward of transformers'
    own model, and by the servers to check against. Exit code 1 when they disagree.
    """
    from dreamprm_cli.config import guard_token, load_settings
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.view.progress import download_bar

    if dtype not in DTYPES:
        raise ConfigError(f"--dtype cannot be {dtype!r}", f"one of {', '.join(DTYPES)}")
    settings = load_settings({"prm": checkpoint, "device": device})
    if settings.prm == "none":
        raise ConfigError("there is no PRM to check: prm is none", "name a checkpoint")
    if "://" in settings.prm:
        raise ConfigError(f"{settings.prm} is a server", "name the checkpoint, and the server with --against")
    if prm_engine not in ("torch", "llama"):
        raise ConfigError(f"--prm-engine cannot be {prm_engine!r}", "torch or llama")
    guard_token(settings)
    try:
        from dreamprm_cli.prm.verify import verify, verify_llama
    except ImportError as error:
        raise CheckpointError(f"the PRM needs {error.name}", "pip install 'dreamprm[prm]'") from None
    if prm_engine == "llama":
        if against or settings.device not in ("auto", "cpu") or dtype != "auto":
            raise ConfigError(
                "--prm-engine llama is compared with torch in fp32 on the CPU", "leave out --device, --dtype, --against"
            )
        with download_bar(stderr(), quiet=json_) as progress:
            apart = verify_llama(settings.prm, progress=progress)
        if json_:
            print_json({"schema_version": SCHEMA_VERSION, "prm": settings.prm, **apart.to_json()})
            return
        typer.echo(f"{settings.prm}: {apart.steps} steps on llama.cpp")
        typer.echo(f"  step by step against all at once  {apart.incremental:.1e}")
        typer.echo(f"  against torch in fp32             {apart.greatest:.1e}, mean {apart.mean:.1e}")
        typer.echo(f"  pairs in the same order           {apart.ranks:.0%}")
        return
    with download_bar(stderr(), quiet=json_) as progress:
        found = verify(
            settings.prm, device=settings.device, dtype=cast(Literal["auto", "bf16", "fp32"], dtype),
            servers=against or (), progress=progress,
        )  # fmt: skip
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "prm": settings.prm, **found.to_json()})
        return
    typer.echo(f"{settings.prm}: {found.steps} steps in {found.dtype}, one answer however it is asked")
    typer.echo(f"  step by step against all at once  {found.incremental:.1e}")
    typer.echo(f"  against transformers in fp32      {found.transformers:.1e}")
    for address, difference in found.servers.items():
        typer.echo(f"  {address} against transformers in fp32  {difference:.1e}")


@prm_app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not be there yet.")],
    checkpoint: Annotated[
        str | None, typer.Option("--prm", help="A checkpoint's folder or name; the one in the settings.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="vllm: a token-classification model.")] = "vllm",
) -> None:
    """Write a checkpoint, its backbone and its adapter as one model for `vllm serve OUT`.

    It is scored with by `--prm vllm+http://HOST:PORT`. The model computes up to the layer that the head reads; heads
    that read several layers cannot be expressed.
    """
    from dreamprm_cli.config import load_settings
    from dreamprm_cli.view.progress import download_bar

    if format_ != "vllm":
        raise ConfigError(f"--format cannot be {format_!r}", "vllm")
    settings = load_settings({"prm": checkpoint})
    if settings.prm == "none" or "://" in settings.prm:
        raise ConfigError(f"there is nothing to export: prm is {settings.prm}", "name a checkpoint with --prm")
    try:
        from dreamprm_cli.prm.export import export_vllm

        with download_bar(stderr()) as progress:
            written = export_vllm(settings.prm, out, progress=progress)
    except ImportError as error:
        raise CheckpointError(f"the export needs {error.name}", "pip install 'dreamprm[prm]'") from None
    typer.echo(f"{out}: {settings.prm} with the first {written.layers[0]} layers of its backbone", err=True)
    typer.echo(f"serve it: vllm serve {out} --runner pooling", err=True)
