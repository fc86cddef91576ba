"""Problems and samples in, verdicts out, as JSON Lines; stopping and starting again loses nothing.

python -m dreamprm_sandbox.grade PROBLEMS.jsonl[.gz] SAMPLES.jsonl[.gz] --out VERDICTS.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

from dreamprm_cli.errors import DreamPRMError, ProblemError
from dreamprm_cli.types import Problem, Tests, Verdict
from dreamprm_sandbox import samples
from dreamprm_sandbox.formats import MODES, Mode
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.pool import Sandbox
from dreamprm_sandbox.samples import Sample
from dreamprm_sandbox.submission import Program

Row = dict[str, Any]


class Grader(Protocol):
    """A `Sandbox`, or what does the same on other machines."""

    left_out: dict[str, int]

    def each(
        self, jobs: Iterable[tuple[Problem, Program]], mode: Mode | None = None
    ) -> Iterator[Verdict | ProblemError]: ...


SCHEMA_VERSION = 1


def verdict_rows(
    box: Grader, problems: Mapping[str, Problem], todo: Sequence[Sample], compare: Mode | None = None
) -> Iterator[Row]:
    """One row a program, in order: `{"event": "verdict", "task_id", "index", "status", "passed", "total", "seconds",
    "trust", "isolation", "detail", "parts"}`; with `compare`, also `compat` (the status that mode gives) and `differs`
    (pass or not), both null where that mode cannot run the tests. Where a problem's tests cannot be run at all,
    `{"event": "ungraded", ..., "status": null, "reason"}`."""
    ours = box.each((problems[sample.task_id], sample.code) for sample in todo)
    theirs: Iterable[Verdict | ProblemError | None] = repeat(None)
    if compare is not None:
        theirs = box.each(((problems[sample.task_id], sample.code) for sample in todo), compare)
    for sample, verdict, other in zip(todo, ours, theirs, strict=False):
        row: Row = {"event": "verdict", "task_id": sample.task_id, "index": sample.index}
        if isinstance(verdict, ProblemError):
            yield row | {"event": "ungraded", "status": None, "passed": None, "total": None, "reason": verdict.message}
            continue
        row |= {name: getattr(verdict, name) for name in verdict.__slots__} | {"parts": dict(verdict.parts)}
        if isinstance(other, Verdict):
            differs = (other.status == "PASS") != (verdict.status == "PASS")
            row |= {"compat": other.status, "differs": differs}
        elif compare is not None:
            row |= {"compat": None, "differs": None}
        yield row


def summary(rows: Iterable[Row], seconds: float) -> Row:
    """Totals: `samples`, `problems`, `passed`, `pass@1` (mean over problems), `statuses`, `weak`, `per_second`; where
    two modes were compared, `differs` lists the programs. Programs whose tests could not be run count nowhere but in
    `ungraded`: problem -> reason."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    statuses: Counter[str] = Counter()
    weak, differing, compared = 0, [], False
    ungraded: dict[str, str] = {}
    for row in rows:
        if row["status"] is None:
            ungraded[row["task_id"]] = row["reason"]
            continue
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
        "ungraded": ungraded,
        "seconds": round(seconds, 3),
        "per_second": round(number / seconds, 2) if seconds > 0 else None,
    }
    return totals | {"differs": differing} if compared else totals


def kept(path: Path, found: Sequence[Sample] = (), compared: bool = False) -> list[Row]:
    """The verdicts of an earlier run; a last line that was cut off by a kill is removed. Raises ProblemError, also
    when they are not of the first of the programs `found`, or not `compared` with another mode as the rest will be."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        path.write_bytes(whole)
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        places = [(row["task_id"], row["index"]) for row in rows]
    except (ValueError, TypeError, KeyError):
        raise ProblemError(f"{path}: not a file of verdicts", "name another --out") from None
    if places != [(sample.task_id, sample.index) for sample in found[: len(rows)]]:
        raise ProblemError(f"{path}: holds verdicts of other programs", "name another --out")
    if any(("compat" in row) != compared for row in rows if row.get("status") is not None):
        begun = "without" if compared else "with"
        raise ProblemError(f"{path}: was begun {begun} --compare", "go on with the same command, or name another --out")
    return rows


def problem(row: Row, folder: Path = Path()) -> Problem:
    """As much of a benchmark's row as running its tests needs; the app reads the whole of it. A pytest suite's path is
    meant from `folder`, where the row's file is."""
    tests = row.get("tests")
    if isinstance(tests, dict) and tests.get("kind") == "pytest" and "path" in tests:
        row = {**row, "tests": {**tests, "path": str(folder / tests["path"])}}
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


def grade_all(
    box: Grader,
    problems: Mapping[str, Problem],
    found: Sequence[Sample],
    out: Path | None = None,
    compare: Mode | None = None,
    tell: Callable[[Row], None] = lambda row: None,
) -> Row:
    """Grade every program that `out` has no verdict for yet, and append it there. `tell` gets every row in order, the
    kept ones too; progress goes to standard error. The totals; `left_out` counts inputs, by problem, that a reference
    solution's results are too large for."""
    graded = [] if out is None else kept(out, found, compare is not None)
    for row in graded:
        tell(row)
    todo = found[len(graded) :]
    started = time.monotonic()
    with ExitStack() as stack:
        file = None if out is None else stack.enter_context(out.open("a", encoding="utf-8"))
        for number, row in enumerate(verdict_rows(box, problems, todo, compare), 1):
            if file is not None:
                file.write(json.dumps(row) + "\n")
                file.flush()
            graded.append(row)
            tell(row)
            if number % 50 == 0 or number == len(todo):
                rate = number / (time.monotonic() - started)
                print(f"{len(graded)}/{len(found)} graded, {rate:.1f} a second", file=sys.stderr)
    totals = summary(graded, time.monotonic() - started)
    per_second = round(len(todo) / totals["seconds"], 2) if totals["seconds"] else None
    return totals | {"per_second": per_second, "left_out": dict(box.left_out)}


def grade_files(
    problems: Mapping[str, Problem],
    programs: Path,
    out: Path,
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    mode: Mode = "strict",
) -> Row:
    """`grade_all` of a file, in a sandbox of its own."""
    found = samples.read(programs, problems)
    with Sandbox(workers, limits=limits, mode=mode) as box:
        return grade_all(box, problems, found, out)


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
        problems = {one.id: one for one in (problem(row, options.problems.parent) for row in rows(options.problems))}
        limits = Limits(time_limit_s=options.time_limit)
        totals = grade_files(
            problems, options.samples, options.out, workers=options.workers, limits=limits, mode=options.mode
        )
        print(json.dumps(totals))
        if totals["ungraded"]:
            return ProblemError.exit_code
    except DreamPRMError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
