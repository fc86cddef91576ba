"""Benchmark rows -> Problem, and the split each problem belongs to.

A split belongs to the problem, whatever file it is in: train may be fitted on, dev chooses settings, test is
looked at once. HumanEval is test in all of its forms; of MBPP+ every third problem, by number, is dev.
"""

from __future__ import annotations

import gzip
import json
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
