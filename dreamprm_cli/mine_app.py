"""`dreamprm train mine`: a git repository becomes tasks with tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from dreamprm_cli.errors import ConfigError, SandboxUnavailable
from dreamprm_cli.output import print_json, stderr


def mine(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A git repository; nothing in it is changed.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of what is mined (.dreamprm/mined/NAME); a killed run goes on.")
    ] = None,
    no_tests: Annotated[bool, typer.Option("--no-tests", help="Run nothing: tasks of what can be read.")] = False,
    split: Annotated[
        str, typer.Option("--split", help="What is held out: whole files, or what changed last (time).")
    ] = "file",
    history: Annotated[
        bool, typer.Option("--history", help="Also pairs of before and after, and how long functions have stood.")
    ] = False,
    functions: Annotated[
        int | None, typer.Option(min=1, help="Try wrong bodies of so many covered functions only (all).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Containers of the sandbox.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Mine functions with docstrings or tests into tasks.jsonl, wrong bodies that the tests refuse into pool.jsonl.

    Tests run in the sandbox, in an image with the repository's dependencies. What is left out is named in report.json.
    """
    if split not in ("file", "time"):
        raise ConfigError(f"no split {split!r}", "file or time")
    try:
        from dreamprm_trainer.mine.pipeline import Options
        from dreamprm_trainer.mine.pipeline import mine as run
        from dreamprm_trainer.mine.repository import Repository
    except ImportError as error:
        raise SandboxUnavailable(f"mining needs {error.name}", "pip install 'dreamprm[all]'") from None
    console = stderr()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    by = cast(Literal["file", "time"], split)
    with Repository(repo) as repository:
        folder = out or Path(".dreamprm/mined") / (re.sub(r"[^\w.-]", "_", repo.resolve().name) or "repository")
        report = run(repository, folder, Options(not no_tests, by, history, workers, functions), say)
    if json_:
        print_json({**report, "out": str(folder)})
        return
    said = f"{folder}: {report['tasks']} tasks of {report['functions']} functions"
    if report["covered"] is not None:
        said += f"; {report['covered']} covered by {report['tests']} tests"
        said += f", {report['with_killing_test']} with a killing test"
    typer.echo(f"{said}; {len(report['left_out'])} left out (report.json)")
