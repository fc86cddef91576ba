"""Commands of the sandbox: `dreamprm grade` and `dreamprm sandbox build|status|clean`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dreamprm_cli.errors import ConfigError, ProblemError, SandboxUnavailable
from dreamprm_cli.events import SCHEMA_VERSION
from dreamprm_cli.output import print_json

if TYPE_CHECKING:
    from dreamprm_sandbox.formats import Mode

sandbox_app = typer.Typer(help="The Docker image and containers that untrusted programs run in.", no_args_is_help=True)
MODES = ("strict", "evalplus", "lcb", "humaneval")


def grade(
    problems: Annotated[Path, typer.Argument(metavar="PROBLEMS", help="A problem set, JSON Lines (.gz too).")],
    samples: Annotated[Path, typer.Argument(metavar="SAMPLES", help="Programs: task_id with solution or completion.")],
    compat: Annotated[str, typer.Option(help="Verdicts as strict, evalplus, lcb or humaneval give them.")] = "strict",
    compare: Annotated[str | None, typer.Option(help="Grade as this one too; tell where they differ.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Containers (one per core).")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep verdicts here; the same command goes on after a kill.")
    ] = None,
    trust: Annotated[str, typer.Option(help="weak: pytest suites may share a process with the program.")] = "strong",
    time_limit_s: Annotated[float | None, typer.Option(min=0.01, help="Processor time a test, in seconds.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: containers on the nodes of a cluster.")] = "local",
    address: Annotated[str, typer.Option(help="With --engine ray: HOST:PORT, auto, or local.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the totals as one JSON object.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print each verdict as a JSON line, in order.")] = False,
) -> None:
    """Run SAMPLES against the tests of PROBLEMS in the sandbox."""
    try:
        from dreamprm_sandbox import Limits, Sandbox
        from dreamprm_sandbox.grade import Grader, grade_all, problem, rows
        from dreamprm_sandbox.samples import read
    except ImportError as error:
        raise SandboxUnavailable(f"the sandbox needs {error.name}", "pip install 'dreamprm[sandbox]'") from None
    mode, other = _mode(compat), None if compare is None else _mode(compare)
    if trust not in ("strong", "weak"):
        raise ConfigError(f"--trust is strong or weak, not {trust!r}")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out: no folder {out.parent}", "create it first")
    tasks = {task.id: task for task in (problem(row, problems.parent) for row in rows(problems))}
    programs = read(samples, tasks)
    limits = None if time_limit_s is None else Limits(time_limit_s=time_limit_s)
    if engine not in ("local", "ray"):
        raise ConfigError(f"no engine {engine!r}", "local or ray")
    with ExitStack() as stack:
        box: Grader
        if engine == "ray":
            from dreamprm_trainer.engine import cluster_sandbox

            box = stack.enter_context(
                cluster_sandbox(address, workers, mode=mode, limits=limits, shared=trust == "weak")
            )
        else:
            box = stack.enter_context(Sandbox(workers, mode=mode, limits=limits, shared=trust == "weak"))
        totals = grade_all(box, tasks, programs, out, other, print_json if jsonl else lambda row: None)
    totals = {**totals, "schema_version": SCHEMA_VERSION}
    if json_:
        print_json(totals)
    elif not jsonl:
        for key, value in totals.items():
            print(f"{key:14} {value}")
    for task, reason in totals["ungraded"].items():
        print(f"not graded: {task}: {reason}", file=sys.stderr)
    for task, number in totals["left_out"].items():
        print(f"{task}: {number} inputs left out, the reference's results are too large", file=sys.stderr)
    if totals["ungraded"]:
        raise typer.Exit(ProblemError.exit_code)


def _mode(name: str) -> Mode:
    if name not in MODES:
        raise ConfigError(f"unknown grader {name!r}", f"one of {', '.join(MODES)}")
    return cast("Mode", name)


@sandbox_app.command()
def build(force: Annotated[bool, typer.Option(help="Build anew even if there is an image.")] = False) -> None:
    """Make the sandbox image, without any image registry."""
    from dreamprm_sandbox import commands

    print_json(commands.build(lambda line: print(line, file=sys.stderr), force=force))


@sandbox_app.command()
def status() -> None:
    """The engine, the image, our containers, and whether the limits really hold."""
    from dreamprm_sandbox import commands

    print_json(commands.status())


@sandbox_app.command()
def clean(images: Annotated[bool, typer.Option(help="Remove the images too.")] = False) -> None:
    """Remove containers whose owner is dead."""
    from dreamprm_sandbox import commands

    print_json(commands.clean(images=images))
