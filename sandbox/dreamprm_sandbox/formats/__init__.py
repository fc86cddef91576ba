"""From the tests of a benchmark's row to a `Suite`. One file for each format; none of them runs anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.formats import asserts, classeval, evalplus, livecodebench, plain, pytests, stdin
from dreamprm_sandbox.suite import Calls, Judged, Script, Streams, Suite

# strict: what a careful reader of the problem would accept. The others: the verdicts of the public graders.
Mode = Literal["strict", "evalplus", "lcb", "humaneval"]
MODES: tuple[Mode, ...] = get_args(Mode)

_STRICT: dict[str, Callable[[Problem], Suite]] = {
    "asserts": asserts.suite,
    "humaneval": asserts.suite,
    "evalplus": evalplus.suite,
    "livecodebench": livecodebench.suite,
    "stdin": stdin.suite,
    "plain": plain.suite,
    "examples": plain.examples,
    "pytest": pytests.suite,
    "classeval": classeval.suite,
}
_COMPAT: dict[tuple[Mode, str], Callable[[Problem], Suite]] = {
    ("evalplus", "evalplus"): lambda problem: evalplus.suite(problem, compat=True),
    ("lcb", "livecodebench"): lambda problem: livecodebench.suite(problem, compat=True),
    ("lcb", "stdin"): lambda problem: livecodebench.as_public_grader(stdin.suite(problem)),
    ("humaneval", "humaneval"): lambda problem: asserts.suite(problem, compat=True),
    ("humaneval", "asserts"): lambda problem: asserts.suite(problem, compat=True),
    ("humaneval", "evalplus"): lambda problem: asserts.suite(problem, compat=True),
}
# Seconds a test: what the public graders allow. None: the sandbox's own limit.
_TIME_LIMITS: dict[Mode, float] = {"lcb": livecodebench.TIME_LIMIT_S, "humaneval": 3.0}


def suite(problem: Problem, mode: Mode = "strict") -> Suite:
    """The problem's tests. Raises ProblemError where they cannot be run, and ConfigError where the mode does not know
    the format, or the list of tests is empty: all of no tests would pass."""
    kind = problem.tests.kind
    if mode not in MODES:
        raise ConfigError(f"no mode {mode!r}", f"known: {', '.join(MODES)}")
    reader = _STRICT.get(kind) if mode == "strict" else _COMPAT.get((mode, kind))
    if reader is None:
        if kind in _STRICT:
            raise ConfigError(f"{problem.id}: {mode} does not grade tests of kind {kind!r}", "use strict")
        raise ProblemError(f"{problem.id}: no tests that can be run (kind {kind!r})")
    try:
        found = reader(problem)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        told = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ProblemError(f"{problem.id}: its tests are not as {kind!r} tests are: {told}") from None
    if count(found) == 0:
        raise ConfigError(f"{problem.id}: the list of tests is empty", "a program passes only what was tested")
    return found


def time_limit_s(problem: Problem, mode: Mode) -> float | None:
    """Seconds a test may take where the problem or the public grader says so."""
    return problem.time_limit_s or _TIME_LIMITS.get(mode)


def count(found: Suite) -> int:
    """How many tests there are."""
    match found:
        case Calls(tests=tests):
            return len(tests)
        case Streams(cases=cases):
            return len(cases)
        case Script(count=number):
            return number
        case Judged(ids=ids, files=files):
            return len(ids) or len(files)  # the tests are not known until they have been collected


def ordered(found: Suite, order: list[int]) -> Suite:
    """The same tests in another order; a script stays as it is."""
    if order == sorted(order):
        return found
    match found:
        case Calls(tests=tests):
            return replace(found, tests=tuple(tests[i] for i in order))
        case Streams(cases=cases):
            return replace(found, cases=tuple(cases[i] for i in order))
        case Script() | Judged():
            return found
