"""`dreamprm train REPO`: mine, label, fit and judge a PRM for one's own repositories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from typer.core import TyperGroup

from dreamprm_cli.errors import ConfigError, SandboxUnavailable
from dreamprm_cli.output import print_json, print_text, stderr

if TYPE_CHECKING:
    from dreamprm_trainer.problems import Row

NAME = "repo"  # the command that `train` is without one


class RepoOrCommand(TyperGroup):
    """What is no command is a repository: `train .` is `train repo .`. A folder called as a command is `./fit`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [NAME, *args]
        return super().parse_args(ctx, args)


def own(
    repos: Annotated[
        list[Path], typer.Argument(metavar="REPO...", help="Git repositories; their code is not changed.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of all that is made (.dreamprm/own/NAME); a killed run goes on."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Of labelling: 10m, 2h, 200k-tokens, 500-rollouts; spent where labels are least sure.")
    ] = "30m",
    policy: Annotated[str, typer.Option("--policy", help="Writes the programs and goes on from their beginnings.")] = (
        "qwen2.5-coder-1.5b"
    ),
    engine: Annotated[
        str, typer.Option(help="batched: local Qwen2.5 models, many at once; stream: any policy, one by one.")
    ] = "batched",
    base_url: Annotated[str | None, typer.Option(help="A server that has the policy, with --engine stream.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Programs of each function at most.")] = 8,
    rollouts: Annotated[int, typer.Option(min=0, help="Of each prefix at most; 0 for none.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a program.")] = 400,
    functions: Annotated[
        int | None, typer.Option(min=1, help="Mine so many covered functions of each repository only (all).")
    ] = None,
    split: Annotated[str, typer.Option(help="What is held out: whole files, or what changed last (time).")] = "file",
    prm: Annotated[str, typer.Option("--prm", help="The PRM to start from and to beat.")] = "default",
    adopt: Annotated[bool, typer.Option(help="Name the new PRM in the repository's dreamprm.toml if it wins.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Containers of the sandbox.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be mined and what it would cost.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")] = False,
) -> None:
    """Train a PRM on your own repositories: mine, label, fit, eval. It becomes their default only if it is better.

    Held-out functions of the same repositories judge it, beside the shipped PRM; report.md says what came out.
    """
    if split not in ("file", "time"):
        raise ConfigError(f"no split {split!r}", "file or time")
    if engine not in ("batched", "stream"):
        raise ConfigError(f"no engine {engine!r}", "batched or stream")
    try:
        from dreamprm_trainer.budget import Budget
        from dreamprm_trainer.own.estimate import estimate
        from dreamprm_trainer.own.options import Options, name_of
        from dreamprm_trainer.own.pipeline import fetch, run
    except ImportError as error:
        raise SandboxUnavailable(f"training needs {error.name}", "pip install 'dreamprm[all]'") from None
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.view.progress import download_bar
    from dreamprm_cli.view.training import TrainingView

    name = "+".join(dict.fromkeys(name_of(repo) for repo in repos))
    asked = Options(
        repos=tuple(repos), out=out or Path(".dreamprm/own") / name, policy=policy, budget=Budget.parse(budget),
        engine=engine, base_url=base_url, n=n, rollouts=rollouts, max_tokens=max_tokens,
        by=cast(Literal["file", "time"], split), functions=functions, workers=workers, seed=seed, prm=prm,
        adopt=adopt,
    )  # fmt: skip
    if dry_run:
        found = estimate(asked)
        if json_:
            print_json({"schema_version": SCHEMA_VERSION, **found})
        else:
            print_text(_estimated(found))
        return
    with download_bar(stderr(), quiet=quiet) as progress:
        fetch(asked, progress)
    with TrainingView(stderr(), title=f"train · {name}", quiet=quiet) as view:
        found = run(asked, view.update)
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "out": str(asked.out), **found})
        return
    from dreamprm_trainer.own.report import conclusion

    print_text(f"{conclusion(found)}\n{asked.out / 'report.md'}\n")


def _estimated(found: Row) -> str:
    cost = found["estimated"]
    about = "" if found["measured"] else "about "
    drawn = f", {found['drawn']} of them mined" if found["drawn"] < found["covered"] else ""
    parts = ", ".join(f"{minutes:g} {part}" for part, minutes in cost["parts"].items())
    return (
        f"{about}{found['tasks']} tasks of {found['functions']} functions; {about}{found['covered']} covered by "
        f"{found['tests']} tests{drawn}; {len(found['left_out'])} left out\n"
        f"at most {cost['rollouts']:,} programs and rollouts, {cost['tokens']:,} tokens; about {cost['minutes']:g} "
        f"minutes on one core ({parts})\n"
    )
