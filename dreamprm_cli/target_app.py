"""`dreamprm solve --target PATH::NAME`: a function of a repository is written, and offered as a diff.

The trainer, which knows repositories, is imported inside the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm_cli.errors import ConfigError, ProblemError, SandboxUnavailable
from dreamprm_cli.output import print_text, stderr, stdout

if TYPE_CHECKING:
    from dreamprm_cli.runner import Run
    from dreamprm_cli.types import Problem
    from dreamprm_trainer.mine.trial import Trial

DIFF = "change.diff"


def check_flags(
    problem: str | None, repo: Path | None, target: str | None, apply: bool, others: dict[str, Any]
) -> None:
    """Flags that do not go together. others: those that a target has no use for, by name. Raises ConfigError."""
    if target is None:
        for name, given in (("--repo", repo is not None), ("--apply", apply)):
            if given:
                raise ConfigError(f"{name} needs a function to write", "--target PATH.py::function")
        if problem is None:
            raise ConfigError("there is no problem to solve", "name a PROBLEM, or a function with --target")
    elif used := [name for name, value in others.items() if value]:
        raise ConfigError(f"--target runs the tests of its repository: {used[0]} has no place there", "leave it out")


def target_problem(
    repo: Path, target: str, given: Problem | None, *, tests: bool, say: Callable[[str], None]
) -> Problem:
    """The function as a problem, with the repository's tests that exercise it. Raises DreamPRMError."""
    if given is not None and given.language != "python":
        raise ProblemError(f"{given.id}: a target is Python, not {given.language}")
    try:
        from dreamprm_trainer.mine import trial
    except ImportError as error:
        raise SandboxUnavailable(f"--target needs {error.name}", "pip install 'dreamprm[all]'") from None
    if not tests:
        say("tests are not run (--no-sandbox): the rewards alone decide")
    return trial.problem(repo, target, given, tests=tests, say=say)


@contextmanager
def opened_trial(run: Run) -> Iterator[Trial | None]:
    """The run's target with its tests, ready to be tried; None for a run that has none."""
    problem = run.request.problem
    if problem.tests.kind != "target":
        yield None
        return
    from dreamprm_trainer.mine import trial

    with trial.opened(problem) as found:
        yield found


def offer(run: Run, trial: Trial, outcome: dict[str, Any], *, printed: bool) -> None:
    """Add the diff of the best program that fits to the outcome, keep it in the run's folder, print it if `printed`,
    and write it to the working tree where that was asked for and a test or nobody objects."""
    programs = {one["index"]: one["code"] for one in outcome["candidates"]}
    fitting = ((index, trial.fits(programs[index])) for index in outcome["ranking"])
    index, data = next(((index, data) for index, data in fitting if data is not None), (None, None))
    payload = run.request.problem.tests.payload
    told = outcome["target"] = {
        "repository": str(trial.folder), "function": trial.target.function.id,
        "tests": list(payload.get("seconds", {})), "failing_before": payload.get("failing", {}),
        "candidate": index, "diff": None, "diff_file": None, "applied": False,
    }  # fmt: skip
    if index is None or data is None:
        _say(f"no program defines {trial.target.function.qualname}: there is nothing to put in its place")
        return
    diff = trial.target.diff(data)
    place = run.folder / DIFF
    place.write_bytes(diff)
    text = diff.decode(trial.target.module.encoding, "replace")
    told.update(diff=text, diff_file=str(place))
    if printed:
        _print_diff(text)
    if index != outcome["chosen"]:
        _say(f"the diff is of program {index}: those before it do not define {trial.target.function.qualname}")
    if not diff:
        _say(f"{trial.target.path} is as the program would have it")
    elif run.settings.get("apply"):
        told["applied"] = _applied(trial, data, outcome)
    else:
        _say(f"nothing is written; give --apply, or: git -C {trial.folder} apply {place.absolute()}")


def _applied(trial: Trial, data: bytes, outcome: dict[str, Any]) -> bool:
    """Write it, unless the run was interrupted or its tests refused every program."""
    verdicts = [one["verdict"] for one in outcome["candidates"] if one["verdict"] is not None]
    if outcome["interrupted"]:
        _say("interrupted: nothing is written")
        return False
    if trial.verify is not None and not any(one["status"] == "PASS" for one in verdicts):
        _say("no program passes the tests: nothing is written")
        return False
    from dreamprm_trainer.mine import worktree

    worktree.write(trial.folder, trial.target.path, trial.target.data, data)
    _say(f"written to {trial.folder / trial.target.path}; nothing is committed")
    return True


def _print_diff(text: str) -> None:
    if not sys.stdout.isatty():
        print_text(text)
        return
    from rich.syntax import Syntax

    from dreamprm_cli.view.text import clean

    console = stdout()
    console.print(Syntax(clean(text), "diff", theme="ansi_dark", background_color="default"))


def _say(line: str) -> None:
    stderr().print(line, markup=False, highlight=False, soft_wrap=True)
