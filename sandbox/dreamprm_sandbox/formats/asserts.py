"""Assertions as tests: bare `assert f(1) == 2`, or HumanEval's `def check(candidate)`.

Where every assertion compares a call on plain arguments with a plain value, inputs and expected results are taken
apart: the candidate sees the inputs only and the host compares (strong). Otherwise the test code has to run in the
candidate's process (weak).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.compare import equal
from dreamprm_sandbox.formats import literal
from dreamprm_sandbox.suite import Call, Calls, Script


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an assertion asks of a result: `==`, `is`, its truth, or a distance below `value[1]` from `value[0]`."""

    how: Literal["equal", "is", "truth", "near"]
    value: Any

    def __call__(self, got: Any) -> bool:
        if self.how == "truth":
            return bool(got) is self.value
        if self.how == "is":
            return type(got) is type(self.value) and bool(got == self.value)
        if self.how == "equal":
            return equal(got, self.value)
        centre, radius, closed = self.value
        try:
            distance = abs(got - centre)
        except (TypeError, OverflowError):
            return False
        return bool(distance <= radius if closed else distance < radius)


def suite(problem: Problem, compat: bool = False) -> Calls | Script:
    """`compat`: human-eval's `==`, for which no NaN is right."""
    payload = problem.tests.payload
    tests = (
        payload["tests"]
        if isinstance(payload.get("tests"), dict)
        else {"code": payload.get("test") or payload["assertion"]}
    )
    code, prelude = tests["code"], tests.get("prelude", "")
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ProblemError(f"{problem.id}: the test code does not parse: {error}") from None
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    calls = taken_apart(tree, check, problem.entry_point)
    if calls is not None:
        entry_point, found = calls
        return Calls(entry_point, tuple(found), _bare if compat else _wanted, prelude)
    number = sum(isinstance(node, ast.Assert) for node in ast.walk(tree))
    if check is not None and problem.entry_point is None:
        raise ProblemError(f"{problem.id}: tests with check(candidate) need an 'entry_point'")
    entry_point_for_check = problem.entry_point if check is not None else None
    return Script(code, max(number, 1), entry_point_for_check, check is not None, prelude)


def _wanted(got: Any, call: Call) -> bool:
    return bool(call.expected(got))


def _bare(got: Any, call: Call) -> bool:
    wanted: Wanted = call.expected
    return bool(got == wanted.value) if wanted.how == "equal" else wanted(got)


def taken_apart(
    tree: ast.Module, check: ast.FunctionDef | None, entry_point: str | None
) -> tuple[str, list[Call]] | None:
    """(entry point, calls with what they want), or None where the tests do more than compare calls with values."""
    body: Sequence[ast.stmt] = tree.body
    called: str | None = None
    if check is not None:
        if (
            len(check.args.args) != 1
            or entry_point is None
            or not all(_idle(node) for node in body if node is not check)
        ):
            return None
        called, body = check.args.args[0].arg, check.body
    elif entry_point is not None and "." not in entry_point:
        called = entry_point
    names: dict[str, Any] = {}
    calls = []
    for node in body:
        try:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = literal.value(node.value, names)
            elif isinstance(node, ast.Assert):
                found = _assertion(node.test, names)
                if found is None:  # `assert True`
                    continue
                function, call = found
                if called is None and entry_point is None:
                    called = function
                if function != called:
                    return None
                calls.append(call)
            elif not _idle(node):
                return None
        except (ValueError, TypeError, RecursionError, OverflowError):
            return None
    target = entry_point or called
    return (target, calls) if target is not None and calls else None


def _idle(node: ast.stmt) -> bool:
    """Docstrings, `pass`, and HumanEval's METADATA."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id == "METADATA" for target in node.targets)
    return isinstance(node, ast.Pass)


def _assertion(test: ast.expr, names: dict[str, Any]) -> tuple[str, Call] | None:
    """(function, call) of an asserted expression; None for a true constant. Raises ValueError for anything else."""
    match test:
        case ast.Constant(value=constant) if constant:
            return None
        case ast.Call():
            return _call(test, names, Wanted("truth", True))
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call):
            return _call(call, names, Wanted("truth", False))
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(op=ast.Sub(), left=one, right=other)]),
            ops=[ast.Lt() | ast.LtE() as how],
            comparators=[radius],
        ):
            function, centre = (one, other) if isinstance(one, ast.Call) else (other, one)
            near = (literal.value(centre, names), literal.value(radius, names), isinstance(how, ast.LtE))
            return _call(function, names, Wanted("near", near))
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as same], comparators=[right]):
            try:
                expected, function = literal.value(right, names), left
            except ValueError:
                expected, function = literal.value(left, names), right
            return _call(function, names, Wanted("is" if isinstance(same, ast.Is) else "equal", expected))
    raise ValueError("not a comparison of a call with a value")


def _call(node: ast.expr, names: dict[str, Any], wanted: Wanted) -> tuple[str, Call]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("not a plain function")
    args: list[Any] = []
    for arg in node.args:
        if isinstance(arg, ast.Starred):
            args.extend(literal.value(arg.value, names))
        else:
            args.append(literal.value(arg, names))
    kwargs: dict[str, Any] = {}
    for keyword in node.keywords:
        given = literal.value(keyword.value, names)
        kwargs.update(given if keyword.arg is None else {keyword.arg: given})
    return node.func.id, Call(tuple(args), kwargs, wanted)
