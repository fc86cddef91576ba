"""Which tests a `solve` runs: a pytest suite or a file of plain tests, the problem's own suite, or its examples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.types import Problem, Tests


def chosen_tests(
    problem: Problem, path: Path | None, examples: bool, *, module: str | None = None, trust: str = "strong"
) -> Problem | None:
    """The problem with the tests that are to be run; None when there is nothing to run.

    path: a folder of pytest files or one of them, or a JSON or JSON Lines file of plain tests. Without it, the examples
    where they are asked for, else the suite that the problem itself names. Raises ConfigError and ProblemError.
    """
    if trust not in ("strong", "weak"):
        raise ConfigError(f"--trust is strong or weak, not {trust!r}")
    if path is not None and examples:
        raise ConfigError("--tests and --examples are two answers to one question", "give one of them")
    named = problem.tests.payload.get("path") if problem.tests.kind == "pytest" else None
    if examples:
        if not problem.tests.examples:
            raise ProblemError(
                f"{problem.id} has no examples to run", "leave --examples out, or add input/output fences"
            )
        tests = Tests("examples", problem.tests.examples)
    elif path is None and named is None:
        return None
    else:
        tests = _tests_at(path or Path(str(named)), module, trust)
    if problem.language != "python":
        raise ProblemError(f"{problem.id}: the sandbox runs Python, not {problem.language}")
    return replace(problem, tests=tests, entry_point=tests.payload.get("entry_point") or problem.entry_point)


def _tests_at(path: Path, module: str | None, trust: str) -> Tests:
    if not path.exists():
        raise ProblemError(f"there are no tests at {path}", "give a folder of pytest files, or a file of tests")
    if path.is_dir() or path.suffix == ".py":
        payload = {"path": str(path.absolute()), "module": module, "trust": trust}
        return Tests("pytest", payload={key: value for key, value in payload.items() if value is not None})
    rows = _plain(path)
    if len(rows) == 1 and isinstance(rows[0].get("tests"), list):  # a problem with its tests
        named = {"entry_point": rows[0]["entry_point"]} if rows[0].get("entry_point") else {}
        return Tests("plain", payload={"tests": rows[0]["tests"], **named})
    return Tests("plain", payload={"tests": rows})


def _plain(source: Path) -> list[dict[str, Any]]:
    """The rows of a file of tests, or of its one problem."""
    try:
        text = source.read_text(encoding="utf-8")
        lines = [text] if text.lstrip()[:1] == "[" or source.suffix == ".json" else text.split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        rows = rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows
    except (OSError, ValueError, RecursionError) as error:
        raise ProblemError(f"{source}: not a file of tests: {error}", "JSON Lines of input and output") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ProblemError(f"{source}: holds no tests", "JSON Lines of input and output, or of stdin and stdout")
    return rows
