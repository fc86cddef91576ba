"""Benchmark rows -> Problem, and the split each problem belongs to.

A split belongs to the problem, whatever file it is in: train may be fitted on, dev chooses settings, test is
looked at once. HumanEval is test in all of its forms; of MBPP+ every third problem, by number, is dev.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem.rows import problem_of_row
from dreamprm_cli.types import Problem

Row = dict[str, Any]


def read_jsonl(path: Path) -> list[Row]:
    """Rows of a JSON Lines file, gzipped or not. Raises ProblemError naming the file and line."""
    opener = gzip.open if path.suffix == ".gz" else open
    rows: list[Row] = []
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        rows.append(json.loads(line))
                    except ValueError as error:
                        raise ProblemError(f"{path}:{number}: not JSON ({error})") from None
    except OSError as error:
        raise ProblemError(f"cannot read {path}: {error.strerror or error}") from None
    return rows


def with_splits(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Each row and its split: its own field, or the rule above where the file (EvalPlus) has none."""
    mbpp = sorted(
        (row["task_id"] for row in rows if row["task_id"].startswith("Mbpp/") and "split" not in row),
        key=lambda task_id: int(task_id.split("/")[1]),
    )
    dev = set(mbpp[2::3])
    for row in rows:
        if row["task_id"].startswith("HumanEval"):
            yield row, "test"
        elif "split" in row:
            yield row, row["split"]
        else:
            yield row, "dev" if row["task_id"] in dev else "train"


def problem_of(row: Row) -> Problem:
    """The problem of a row, read as `dreamprm solve FILE#TASK` reads it. Raises ProblemError."""
    return problem_of_row(row, str(row.get("task_id", "a problem row")))


def with_signature(row: Row) -> Row:
    """The row with the head of its canonical function as starter code, where it has none.

    MBPP does not say how its functions are called, and a program that guesses another name fails for that alone.
    """
    if row.get("starter_code") or not row.get("canonical"):
        return row
    try:
        body = ast.parse(row["canonical"]).body
    except (SyntaxError, ValueError):
        return row
    heads = [
        f"def {node.name}({ast.unparse(node.args)}){f' -> {ast.unparse(node.returns)}' if node.returns else ''}:\n"
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name == row.get("entry_point")
    ]
    return {**row, "starter_code": heads[-1]} if heads else row


def choose(
    rows: Sequence[Row],
    split: str,
    min_tests: int = 0,
    shortest: bool = False,
    limit: int | None = None,
    where: Sequence[str] = (),
) -> list[Problem]:
    """The problems of a split with at least `min_tests` tests, short statements first if asked, at most `limit`.

    where: conditions `field=value` that a row must meet, such as `difficulty=easy` or `tests.kind=stdin`.
    """
    kept = [
        problem_of(row)
        for row, own in with_splits(rows)
        if split in ("all", own) and test_count(row) >= min_tests and all(_meets(row, condition) for condition in where)
    ]
    if shortest:
        kept.sort(key=lambda problem: len(problem.statement))
    return kept[:limit]


def test_count(row: Row) -> float:
    """Infinite where the format does not say."""
    tests = row.get("tests")
    if isinstance(tests, list):
        return len(tests)
    return float(tests.get("n", math.inf)) if isinstance(tests, dict) else math.inf


def _meets(row: Row, condition: str) -> bool:
    field, _, wanted = condition.partition("=")
    value: object = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return str(value) == wanted
