"""Rows of JSON Lines sets -> Problem. `tests.payload` is the row as the file has it; `tests.kind` names its format.

| kind | recognised by | tests |
|---|---|---|
| livecodebench | `question_content` | `public_test_cases`, `private_test_cases` (still packed), `metadata` |
| evalplus | `base_input` or `plus_input` | `base_input`, `plus_input`, `contract`, `atol`, `canonical_solution` |
| humaneval | `prompt` and `test` | `test`, a text that defines `check(candidate)` |
| plain | `tests` is a list | `[{"input": [...], "output": ...} or {"stdin": ..., "stdout": ...}]` |
| asserts, humaneval, stdin, classeval, repository, none | `tests.kind` | `payload["tests"]` |
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem.names import check_entry_point, infer_entry_point, language_name
from dreamprm_cli.types import Example, Problem, Tests

Row = dict[str, Any]

KINDS = ("asserts", "humaneval", "stdin", "classeval", "repository", "none")


def task_id_of_row(row: Row, where: str) -> str:
    """The row's `task_id`, or `question_id` (LiveCodeBench). Raises ProblemError when there is none."""
    key = "task_id" if "task_id" in row else "question_id"
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        raise ProblemError(f"{where}: no field 'task_id'")
    if not isinstance(value, str) or not value.strip():
        raise ProblemError(f"{where}: 'task_id' must be text, not {_type_name(value)}")
    return value


def problem_of_row(row: Row, where: str) -> Problem:
    """The problem of one row; `where` (`FILE:LINE`) opens every error.

    HumanEval-like rows: the docstring is the statement, the prompt (signature and docstring) the starter code.
    Raises ProblemError for a row of no known format, a missing field or a wrong type.
    """
    if "question_content" in row:
        return _livecodebench(row, where)
    if "base_input" in row or "plus_input" in row:
        return _prompted(row, where, "evalplus")
    if "prompt" in row:
        _text(row, "test", where)
        return _prompted(row, where, "humaneval")
    return _stated(row, where)


def _prompted(row: Row, where: str, kind: str) -> Problem:
    prompt = _text(row, "prompt", where)
    entry_point = _text(row, "entry_point", where)
    check_entry_point(entry_point, "python", where)
    statement, has_code = _docstring(prompt, entry_point)
    return Problem(
        id=task_id_of_row(row, where),
        statement=statement,
        starter_code=prompt if has_code else "",
        entry_point=entry_point,
        tests=Tests(kind, payload=row),
        title=entry_point,
        time_limit_s=_time_limit(row, where),
    )


def _docstring(prompt: str, entry_point: str) -> tuple[str, bool]:
    """(docstring of the function or of the whole, whether there is more than that); the prompt where it has none."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError):
        return prompt.strip(), True
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        if function.name == entry_point and (text := ast.get_docstring(function)):
            return text.strip(), True
    text = ast.get_docstring(tree)
    if text and len(tree.body) == 1:
        return text.strip(), False
    return prompt.strip(), True


def _livecodebench(row: Row, where: str) -> Problem:
    statement = _text(row, "question_content", where)
    starter_code = _text(row, "starter_code", where, default="")
    metadata = _json_field(row, "metadata", where, default={})
    if not isinstance(metadata, dict):
        raise ProblemError(f"{where}: 'metadata' must hold a JSON object, not {_type_name(metadata)}")
    cases = _cases(_json_field(row, "public_test_cases", where, default=[]), where, "public_test_cases")
    private = row.get("private_test_cases", "")
    if not isinstance(private, str | list):
        raise ProblemError(f"{where}: 'private_test_cases' must be text, not {_type_name(private)}")
    entry_point = infer_entry_point(starter_code)
    if function := metadata.get("func_name"):
        entry_point = f"Solution.{function}"
        check_entry_point(entry_point, "python", where)
    return Problem(
        id=task_id_of_row(row, where),
        statement=statement,
        starter_code=starter_code,
        entry_point=entry_point,
        tests=Tests("livecodebench", cases, row),
        title=_text(row, "question_title", where, default=""),
        time_limit_s=_time_limit(row, where),
    )


def _stated(row: Row, where: str) -> Problem:
    """Our own rows: `statement`, `starter_code`, `entry_point`, `context`, `tests`, `examples`."""
    statement = _text(row, "statement", where)
    language = language_name(_text(row, "language", where, default="python"), where)
    entry_point = _text(row, "entry_point", where, default="") or None
    if entry_point is not None:
        check_entry_point(entry_point, language, where)
    tests = row.get("tests", {"kind": "none"})
    if isinstance(tests, list):
        kind = "plain"
    elif isinstance(tests, dict):
        kind = _text(tests, "kind", f"{where}: 'tests'")
    else:
        raise ProblemError(f"{where}: 'tests' must be an object or a list, not {_type_name(tests)}")
    if kind not in (*KINDS, "plain"):
        raise ProblemError(f"{where}: unknown kind of tests {kind!r}", f"known: {', '.join(KINDS)}")
    examples = _cases(row.get("examples") or [], where, "examples")
    return Problem(
        id=task_id_of_row(row, where),
        statement=statement,
        starter_code=_text(row, "starter_code", where, default=""),
        entry_point=entry_point,
        tests=Tests("examples" if kind == "none" and examples else kind, examples, row),
        title=_text(row, "title", where, default=""),
        language=language,
        time_limit_s=_time_limit(row, where),
        context=_text(row, "context", where, default=""),
    )


def _cases(values: object, where: str, key: str) -> tuple[Example, ...]:
    if not isinstance(values, list):
        raise ProblemError(f"{where}: '{key}' must be a list, not {_type_name(values)}")
    cases = []
    for number, case in enumerate(values, 1):
        if not isinstance(case, dict):
            raise ProblemError(f"{where}: {key} {number} must be an object, not {_type_name(case)}")
        place = f"{where}: {key} {number}"
        cases.append(Example(_text(case, "input", place, empty=True), _text(case, "output", place, empty=True)))
    return tuple(cases)


def _text(row: Mapping[str, Any], key: str, where: str, *, default: str | None = None, empty: bool = False) -> str:
    """A string field; null and missing give `default`. Without a default it must be there, and hold something."""
    value = row.get(key)
    if value is None:
        if default is None:
            raise ProblemError(f"{where}: no field {key!r}")
        return default
    if not isinstance(value, str):
        raise ProblemError(f"{where}: {key!r} must be text, not {_type_name(value)}")
    if default is None and not empty and not value.strip():
        raise ProblemError(f"{where}: {key!r} is empty")
    return value


def _json_field(row: Row, key: str, where: str, default: Any) -> Any:
    """LiveCodeBench keeps JSON in strings; a value that is no string is taken as it is."""
    value = row.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{where}: {key!r} does not hold valid JSON: {error}") from None


def _time_limit(row: Row, where: str) -> float | None:
    value = row.get("time_limit_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ProblemError(f"{where}: 'time_limit_s' must be a number of seconds above 0, not {value!r}")
    return float(value)


def _type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__
