"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

PolicyOpt = Annotated[
    str | None,
    typer.Option("--policy", help="gguf:PATH, hf:ORG/NAME, openai:NAME, or a name from `dreamprm models list`."),
]
PrmOpt = Annotated[str | None, typer.Option("--prm", help="A checkpoint's folder or name, http://HOST:PORT, or none.")]
EngineOpt = Annotated[str | None, typer.Option("--prm-engine", help="What computes the PRM: auto, torch or llama.")]
AggOpt = Annotated[str | None, typer.Option("--aggregation", help="mean, min, last, product or log-odds.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
JsonlOpt = Annotated[bool, typer.Option("--jsonl", help="Print events as JSON lines as they happen.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, its name, or `last`.")]
