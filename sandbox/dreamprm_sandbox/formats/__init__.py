"""From the tests of a benchmark's row to a `Suite`. One file for each format; none of them runs anything."""

from __future__ import annotations

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.formats import asserts, evalplus, plain, stdin
from dreamprm_sandbox.suite import Calls, Script, Streams, Suite

_READERS = {
    "asserts": asserts.suite,
    "humaneval": asserts.suite,
    "evalplus": evalplus.suite,
    "stdin": stdin.suite,
    "plain": plain.suite,
    "examples": plain.examples,
}


def suite(problem: Problem) -> Suite:
    """The problem's tests. Raises ProblemError where they cannot be run, and ConfigError where the list of them
    is empty: all of no tests would pass."""
    reader = _READERS.get(problem.tests.kind)
    if reader is None:
        raise ProblemError(f"{problem.id}: no tests that can be run (kind {problem.tests.kind!r})")
    found = reader(problem)
    if count(found) == 0:
        raise ConfigError(f"{problem.id}: the list of tests is empty", "a program passes only what was tested")
    return found


def count(found: Suite) -> int:
    """How many tests there are."""
    match found:
        case Calls(tests=tests):
            return len(tests)
        case Streams(cases=cases):
            return len(cases)
        case Script(count=number):
            return number
