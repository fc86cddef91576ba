"""The command line: thin Typer commands. Everything heavy is imported inside the command that needs it.

`run` is the one place where errors become a message, a hint and an exit code.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from dreamprm_cli.bench_app import bench
from dreamprm_cli.errors import (
    EXIT_INTERRUPTED,
    EXIT_NONE_PASSED,
    ConfigError,
    DreamPRMError,
    SandboxUnavailable,
)
from dreamprm_cli.models_app import models_app
from dreamprm_cli.options import AggOpt, EngineOpt, JsonlOpt, JsonOpt, PolicyOpt, PrmOpt, QuietOpt, RunArg
from dreamprm_cli.output import print_error, print_json, print_text, settle_output, stderr, stdout
from dreamprm_cli.prm_app import prm_app
from dreamprm_cli.sandbox_app import grade, sandbox_app
from dreamprm_cli.score_app import score
from dreamprm_cli.serve_app import serve
from dreamprm_cli.train_app import train_app

if TYPE_CHECKING:
    from rich.console import Console

    from dreamprm_cli.config import Settings
    from dreamprm_cli.policy import Policy
    from dreamprm_cli.prm import Scorer
    from dreamprm_cli.runner import Run
    from dreamprm_cli.solve import Verify
    from dreamprm_cli.types import Problem
    from dreamprm_trainer.mine.trial import Trial


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Ctrl-C is exit code 130 everywhere, whatever this Typer makes of it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="dreamprm",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")
app.add_typer(prm_app, name="prm")
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(train_app, name="train")
app.command()(score)
app.command()(grade)
app.command()(bench)
app.command()(serve)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from dreamprm_cli import __version__

        typer.echo(f"dreamprm {__version__}")
        raise typer.Exit


@app.callback()
def dreamprm(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Tell the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Write programs function by function, score every function with a process reward model, keep the best."""


def run() -> None:
    """Run the app; what a user can act on is printed as one line and its hint, and sets the exit code."""
    try:
        app()
    except DreamPRMError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        settle_output()
        where = f"{error.filename}: " if error.filename else ""
        print_error(DreamPRMError(f"{where}{error.strerror or error}"))
        sys.exit(1)


@app.command()
def solve(
    problem: Annotated[
        str | None,
        typer.Argument(metavar="[PROBLEM]", help="A markdown file, FILE.jsonl#TASK_ID, or - for standard input."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", "--samples", min=1, help="Programs to sample.")] = None,
    policy: PolicyOpt = None,
    prm: PrmOpt = None,
    prm_engine: EngineOpt = None,
    aggregation: AggOpt = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Nucleus sampling mass.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest program, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same programs.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server.")] = None,
    reasoning_effort: Annotated[
        str | None, typer.Option(help="For openai: models that think first: low, medium, high.")
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Run the problem's examples in the Docker sandbox; passing comes first.")
    ] = False,
    tests: Annotated[
        Path | None, typer.Option("--tests", help="Run these instead: a pytest folder or file, or a file of tests.")
    ] = None,
    module: Annotated[str | None, typer.Option(help="What the tests import the program as (`solution`).")] = None,
    trust: Annotated[str, typer.Option(help="weak: tests may share a process with the program.")] = "strong",
    sandbox: Annotated[bool, typer.Option(help="Without it no tests are run: never on this machine itself.")] = True,
    target: Annotated[
        str | None,
        typer.Option("--target", help="Write this function of --repo: PATH.py::function or PATH.py::Class.method."),
    ] = None,
    repo: Annotated[Path | None, typer.Option("--repo", help="The git repository of --target (this folder).")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the diff to the working tree; never a commit.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the chosen program.")] = None,
    json_: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Sample programs for PROBLEM, or for a function of a repository, score every function live, and keep the best."""
    from dreamprm_cli import store
    from dreamprm_cli.config import load_settings
    from dreamprm_cli.policy import Sampling
    from dreamprm_cli.problem import load_problem
    from dreamprm_cli.runner import Run
    from dreamprm_cli.solve import Request
    from dreamprm_cli.target_app import check_flags, target_problem
    from dreamprm_cli.testing import chosen_tests

    started = time.monotonic()
    settings = load_settings(
        {
            "n": n, "policy": policy, "prm": prm, "prm_engine": prm_engine, "aggregation": aggregation,
            "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed, "base_url": base_url,
            "reasoning_effort": reasoning_effort,
        },
        repo,
    )  # fmt: skip
    _one_format(json_, jsonl)
    _check_places(out, Path(settings.runs_dir))
    check_flags(problem, repo, target, apply, {"--tests": tests, "--examples": examples, "--module": module})
    asked = load_problem(problem, sys.stdin) if problem is not None else None
    console = stderr()

    def say(line: str) -> None:
        if not quiet:
            console.print(line, markup=False, highlight=False)

    if target is not None:
        asked = target_problem(repo or Path(), target, asked, tests=sandbox, say=say)
    assert asked is not None  # check_flags saw to it
    tested = chosen_tests(asked, tests, examples, module=module, trust=trust)
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_tokens, settings.seed)
    request = Request(asked, settings.n, sampling, settings.aggregation)
    if tested is not None and not sandbox:
        console.print("tests are not run (--no-sandbox)", markup=False, highlight=False)
    elif tested is not None:
        _readable(tested)
    testing = {"examples": examples, "tests": str(tests.absolute()) if tests else None, "module": module}
    opened, scorer = _open_models(settings, console, quiet)
    _execute(
        Run(
            folder=store.new_run(Path(settings.runs_dir), asked.id),
            request=request,
            policy=opened.name,
            prm=scorer.name if scorer else None,
            settings={
                **settings.to_json(), **testing, "trust": trust, "sandbox": sandbox, "apply": apply,
                "out": str(out.absolute()) if out else None,
            },
            out=out,
        ),
        opened, scorer, console, json_=json_, jsonl=jsonl, quiet=quiet, started=started,
    )  # fmt: skip


@app.command()
def resume(run: RunArg, json_: JsonOpt = False, jsonl: JsonlOpt = False, quiet: QuietOpt = False) -> None:
    """Go on with an interrupted RUN: finished candidates are kept, the others are written again."""
    from dreamprm_cli import store
    from dreamprm_cli.config import load_settings, settings_from_json
    from dreamprm_cli.events import RunStarted
    from dreamprm_cli.policy import Sampling
    from dreamprm_cli.runner import Run
    from dreamprm_cli.solve import Request

    started = time.monotonic()
    _one_format(json_, jsonl)
    folder = store.find_run(Path(load_settings({}).runs_dir), run)
    past = store.read_journal(folder)
    start = past[0]
    assert isinstance(start, RunStarted)  # read_journal checked it
    settings = settings_from_json(start.settings)
    out = start.settings.get("out")
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_tokens, settings.seed)
    request = Request(store.problem_from_json(start.problem), start.n, sampling, start.aggregation)
    console = stderr()
    policy, scorer = _open_models(settings, console, quiet)
    _execute(
        Run(folder, request, start.policy, start.prm, start.settings, past, Path(out) if out else None),
        policy, scorer, console, json_=json_, jsonl=jsonl, quiet=quiet, started=started,
    )  # fmt: skip


def _one_format(json_: bool, jsonl: bool) -> None:
    if json_ and jsonl:
        raise ConfigError("--json and --jsonl exclude each other", "the last event of --jsonl names the program")


def _check_places(out: Path | None, runs_dir: Path) -> None:
    """Where results are to go can be written: told before anything is loaded and computed."""
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out: no folder {out.parent}", "create it first")
    if out is not None and (out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK)):
        raise ConfigError(f"--out: {out} cannot be written", "give the path of a file")
    there = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ConfigError(f"runs cannot be kept in {runs_dir}: {there} cannot be written", "set DREAMPRM_RUNS_DIR")


def _open_models(settings: Settings, console: Console, quiet: bool) -> tuple[Policy, Scorer | None]:
    from dreamprm_cli.config import guard_key, guard_token
    from dreamprm_cli.policy.open import open_policy, resolve_policy_spec
    from dreamprm_cli.prm.open import open_scorer
    from dreamprm_cli.view.progress import download_bar

    resolve_policy_spec(settings.policy)  # a wrong name fails before anything is loaded
    guard_key(settings)
    guard_token(settings)
    with download_bar(console, quiet=quiet) as progress:
        scorer = open_scorer(settings.prm, engine=settings.prm_engine, device=settings.device, progress=progress)
        policy = open_policy(
            settings.policy, base_url=settings.base_url, reasoning_effort=settings.reasoning_effort,
            price=settings.price, device=settings.device, progress=progress,
        )  # fmt: skip
    return policy, scorer


def _execute(
    run: Run, policy: Policy, scorer: Scorer | None, console: Console, *,
    json_: bool, jsonl: bool, quiet: bool, started: float,
) -> None:  # fmt: skip
    """Drive the run with its view, print the result, and exit with its code."""
    from dreamprm_cli.events import Event, to_json
    from dreamprm_cli.runner import execute
    from dreamprm_cli.target_app import opened_trial
    from dreamprm_cli.view.live import LiveView

    shared_terminal = jsonl and sys.stdout.isatty()  # events and grid would write over each other
    with ExitStack() as stack:
        stack.callback(policy.close)
        stack.enter_context(_resumable(run, console))
        trial = stack.enter_context(opened_trial(run))
        verify = trial.verify if trial else stack.enter_context(_sandboxed_tests(run))
        view = stack.enter_context(LiveView(console, quiet=quiet or shared_terminal))
        view.recall(run.past)

        def emit(event: Event) -> None:
            view.update(event)
            if jsonl:
                print_json(to_json(event))

        overlap = _may_overlap(policy, scorer)
        outcome = execute(run, policy, scorer, emit=emit, verify=verify, overlap=overlap, started=started)
    _finish(run, outcome, trial, json_=json_, jsonl=jsonl)


@contextmanager
def _resumable(run: Run, console: Console) -> Iterator[None]:
    """However a run breaks off, the user is told how to go on; one that never began leaves nothing."""
    from dreamprm_cli import store

    try:
        yield
    except BaseException:
        if (run.folder / store.JOURNAL).exists():
            console.print(f"what is finished is kept: dreamprm resume {run.folder.name}", markup=False, highlight=False)
        else:
            with suppress(OSError):
                run.folder.rmdir()
        raise


@contextmanager
def _sandboxed_tests(run: Run) -> Iterator[Verify | None]:
    """The tests that were asked for, and no others, run in the sandbox; never on the host."""
    from dreamprm_cli.testing import chosen_tests
    from dreamprm_cli.types import Candidate, Verdict

    asked = run.settings
    path = Path(asked["tests"]) if asked.get("tests") else None
    tested = chosen_tests(
        run.request.problem, path, bool(asked.get("examples")), module=asked.get("module"),
        trust=asked.get("trust", "strong"),
    )  # fmt: skip
    if tested is None or not asked.get("sandbox", True):
        yield None
        return
    _readable(tested)
    from dreamprm_sandbox import Sandbox

    with Sandbox(workers=1) as box:
        box.prepare(tested)

        def verify(candidate: Candidate) -> Verdict:
            return box.run(tested, candidate.code)

        yield verify


def _readable(tested: Problem) -> None:
    """Tests that cannot be run are told before a model is loaded."""
    try:
        from dreamprm_sandbox import formats
    except ImportError as error:
        raise SandboxUnavailable(
            f"the sandbox needs {error.name}", "pip install 'dreamprm[sandbox]', or give --no-sandbox: no tests"
        ) from None
    formats.suite(tested)


def _finish(run: Run, outcome: dict[str, Any], trial: Trial | None, *, json_: bool, jsonl: bool) -> None:
    import json

    from dreamprm_cli import store
    from dreamprm_cli.target_app import offer

    try:
        if trial is not None:
            offer(run, trial, outcome, printed=not json_ and not jsonl)
    finally:
        store.write_atomic(run.folder / store.RESULT, json.dumps(outcome, ensure_ascii=False, indent=1) + "\n")
    chosen = outcome["chosen"]
    if json_:
        print_json(outcome)
    elif trial is None and not jsonl and chosen is not None and not sys.stdout.isatty():
        program = next(c["code"] for c in outcome["candidates"] if c["index"] == chosen)
        print_text(program if program.endswith("\n") else program + "\n")
    if outcome["interrupted"]:
        raise typer.Exit(EXIT_INTERRUPTED)
    if chosen is None:
        raise DreamPRMError("no candidate holds a program", "sample more (-n), or try another policy")
    verdicts = [c["verdict"] for c in outcome["candidates"] if c["verdict"] is not None]
    if verdicts and not any(v["status"] == "PASS" for v in verdicts):
        raise typer.Exit(EXIT_NONE_PASSED)


def _may_overlap(policy: Policy, scorer: Scorer | None) -> bool:
    """Policy and PRM may compute at once unless both would use this machine's CPU."""
    return scorer is not None and (not policy.prefills or scorer.device != "cpu")


@app.command()
def replay(
    run: RunArg,
    speed: Annotated[float, typer.Option(min=0.0, help="Times the original speed; 0 shows the end at once.")] = 1.0,
    json_: JsonOpt = False,
    jsonl: JsonlOpt = False,
    svg: Annotated[Path | None, typer.Option(help="Write the final screen as SVG.")] = None,
) -> None:
    """Show a recorded RUN again, without any model."""
    from dreamprm_cli import store
    from dreamprm_cli.config import load_settings
    from dreamprm_cli.events import to_json
    from dreamprm_cli.result import result

    _one_format(json_, jsonl)
    events = store.read_journal(store.find_run(Path(load_settings({}).runs_dir), run))
    if svg is not None:
        from dreamprm_cli.view.svg import export_svg

        export_svg(events, svg)
    if json_:
        print_json(result(events))
        return
    if jsonl:
        for event in events:
            print_json(to_json(event))
        return
    from dreamprm_cli.view.live import LiveView
    from dreamprm_cli.view.replay import paced

    with LiveView(stderr(), speed=speed or 1.0) as view:
        for event in paced(events, speed):
            view.update(event)


@app.command()
def doctor(json_: JsonOpt = False) -> None:
    """Check this machine: Python, CPU, GPU, memory, models, PRM, Docker engine, terminal."""
    from dreamprm_cli.doctor import checks
    from dreamprm_cli.events import SCHEMA_VERSION

    rows = checks()
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "checks": [row.to_json() for row in rows]})
        return
    from dreamprm_cli.view.tables import checks_table

    console = stdout()
    console.print(checks_table(rows, console.width))
