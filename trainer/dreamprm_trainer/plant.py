"""Programs whose steps are known to be right or wrong: correct ones, and mutants whose first wrong function is known.

python -m dreamprm_trainer.plant --data DATA --out planted.jsonl.gz

A correct program passes its tests here and now, a mutant fails them. So the prefixes of a correct program are right,
and those of a mutant are right up to the mutated function and wrong from there on. Never from HumanEval.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dreamprm_cli.errors import DreamPRMError
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Tests
from dreamprm_trainer.data import Item, find
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.mutate import Mutant, mutants
from dreamprm_trainer.problems import Row, problem_of, read_jsonl, with_splits

MBPP = "evalplus/MbppPlus-NoExtreme.jsonl.gz"
# Problem set -> pools; without pools the reference programs are taken.
SOURCES = {
    "problems/codeeval_pro.jsonl.gz": (),
    MBPP: ("mbpp-train-0.5b.jsonl.gz", "mbpp-dev-0.5b.jsonl.gz"),
    "problems/classeval.jsonl.gz": (),
}
BACKBONE, LAYERS = "qwen2.5-coder-0.5b", (14, 20)  # of the two, 20 tells steps apart better
Grade = Callable[[Sequence[tuple[Problem, str]]], list[bool | None]]
_UNITTEST = """
import io as _io, sys as _sys, unittest as _unittest
_loaded = _unittest.defaultTestLoader.loadTestsFromModule(_sys.modules[__name__])
assert _loaded.countTestCases() and _unittest.TextTestRunner(stream=_io.StringIO()).run(_loaded).wasSuccessful()
"""


def correct_programs(folders: Sequence[Path], steps: int = 2, per_problem: int = 2) -> Iterator[tuple[str, Row, str]]:
    """(problem set, problem's row, program) of passing programs with at least `steps` scored functions or methods."""
    for name, pools in SOURCES.items():
        rows = {row["task_id"]: row for row in read_jsonl(find(name, folders))}
        programs: dict[str, dict[str, None]] = defaultdict(dict)
        for row in rows.values():
            if not pools and row.get("canonical"):
                programs[row["task_id"]][row["canonical"]] = None
        for pool in pools:
            for one in read_jsonl(find(pool, folders)):
                if one.get("passed") and one["task_id"] in rows:
                    programs[one["task_id"]][one["solution"]] = None
        for task_id, codes in programs.items():
            chains = [code for code in codes if _functions(code) >= steps]
            for code in chains[:per_problem]:
                yield name, rows[task_id], code


def _functions(code: str) -> int:
    return sum(step.kind in ("function", "method") for step in split(code))


def runnable(row: Row) -> Problem:
    """The problem with tests that the sandbox runs: a ClassEval suite becomes a script that fails with its tests."""
    problem = problem_of(row)
    if problem.tests.kind != "classeval":
        return problem
    tests = {**row["tests"], "kind": "asserts", "code": row["tests"]["code"] + _UNITTEST}
    return Problem(problem.id, problem.statement, entry_point=None, tests=Tests("asserts", payload={"tests": tests}))


def plant(folders: Sequence[Path], grade: Grade, seed: int = 0, tries: int = 8, keep: int = 2) -> list[Row]:
    """Rows `{problems, task_id, split, model, sample, solution, passed, first_wrong, operator}`.

    first_wrong: index of the mutated step, null for a correct program. A correct program comes with up to `keep`
    mutants, of different steps where it can be. Deterministic by seed.
    """
    found = [
        (name, row, code, mutants(code, seed + number, tries))
        for number, (name, row, code) in enumerate(correct_programs(folders))
    ]
    todo = [(runnable(row), text) for _, row, code, some in found for text in (code, *(m.code for m in some))]
    verdicts = iter(grade(todo))
    splits = {
        (name, row["task_id"]): own for name in SOURCES for row, own in with_splits(read_jsonl(find(name, folders)))
    }
    draw, rows = random.Random(seed), []
    for name, row, code, some in found:
        right = next(verdicts)
        killed = [mutant for mutant in some if next(verdicts) is False]  # None: nobody knows
        if not right:
            continue
        draw.shuffle(killed)
        chosen = _spread(killed, keep)
        shared = {
            "problems": name,
            "task_id": row["task_id"],
            "split": splits[name, row["task_id"]],
            "model": "planted",
        }
        rows.append({**shared, "solution": code, "passed": True, "first_wrong": None, "operator": None})
        for mutant in chosen:
            about = {"passed": False, "first_wrong": mutant.step, "operator": mutant.operator}
            rows.append({**shared, "solution": mutant.code, **about})
    return [{**row, "sample": number} for number, row in enumerate(rows)]


def _spread(killed: Sequence[Mutant], keep: int) -> list[Mutant]:
    """Mutants of different steps first; those that return None, which any reader sees, only where there is no other."""
    left, chosen = list(killed), list[Mutant]()
    while left and len(chosen) < keep:
        steps = [mutant.step for mutant in chosen]
        best = min(left, key=lambda mutant: (mutant.operator == "return", steps.count(mutant.step)))
        left.remove(best)
        chosen.append(best)
    return chosen


def items(rows: Sequence[Row], folders: Sequence[Path]) -> list[Item]:
    """The planted programs with the truth of every step."""
    problems = {(name, row["task_id"]): problem_of(row) for name in SOURCES for row in read_jsonl(find(name, folders))}
    made = []
    for row in rows:
        steps = tuple(split(row["solution"]))
        wrong = len(steps) if row["first_wrong"] is None else row["first_wrong"]
        made.append(
            Item(
                source=row["problems"],
                split=row["split"],
                problem=problems[row["problems"], row["task_id"]],
                model=row["model"],
                sample=row["sample"],
                code=row["solution"],
                steps=steps,
                passed=row["passed"],
                truth=tuple(number < wrong for number in range(len(steps))),
            )
        )
    return made


def sandboxed(scratch: Path) -> Grade:
    """Whether each program passes, in the sandbox; what is asked and answered is kept in `scratch`, so a killed run
    goes on."""

    def grade(todo: Sequence[tuple[Problem, str]]) -> list[bool | None]:
        from dreamprm_sandbox.grade import grade_files
        from dreamprm_sandbox.limits import Limits

        verdicts = scratch.with_suffix(".verdicts")
        write_rows([{"task_id": problem.id, "solution": code} for problem, code in todo], scratch)
        grade_files({p.id: p for p, _ in todo}, scratch, verdicts, limits=Limits(time_limit_s=3.0))
        return [None if row["status"] is None else row["status"] == "PASS" for row in read_jsonl(verdicts)]

    return grade


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.plant", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pools", type=Path, default=Path("trainer/data"), help="folder of our own graded pools")
    parser.add_argument("--out", type=Path, required=True, help="the programs; if there, only their states are made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="encode the programs and write their states, for `planted`")
    parser.add_argument("--cache", type=Path, default=Path(".cache/planted"), help="states of single programs")
    parser.add_argument("--minutes", type=float, help="stop encoding after so long; the next run goes on")
    args = parser.parse_args(argv)
    folders = [args.data, args.pools]
    try:
        if not args.out.exists():
            scratch = args.out.parent / f".{args.out.name.partition('.')[0]}.todo"
            write_rows(plant(folders, sandboxed(scratch), args.seed), args.out)
        rows = read_jsonl(args.out)
        if args.states:
            encode(items(rows, folders), args.cache, args.states, args.minutes)
    except DreamPRMError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    wrong = sum(not row["passed"] for row in rows)
    print(f"{len(rows) - wrong} correct programs, {wrong} mutants that fail", file=sys.stderr)
    return 0


def encode(programs: Sequence[Item], folder: Path, out: Path, minutes: float | None) -> None:
    """Encode the programs, and write the states of the last of LAYERS of all that are encoded by then."""
    from dreamprm_trainer import planted
    from dreamprm_trainer.features import extract, open_cache
    from dreamprm_trainer.tables import build

    cache = open_cache(folder, BACKBONE, LAYERS)
    done = extract(programs, cache, minutes)
    planted.write(out, planted.of_table(build(programs, cache), LAYERS[-1], LAYERS))
    if not done:
        print("time is up; the next run goes on", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
