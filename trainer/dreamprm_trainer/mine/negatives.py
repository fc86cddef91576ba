"""Bodies that the tests refuse: mutants of a function, and what it was before a fix.

First the repository's own body is run with the function's tests alone: those that pass are the task's tests. A mutant
that passes them all may mean the same, and is left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dreamprm_sandbox.workshop import Workshop
from dreamprm_trainer.mine.functions import Function, Module, with_code
from dreamprm_trainer.mine.judging import judge
from dreamprm_trainer.mine.placing import emptied
from dreamprm_trainer.mutate import mutants
from dreamprm_trainer.problems import Row

_MOST_TESTS = 30
_TRIES = 8  # mutants run, at most
_KEEP = 3  # killed ones wanted
_DRAWN = 24


@dataclass(frozen=True, slots=True)
class Candidate:
    """A body that may be wrong. operator: that of the mutant, or `history`."""

    code: str
    operator: str


def candidates(function: Function, lines: Sequence[int], before: Sequence[str]) -> list[Candidate]:
    """What may be wrong: earlier bodies first, then mutants of lines that the tests run, those that only return None
    last; at the end the function that does nothing. Deterministic."""
    found = [Candidate(code, "history") for code in dict.fromkeys(before) if code != function.source]
    run = {line - function.first_line for line in lines}
    drawn = mutants(function.source, zlib.crc32(function.id.encode()), _DRAWN)
    reached = [one for one in drawn if _first_difference(function.source, one.code) in run]
    reached.sort(key=lambda one: one.operator == "return")
    nothing = Candidate(emptied(function, "pass"), "empty")
    return [*found, *(Candidate(one.code, one.operator) for one in reached[: _TRIES - 1]), nothing]


def _first_difference(one: str, other: str) -> int:
    """The first line, from 0, in which two texts differ."""
    pairs = zip(one.splitlines(), other.splitlines(), strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), -1)


def refused(
    workshop: Workshop,
    module: Module,
    function: Function,
    tests: Sequence[str],
    seconds: Mapping[str, float],
    others: Sequence[Candidate],
) -> Row:
    """`{function, tests, tried, killed, why}`. tests: the ids that the function's own body passes; killed: rows
    `{code, operator, status, killed_by, detail}`; why: what keeps the function from being tested, empty if nothing."""
    chosen = list(tests[:_MOST_TESTS])
    budget = sum(seconds.get(test, 0.0) for test in chosen)
    own = judge(workshop, function.path, with_code(module, function, function.source), chosen, budget, fail_fast=False)
    row: Row = {"function": function.id, "tests": list(own.passed), "tried": 0, "killed": [], "why": ""}
    if not own.passed:
        return row | {"why": f"its tests do not pass by themselves: {own.detail or own.status}"}
    killed: list[Row] = []
    for tried, one in enumerate(others, 1):
        found = judge(workshop, function.path, with_code(module, function, one.code), own.passed, budget)
        row["tried"] = tried
        if found.status != "PASS":
            killed.append(
                {"code": one.code, "operator": one.operator, "status": found.status, "killed_by": found.failed}
                | {"detail": found.detail}
            )
        if len(killed) >= _KEEP:
            break
    if not killed:
        row["why"] = f"its tests notice none of {row['tried']} wrong bodies"
    return row | {"killed": killed}
