"""Problems and samples in, verdicts out, as JSON Lines; stopping and starting again loses nothing.

python -m dreamprm_sandbox.grade PROBLEMS.jsonl[.gz] SAMPLES.jsonl[.gz] --out VERDICTS.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import DreamPRMError, ProblemError
from dreamprm_cli.types import Problem, Tests, Verdict
from dreamprm_sandbox import samples
from dreamprm_sandbox.formats import MODES, Mode
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.pool import Sandbox
from dreamprm_sandbox.samples import Sample

Row = dict[str, Any]
SCHEMA_VERSION = 1


def verdict_rows(
    box: Sandbox, problems: Mapping[str, Problem], todo: Sequence[Sample], compare: Mode | None = None
) -> Iterator[Row]:
    """One row a program, in order: `{"event": "verdict", "task_id", "index", "status", "passed", "total", "seconds",
    "trust", "isolation"}`; with `compare`, also `compat` (the status that mode gives) and `differs` (pass or not)."""
    ours = box.grade((problems[sample.task_id], sample.code) for sample in todo)
    theirs: Iterable[Verdict | None] = repeat(None)
    if compare is not None:
        theirs = box.grade(((problems[sample.task_id], sample.code) for sample in todo), compare)
    for sample, verdict, other in zip(todo, ours, theirs, strict=False):
        row = {"event": "verdict", "task_id": sample.task_id, "index": sample.index}
        row |= {name: getattr(verdict, name) for name in verdict.__slots__}
        if other is not None:
            differs = (other.status == "PASS") != (verdict.status == "PASS")
            row |= {"compat": other.status, "differs": differs}
        yield row


def summary(rows: Iterable[Row], seconds: float) -> Row:
    """Totals: `samples`, `problems`, `passed`, `pass@1` (mean over problems), `statuses`, `weak`, `per_second`; where
    two modes were compared, `differs` lists the programs."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    statuses: Counter[str] = Counter()
    weak, differing, compared = 0, [], False
    for row in rows:
        by_task[row["task_id"]].append(row["status"] == "PASS")
        statuses[row["status"]] += 1
        weak += row["trust"] == "weak"
        compared = compared or "compat" in row
        if row.get("differs"):
            differing.append({key: row[key] for key in ("task_id", "index", "status", "compat")})
    number = statuses.total()
    totals: Row = {
        "schema_version": SCHEMA_VERSION,
        "samples": number,
        "problems": len(by_task),
        "passed": statuses["PASS"],
        "pass@1": sum(sum(passed) / len(passed) for passed in by_task.values()) / len(by_task) if by_task else None,
        "statuses": dict(statuses),
        "weak": weak,
        "seconds": round(seconds, 3),
        "per_second": round(number / seconds, 2) if seconds > 0 else None,
    }
    return totals | {"differs": differing} if compared else totals


def kept(path: Path) -> list[Row]:
    """The verdicts of an earlier run; a last line that was cut off by a kill is removed. Raises ProblemError."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        path.write_bytes(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise ProblemError(f"{path}: not a file of verdicts", "name another --out") from None


def problem(row: Row) -> Problem:
    """As much of a benchmark's row as running its tests needs; the app reads the whole of it."""
    tests = row.get("tests")
    if "question_content" in row:
        kind = "livecodebench"
    elif "base_input" in row:
        kind = "evalplus"
    elif "test" in row:
        kind = "humaneval"
    else:
        kind = tests["kind"] if isinstance(tests, dict) else "plain"
    return Problem(
        str(row.get("task_id", row.get("question_id"))),
        "",
        starter_code=row.get("prompt") or row.get("starter_code") or "",
        entry_point=row.get("entry_point"),
        tests=Tests(kind, payload=row),
        time_limit_s=row.get("time_limit_s"),
    )


def rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON Lines file, plain or gzip. Raises ProblemError."""
    return (row for _, row in samples.rows(path))


def grade_files(
    problems: Mapping[str, Problem],
    programs: Path,
    out: Path,
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    mode: Mode = "strict",
) -> Row:
    """Append a verdict for every program that `out` has none for yet; progress on standard error. The totals."""
    found = samples.read(programs, problems)
    graded = kept(out)
    todo = found[len(graded) :]
    started = time.monotonic()
    with Sandbox(workers, limits=limits, mode=mode) as box, out.open("a", encoding="utf-8") as file:
        for number, row in enumerate(verdict_rows(box, problems, todo), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            graded.append(row)
            if number % 50 == 0:
                rate = number / (time.monotonic() - started)
                print(f"{len(graded)}/{len(found)} graded, {rate:.1f} a second", file=sys.stderr)
    return summary(graded, time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dreamprm_sandbox.grade", description="Grade samples in the sandbox"
    )
    parser.add_argument("problems", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--mode", choices=MODES, default="strict")
    parser.add_argument("--time-limit", type=float, default=Limits().time_limit_s)
    options = parser.parse_args()
    try:
        problems = {one.id: one for one in map(problem, rows(options.problems))}
        limits = Limits(time_limit_s=options.time_limit)
        totals = grade_files(
            problems, options.samples, options.out, workers=options.workers, limits=limits, mode=options.mode
        )
        print(json.dumps(totals))
    except DreamPRMError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
