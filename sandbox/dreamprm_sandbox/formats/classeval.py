"""ClassEval: unittest code that uses a class by its bare name, one test class for each method and one for all.

A method is right when its test class passes. What the canonical program fails as well (clock, network) is left out.
"""

from __future__ import annotations

import ast

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.formats.pytests import parsed, star_names
from dreamprm_sandbox.suite import Judged

_FILE = "test_classeval.py"


def suite(problem: Problem) -> Judged:
    row = problem.tests.payload
    tests = row["tests"]
    if tests.get("needs"):
        raise ProblemError(f"{problem.id}: the tests need {', '.join(tests['needs'])}, which the sandbox does not have")
    prelude, code = tests.get("prelude") or "", tests["code"]
    wanted = tuple(star_names(parsed({_FILE: f"{prelude}\n{code}".encode()}, problem.id).values()))
    line = f"from solution import {', '.join(wanted)}\n" if wanted else ""
    text = f"{_imports(prelude)}\n{line}{code}\n"
    fails = set(tests.get("canonical_fails") or ())
    only = tuple(name for name in tests["test_classes"] if name not in fails)
    return Judged(
        {_FILE: text.encode("utf-8", "surrogatepass")}, ("solution",), wanted, (), prelude, False, False,
        row.get("canonical") or "", only,
    )  # fmt: skip


def _imports(prelude: str) -> str:
    """The prelude's imports, which the tests use too; nothing else of it is run beside them."""
    try:
        body = ast.parse(prelude).body
    except SyntaxError:
        return ""
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
