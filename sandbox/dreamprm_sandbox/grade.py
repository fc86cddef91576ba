"""Problems and samples in, verdicts out, as JSON Lines; stopping and starting again loses nothing.

python -m dreamprm_sandbox.grade PROBLEMS.jsonl[.gz] SAMPLES.jsonl[.gz] --out VERDICTS.jsonl
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import DreamPRMError, ProblemError
from dreamprm_cli.types import Problem, Tests, Verdict
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.pool import Sandbox

Row = dict[str, Any]


def rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON Lines file, plain or gzip. Raises ProblemError naming the line."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError:
                        raise ProblemError(f"{path}:{number}: not JSON") from None
                    if not isinstance(row, dict):
                        raise ProblemError(f"{path}:{number}: not an object")
                    yield row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path}: {error}") from None


def problem(row: Row) -> Problem:
    """As much of a benchmark's row as running its tests needs; the app reads the whole of it."""
    tests = row.get("tests")
    if "base_input" in row:
        kind = "evalplus"
    elif "test" in row:
        kind = "humaneval"
    else:
        kind = tests["kind"] if isinstance(tests, dict) else "plain"
    return Problem(
        str(row["task_id"]),
        "",
        entry_point=row.get("entry_point"),
        tests=Tests(kind, payload=row),
        time_limit_s=row.get("time_limit_s"),
    )


def verdict_row(sample: Row, index: int, verdict: Verdict) -> Row:
    """One line of `grade --jsonl`: `{"event": "verdict", "task_id", "index", "status", ...}`."""
    return {"event": "verdict", "task_id": sample["task_id"], "index": index, **asdict(verdict)}


def done(path: Path) -> int:
    """How many verdicts a file holds; a last line that was cut off by a kill is removed."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        path.write_bytes(whole)
    return whole.count(b"\n")


def grade_files(
    problems: dict[str, Problem], samples: Path, out: Path, *, workers: int | None = None, limits: Limits | None = None
) -> None:
    """Append a verdict for every sample that `out` has none for yet; progress on standard error."""
    first = done(out)
    todo = [(index, row) for index, row in enumerate(rows(samples)) if index >= first]
    unknown = next((row.get("task_id") for _, row in todo if row.get("task_id") not in problems), None)
    if unknown is not None:
        raise ProblemError(f"{samples}: no problem {unknown!r}", "problems and samples must share their task_id")
    started = time.monotonic()
    with Sandbox(workers, limits=limits) as box, out.open("a", encoding="utf-8") as file:
        verdicts = box.grade((problems[row["task_id"]], row.get("solution") or row["completion"]) for _, row in todo)
        passed = 0
        for number, ((index, row), verdict) in enumerate(zip(todo, verdicts, strict=True), 1):
            file.write(json.dumps(verdict_row(row, index, verdict)) + "\n")
            file.flush()
            passed += verdict.status == "PASS"
            if number % 50 == 0 or number == len(todo):
                rate = number / (time.monotonic() - started)
                print(f"{number}/{len(todo)} graded, {passed} passed, {rate:.1f} a second", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dreamprm_sandbox.grade", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("problems", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--time-limit", type=float, default=Limits().time_limit_s)
    options = parser.parse_args()
    try:
        problems = {row["task_id"]: problem(row) for row in rows(options.problems)}
        limits = Limits(time_limit_s=options.time_limit)
        grade_files(problems, options.samples, options.out, workers=options.workers, limits=limits)
    except DreamPRMError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
