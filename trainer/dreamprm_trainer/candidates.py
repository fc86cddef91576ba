"""Candidate pools: a problem set and a file of programs of its problems, with their verdicts or to be graded.

A row is `{task_id, solution | completion, passed?, model?, mean_logprob?, finish_reason?, tokens?}`. Rows without
`passed` are run in the sandbox; `passed: null` says that nobody can tell, and the program is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.problem import problem_of_row, read_rows
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem
from dreamprm_sandbox import Sandbox
from dreamprm_sandbox.grade import grade_all
from dreamprm_sandbox.grade import problem as tests_of
from dreamprm_sandbox.outputs import Inputs, inputs
from dreamprm_sandbox.samples import Entry, Sample, entries
from dreamprm_trainer.agreement import groups
from dreamprm_trainer.data import Item, digest
from dreamprm_trainer.overlap import near_duplicates
from dreamprm_trainer.problems import with_signature


@dataclass(frozen=True, slots=True)
class Candidates:
    """Programs in the order of their file.

    items: what is ranked; `passed` means nothing yet for those in `todo`. samples: the same, as the sandbox takes them.
    tests: task id -> the problem as the sandbox reads it. left_out: reason -> count; files: name -> SHA-256.
    """

    items: tuple[Item, ...]
    samples: tuple[Sample, ...]
    todo: frozenset[int]
    tests: Mapping[str, Problem]
    left_out: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def without(self, dropped: Iterable[int], why: str) -> Candidates:
        """Without the programs at these places."""
        gone = set(dropped)
        kept = [index for index in range(len(self.items)) if index not in gone]
        return replace(
            self,
            items=tuple(self.items[index] for index in kept),
            samples=tuple(self.samples[index] for index in kept),
            todo=frozenset(place for place, index in enumerate(kept) if index in self.todo),
            left_out={**self.left_out, why: len(gone)} if gone else self.left_out,
        )


def read(problems: Path, samples: Path, signature: bool = False, unlike: Sequence[Path] = ()) -> Candidates:
    """signature: the programs were asked for with `with_signature`. unlike: problem sets, none of whose problems may be
    repeated. Raises ProblemError, one line naming the file and the place, for whatever cannot be used."""
    rows = {task_id: (where, with_signature(row) if signature else row) for where, row, task_id in read_rows(problems)}
    others = [row for path in unlike for _, row, _ in read_rows(path)]
    tests = {task_id: tests_of(row, problems.parent) for task_id, (_, row) in rows.items()}
    known: dict[str, Problem] = {}
    count: Counter[str] = Counter()
    items: list[Item] = []
    found = entries(samples, tests)
    for entry in found:
        task_id = entry.sample.task_id
        if task_id not in known:
            known[task_id] = problem_of_row(rows[task_id][1], rows[task_id][0])
        items.append(_item(entry, known[task_id], count[task_id], samples.name))
        count[task_id] += 1
    whole = Candidates(
        items=tuple(items),
        samples=tuple(entry.sample for entry in found),
        todo=frozenset(n for n, entry in enumerate(found) if "passed" not in entry.row),
        tests=tests,
        files={path.name: digest(path) for path in (problems, samples, *unlike)},
    )
    untold = (n for n, entry in enumerate(found) if entry.row.get("passed", False) is None)
    told = whole.without(untold, "programs without a verdict")
    if not others:
        return told
    repeats = near_duplicates((rows[task_id][1] for task_id in known), others)
    repeated = (n for n, item in enumerate(told.items) if item.problem.id in repeats)
    return told.without(repeated, f"programs of problems like those of {', '.join(path.name for path in unlike)}")


def joined(pools: Sequence[Candidates]) -> Candidates:
    """Several pools as one, so that every interval is over the problems of all their sets.

    Raises ProblemError where two sets share a task id: their programs would be taken for those of one problem.
    """
    whole = pools[0]
    for pool in pools[1:]:
        shared = sorted(whole.tests.keys() & pool.tests.keys())
        if shared:
            raise ProblemError(f"problem {shared[0]} is in two of the sets", "judge these sets one by one")
        files = dict(whole.files)
        for name, sha in pool.files.items():
            files[name if files.get(name, sha) == sha else f"{name} ({sha[:8]})"] = sha
        whole = Candidates(
            items=whole.items + pool.items,
            samples=whole.samples + pool.samples,
            todo=whole.todo | {len(whole.items) + place for place in pool.todo},
            tests={**whole.tests, **pool.tests},
            left_out=Counter(whole.left_out) + Counter(pool.left_out),
            files=files,
        )
    return whole


def _item(entry: Entry, problem: Problem, number: int, source: str) -> Item:
    code, row = entry.sample.code, entry.row
    if not isinstance(code, str):
        raise ProblemError(f"{entry.where}: a program of several files cannot be ranked", "give programs of one file")
    passed = row.get("passed")
    if passed is not None and not isinstance(passed, bool):
        raise ProblemError(f"{entry.where}: 'passed' must be true, false or null, not {passed!r}")
    reason = row.get("finish_reason") or "stop"
    if not isinstance(reason, str):
        raise ProblemError(f"{entry.where}: 'finish_reason' must be text, not {reason!r}")
    steps = tuple(split(code, problem.language))
    return Item(
        source=source,
        split="test",
        problem=problem,
        model=str(row.get("model") or ""),
        sample=number,
        code=code,
        steps=steps,
        passed=bool(passed),
        truth=(None,) * len(steps),
        finish_reason=reason,
        mean_logprob=_number(entry, "mean_logprob", math.nan),
        tokens=int(_number(entry, "tokens", 0)),
    )


def _number(entry: Entry, key: str, default: float) -> float:
    value: Any = entry.row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProblemError(f"{entry.where}: {key!r} must be a number or null, not {value!r}")
    return float(value)


def graded(candidates: Candidates, cache: Path) -> Candidates:
    """Every program with its verdict: those of `todo` run in the sandbox, once, whatever stops the run.

    cache: file of verdicts. Programs whose tests cannot be run are left out. Raises SandboxUnavailable.
    """
    if not candidates.todo:
        return candidates
    todo = sorted(candidates.todo)
    rows: list[Mapping[str, Any]] = []
    with Sandbox(cache=cache) as box:
        grade_all(box, candidates.tests, [candidates.samples[index] for index in todo], tell=rows.append)
    items = list(candidates.items)
    for index, row in zip(todo, rows, strict=True):
        items[index] = replace(items[index], passed=row["status"] == "PASS")
    untold = [index for index, row in zip(todo, rows, strict=True) if row["status"] is None]
    told = replace(candidates, items=tuple(items), todo=frozenset())
    return told.without(untold, "programs whose tests cannot be run")


def mixed(candidates: Candidates) -> Candidates:
    """Graded candidates of the problems where there is something to choose: any ranking of the others is as good.

    AUC within problems and recovered gaps stay what they are; pass@1, best-of-n and calibration are then those of these
    problems alone.
    """
    outcomes = _outcomes(candidates)
    one_sided = [n for n, item in enumerate(candidates.items) if len(outcomes[item.problem.id]) == 1]
    return candidates.without(one_sided, "programs of problems that all of them pass, or all fail")


def check(candidates: Candidates, name: str) -> None:
    """Raises ProblemError where there is nothing for a ranker to win, as far as that is known yet."""
    if not candidates.items:
        why = ", ".join(candidates.left_out)
        raise ProblemError(
            f"{name}: nothing is left to rank ({why})", "rows without 'passed' are graded in the sandbox"
        )
    if candidates.todo:
        return
    if not any(len(some) == 2 for some in _outcomes(candidates).values()):
        raise ProblemError(
            f"{name}: no problem has both passing and failing programs, so there is nothing to choose between",
            "give more programs of each problem, or problems that are neither too easy nor too hard",
        )


def _outcomes(candidates: Candidates) -> dict[str, set[bool]]:
    """Problem id -> the outcomes of its programs."""
    found: dict[str, set[bool]] = {}
    for item in candidates.items:
        found.setdefault(item.problem.id, set()).add(item.passed)
    return found


def agreement(candidates: Candidates, cache: Path) -> tuple[list[int], int]:
    """The group of each program by what it gives on its problem's inputs, problem by problem, and how many problems
    have none that can be told apart from the rest of their tests. Raises SandboxUnavailable."""
    asked: dict[str, Inputs | None] = {}
    for item in candidates.items:
        if item.problem.id not in asked:
            asked[item.problem.id] = _inputs(candidates.tests[item.problem.id])
    places = [n for n, item in enumerate(candidates.items) if asked[item.problem.id] is not None]
    results: list[str | None] = [None] * len(candidates.items)
    with Sandbox(cache=cache) as box:
        jobs = ((known, candidates.items[n].code) for n in places if (known := asked[candidates.items[n].problem.id]))
        for n, result in zip(places, box.outputs(jobs), strict=True):
            results[n] = result
    named = [
        None if result is None else f"{item.problem.id} {result}"
        for item, result in zip(candidates.items, results, strict=True)
    ]
    return list(groups(named)), sum(known is None for known in asked.values())


def _inputs(problem: Problem) -> Inputs | None:
    try:
        return inputs(problem)
    except (ProblemError, ConfigError):
        return None
