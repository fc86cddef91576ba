"""One's own tests: `[{"input": [...], "output": ...} | {"stdin": str, "stdout": str}]`, and a statement's examples.

A program may be asked for a file: `{"stdin"?: str, "stdout"?: str, "output_file": "name.txt", "content": str}`.
"""

from __future__ import annotations

import ast
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.compare import equal, tokens_equal
from dreamprm_sandbox.formats import literal
from dreamprm_sandbox.suite import Call, Calls, Case, Streams


def suite(problem: Problem) -> Calls | Streams:
    tests = problem.tests.payload["tests"]
    if all(isinstance(test, dict) and ({"stdin", "stdout"} <= test.keys() or "output_file" in test) for test in tests):
        return Streams(tuple(_case(problem, number, test) for number, test in enumerate(tests, 1)), tokens_equal)
    calls = []
    for number, test in enumerate(tests, 1):
        if not isinstance(test, dict) or "output" not in test or not isinstance(test.get("input"), list | dict):
            raise ProblemError(
                f"{problem.id}: test {number} needs 'input' (a list of arguments) and 'output', or 'stdin' and 'stdout'"
            )
        inputs = test["input"]
        args, kwargs = (tuple(inputs), {}) if isinstance(inputs, list) else ((), inputs)
        calls.append(Call(args, kwargs, test["output"]))
    return Calls(_entry_point(problem), tuple(calls), lambda got, call: _listed_equal(got, call.expected))


def _case(problem: Problem, number: int, test: dict[str, Any]) -> Case:
    name = test.get("output_file", "")
    found = Case(test.get("stdin", ""), test.get("stdout"), name, test.get("content", ""))
    if not all(isinstance(text, str) for text in (found.stdin, found.stdout or "", name, found.content)):
        raise ProblemError(f"{problem.id}: test {number}: everything in it must be text")
    if "output_file" in test and (
        not name or "content" not in test or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name
    ):
        raise ProblemError(f"{problem.id}: test {number} needs 'output_file' (a path below the folder) and 'content'")
    return found


def examples(problem: Problem) -> Calls | Streams:
    """The statement's examples: arguments as `a = [1, 2], b = 3`, one value a line, or a whole standard input."""
    shown = problem.tests.examples
    if problem.entry_point is None:
        return Streams(tuple(Case(example.input, example.output) for example in shown), tokens_equal)
    calls = []
    for number, example in enumerate(shown, 1):
        try:
            args, kwargs = _arguments(example.input)
            expected = literal.json_like(example.output)
        except ValueError:
            raise ProblemError(f"{problem.id}: example {number} is not a call with plain values") from None
        calls.append(Call(args, kwargs, expected))
    return Calls(problem.entry_point, tuple(calls), lambda got, call: _listed_equal(got, call.expected))


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`a = 1, b = [2]` -> keywords; otherwise values, separated by commas or one a line."""
    try:
        call = ast.parse(f"f({literal.pythonic(text)})", mode="eval").body
        if isinstance(call, ast.Call) and call.keywords and not call.args:
            return (), {keyword.arg or "": literal.value(keyword.value) for keyword in call.keywords}
        if isinstance(call, ast.Call) and call.args and not call.keywords:
            return tuple(map(literal.value, call.args)), {}
    except (SyntaxError, ValueError, RecursionError):
        pass
    return tuple(literal.json_like(line) for line in text.strip().splitlines()), {}


def _listed_equal(got: Any, expected: Any) -> bool:
    """JSON has lists only: a tuple returned for one is right, as every public grader has it."""
    return equal(list(got) if isinstance(got, tuple) and isinstance(expected, list) else got, expected)


def _entry_point(problem: Problem) -> str:
    if problem.entry_point is None:
        raise ProblemError(f"{problem.id}: tests with 'input' and 'output' need an 'entry_point'")
    return problem.entry_point
