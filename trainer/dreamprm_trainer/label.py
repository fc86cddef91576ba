"""Verdicts for a pool: each distinct program of a problem runs once in the sandbox, every row gets its result.

python -m dreamprm_trainer.label --problems F.jsonl.gz --pool pool.jsonl --out graded.jsonl.gz

Beside `--out`, two append-only files keep what is asked and what was answered, so a killed run goes on and a pool that
has grown is graded for its new programs only. A row gains `passed`, `status`, `tests_passed`, `tests_total`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from dreamprm_cli.errors import DreamPRMError
from dreamprm_trainer.problems import Row, read_jsonl
from dreamprm_trainer.sample import append, open_pool

# Runs the programs of a samples file that the verdicts file lacks, in order; see dreamprm_sandbox.grade.
Grade = Callable[[Path, Path], None]
_PUBLISHED = ("task_id", "model", "sample", "solution", "seed", "finish_reason", "tokens", "mean_logprob")


def label(pool: Sequence[Row], todo: Path, grade: Grade, without: Collection[str] = ()) -> list[Row]:
    """The rows with their verdicts, None for the problems of `without`.

    todo: the file of distinct programs; verdicts go beside it, with the suffix `.verdicts`.
    """
    verdicts = todo.with_suffix(".verdicts")
    file, asked = open_pool(todo)
    with file:
        known = {_key(row) for row in asked}
        for row in pool:
            if row["task_id"] not in without and row["solution"].strip() and _key(row) not in known:
                known.add(_key(row))
                asked.append({"task_id": row["task_id"], "solution": row["solution"]})
                append(file, asked[-1])
    grade(todo, verdicts)
    answered = read_jsonl(verdicts) if verdicts.exists() else []
    by_program = {_key(row): verdict for row, verdict in zip(asked, answered, strict=False)}
    return [_labelled(row, by_program.get(_key(row))) for row in pool]


def _key(row: Row) -> tuple[str, str]:
    return row["task_id"], hashlib.sha256(row["solution"].encode(errors="surrogatepass")).hexdigest()


def _labelled(row: Row, verdict: Mapping[str, object] | None) -> Row:
    """An empty program fails without being run; one that has no verdict yet, or broke the machine, has no label."""
    kept = {key: row[key] for key in _PUBLISHED if key in row}
    if not row["solution"].strip():
        return {**kept, "passed": False, "status": "EMPTY", "tests_passed": 0, "tests_total": 0}
    if verdict is None or verdict["status"] == "FILE_ERROR":
        return {**kept, "passed": None, "status": verdict and verdict["status"]}
    return {
        **kept,
        "passed": None if verdict["status"] is None else verdict["status"] == "PASS",
        "status": verdict["status"],
        "tests_passed": verdict["passed"],
        "tests_total": verdict["total"],
    }


def write(rows: Sequence[Row], path: Path) -> None:
    """The graded pool; gzip without a time stamp, so equal pools are equal files."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0) if path.suffix == ".gz" else text)


def _sandbox(problems: Path, workers: int | None, limits: dict[str, float]) -> Grade:
    def run(samples: Path, verdicts: Path) -> None:
        from dreamprm_sandbox.grade import grade_files, problem, rows
        from dreamprm_sandbox.limits import Limits

        known = {row["task_id"]: problem(row) for row in rows(problems)}
        grade_files(known, samples, verdicts, workers=workers, limits=Limits(**limits))  # type: ignore[arg-type]

    return run


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.label", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True, help="programs, as sample.py writes them")
    parser.add_argument("--out", type=Path, required=True, help="graded pool, .jsonl or .jsonl.gz")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds a program")
    parser.add_argument("--memory-mb", type=int, default=2048, help="of a program; some references need much")
    parser.add_argument("--without", nargs="*", default=[], help="problems whose tests cannot be run")
    args = parser.parse_args(argv)
    limits = {"time_limit_s": args.time_limit, "memory_mb": args.memory_mb}
    try:
        todo = args.out.parent / f".{args.out.name.removesuffix('.gz').removesuffix('.jsonl')}.todo"
        rows = label(read_jsonl(args.pool), todo, _sandbox(args.problems, args.workers, limits), args.without)
        write(rows, args.out)
    except DreamPRMError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    graded = [row for row in rows if row["passed"] is not None]
    print(
        f"{len(graded)} of {len(rows)} programs graded, {sum(row['passed'] for row in graded)} passed", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
