"""LiveCodeBench: standard input, or a method of `Solution` called with one JSON value a line.

Source of the semantics: LiveCodeBench `lcb_runner/evaluation/testing_util.py` and `benchmarks/code_generation.py`.
Strict runs a real program with real streams. `compat` runs it as the public grader does: inside a function, with a
stand-in for standard input that cannot be iterated and whose buffer reads its first line for ever.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.compare import equal, lines_equal
from dreamprm_sandbox.suite import Call, Calls, Case, Streams

TIME_LIMIT_S = 6.0
_UNPACKED_LIMIT = 1 << 30
_NAMED = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)
# The names that programs of this benchmark find imported.
PRELUDE = "\n".join(
    [
        *(f"from {name} import *" for name in [*_NAMED.split(), "builtins", "typing"]),
        f"import {_NAMED.replace(' ', ', ')}",
        "sys.setrecursionlimit(50000)",
    ]
)
# Runs in the sandbox, around the candidate's source; what is written past sys.stdout is lost, as it is there.
_AS_PUBLIC_GRADER = f"""
import ast, builtins, io, os, sys, types
from unittest.mock import mock_open

class Buffer:
    def __init__(self, text):
        self.data = text.encode()
    def read(self, *_):
        return self.data
    def readline(self, *_):
        return self.data.split(b"\\n")[0] + b"\\n"

class Input:
    def __init__(self, text):
        self.text, self.lines, self.buffer = text, io.StringIO(text), Buffer(text)
    def read(self, *_):
        return self.text
    def readline(self, *size):
        return self.lines.readline(*size)
    def readlines(self, *_):
        return self.text.split("\\n")
    def __getattr__(self, name):
        return getattr(self.lines, name)

def grade(source):
    body = ast.parse(source).body
    if body and isinstance(body[-1], ast.If) and ast.unparse(body[-1].test) == "__name__ == '__main__'":
        body = body[:-1] + body[-1].body
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    whole = ast.parse("def wrapped(): pass")
    whole.body[0].body = [node for node in body if node not in imports] or [ast.Pass()]
    whole.body[:0] = imports
    space = types.ModuleType("tmp_sol").__dict__
    exec({PRELUDE!r}, space)
    exec(compile(ast.fix_missing_locations(whole), "solution.py", "exec"), space)
    text, out = sys.stdin.read(), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdin, sys.stdout, builtins.open = Input(text), io.StringIO(), mock_open(read_data=text)
    printed = sys.stdout
    try:
        space["wrapped"]()
    except SystemExit:
        pass
    data = printed.getvalue().encode()
    while data:
        data = data[os.write(out, data):]
"""


def suite(problem: Problem, compat: bool = False) -> Calls | Streams:
    row = problem.tests.payload
    tests = [*_cases(problem, row.get("public_test_cases")), *private_cases(problem, row.get("private_test_cases"))]
    metadata = _json(problem, row.get("metadata") or "{}")
    function = metadata.get("func_name") if isinstance(metadata, dict) else None
    if not function:
        cases = tuple(Case(test["input"], test["output"]) for test in tests)
        found = Streams(cases, lines_equal)
        return as_public_grader(found) if compat else found
    try:
        calls = tuple(
            Call(tuple(json.loads(line) for line in test["input"].split("\n")), {}, json.loads(test["output"]))
            for test in tests
        )
    except ValueError as error:
        raise ProblemError(f"{problem.id}: a test of a function holds no JSON: {error}") from None
    return Calls(problem.entry_point or f"Solution.{function}", calls, _listed_equal, PRELUDE)


def as_public_grader(found: Streams) -> Streams:
    """Any program with standard streams, run and compared as LiveCodeBench does."""
    return Streams(found.cases, lines_equal, harness=_AS_PUBLIC_GRADER)


def _listed_equal(got: Any, call: Call) -> bool:
    """A tuple on the outside counts as a list; then `==`."""
    return equal(list(got) if isinstance(got, tuple) else got, call.expected)


def private_cases(problem: Problem, value: Any) -> list[dict[str, str]]:
    """JSON, or base64(zlib(pickle(JSON))); the pickle can hold plain values only. Raises ProblemError."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("", "["):
        return _cases(problem, value)
    try:
        unpacker = zlib.decompressobj()
        packed = unpacker.decompress(base64.b64decode(value, validate=True), _UNPACKED_LIMIT)
        if not unpacker.eof:
            raise ValueError("cut off or too large")
        return _cases(problem, _PlainUnpickler(io.BytesIO(packed)).load())
    except ProblemError:
        raise
    except Exception as error:  # whatever it is that bytes of strangers do to the unpickler
        raise ProblemError(f"{problem.id}: 'private_test_cases' cannot be decoded: {error}") from None


class _PlainUnpickler(pickle._Unpickler):
    """A pickle that names a class or function runs code when loaded: this one refuses all names. In Python, for the one
    in C allots what memory a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def _cases(problem: Problem, value: Any) -> list[dict[str, str]]:
    found = _json(problem, value) if isinstance(value, str | bytes) and value else value or []
    if not isinstance(found, list) or not all(
        isinstance(case, dict) and isinstance(case.get("input"), str) and isinstance(case.get("output"), str)
        for case in found
    ):
        raise ProblemError(f"{problem.id}: test cases must be a list of objects with 'input' and 'output'")
    return found


def _json(problem: Problem, value: Any) -> Any:
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{problem.id}: not JSON: {error}") from None
