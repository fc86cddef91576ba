"""Programs with standard input and output: `{"kind": "stdin", "cases": [{"stdin", "stdout"}]}`."""

from __future__ import annotations

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.compare import tokens_equal
from dreamprm_sandbox.suite import Case, Streams


def suite(problem: Problem) -> Streams:
    tests = problem.tests.payload["tests"]
    try:
        cases = tuple(Case(case["stdin"], case["stdout"]) for case in tests["cases"])
    except (KeyError, TypeError):
        raise ProblemError(f"{problem.id}: a case needs 'stdin' and 'stdout'") from None
    return Streams(cases, tokens_equal, tests.get("prelude", ""))
