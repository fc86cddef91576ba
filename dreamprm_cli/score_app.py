"""`dreamprm score`: an existing program in the PRM's colours."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.options import AggOpt, EngineOpt, JsonOpt, PrmOpt
from dreamprm_cli.output import print_json, stderr, stdout


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The program to score; - for standard input.")],
    problem: Annotated[str, typer.Option("--problem", "-p", help="What the program is to do, as for `solve`.")],
    prm: PrmOpt = None,
    prm_engine: EngineOpt = None,
    aggregation: AggOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Paint an existing program with the PRM's rewards, function by function."""
    import math

    from dreamprm_cli.aggregate import aggregate
    from dreamprm_cli.config import guard_token, load_settings
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.prm import score_programs
    from dreamprm_cli.prm.open import open_scorer
    from dreamprm_cli.problem import load_problem, read_text
    from dreamprm_cli.solve import cautions
    from dreamprm_cli.steps import adherence, split
    from dreamprm_cli.view.progress import download_bar
    from dreamprm_cli.view.report import render_program

    started = time.monotonic()
    settings = load_settings({"prm": prm, "prm_engine": prm_engine, "aggregation": aggregation})
    if file == problem == "-":
        raise ConfigError("program and problem cannot both be standard input", "give one of them as a file")
    guard_token(settings)
    code = read_text(file, sys.stdin)
    target = load_problem(problem, sys.stdin)
    with download_bar(stderr(), quiet=json_) as progress:
        scorer = open_scorer(settings.prm, engine=settings.prm_engine, device=settings.device, progress=progress)
    if scorer is None:
        raise ConfigError("--prm none leaves nothing to score with", "name a checkpoint, or leave --prm out")
    steps = split(code, target.language)
    session = scorer.start(target)
    [rewards] = score_programs(session, [steps])
    reward = aggregate(rewards, settings.aggregation)
    notices = cautions(target, scorer, session)
    form = adherence(code, target.language).to_json()
    if json_:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "problem": target.id,
                "prm": scorer.name,
                "aggregation": settings.aggregation,
                "reward": None if math.isnan(reward) else reward,
                "truncated": session.truncated,
                "notices": notices,
                "steps": [
                    {
                        "name": s.name, "kind": s.kind, "first_line": s.first_line, "last_line": s.last_line,
                        "reward": None if math.isnan(r) else r,
                    }
                    for s, r in zip(steps, rewards, strict=True)
                ],
                "adherence": form,
                "usage": {"input_tokens": session.encoded_tokens, "output_tokens": 0},
                "total_cost_usd": None,
                "duration_ms": round((time.monotonic() - started) * 1000),
            }
        )  # fmt: skip
        return
    for notice in notices:
        typer.echo(f"! {notice}", err=True)
    console = stdout()
    console.print(
        render_program(
            steps, rewards, reward=reward, language=target.language, width=console.width,
            aggregation=settings.aggregation, adherence=form,
        )
    )  # fmt: skip
