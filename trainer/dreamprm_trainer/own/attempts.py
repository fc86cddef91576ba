"""The policy's own attempts at mined tasks, and rollouts from their beginnings, as far as a budget goes.

Half of the programs of every task first; then the rest, and then rollouts, where the outcomes so far leave most open:
by the standard deviation of the Beta posterior of the task's pass rate. Programs take two thirds of the budget at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dreamprm_cli.policy import Sampling
from dreamprm_cli.training import Progressed, StageStarted, Tell
from dreamprm_cli.types import Problem
from dreamprm_trainer import label
from dreamprm_trainer.budget import Meter
from dreamprm_trainer.continuation import Continuer
from dreamprm_trainer.journal import append, open_journal, write_rows
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.problems import Row
from dreamprm_trainer.rollouts import Plan
from dreamprm_trainer.sample import draw

_FOR_PROGRAMS = 2 / 3


def attempt(
    problems: Sequence[Problem],
    continuer: Continuer,
    judge: Judge,
    n: int,
    plan: Plan,
    sampling: Sampling,
    folder: Path,
    meter: Meter,
    tell: Tell,
) -> list[Row]:
    """Labelled programs, kept in `folder/labels.jsonl`."""
    known = {problem.id: problem for problem in problems}
    half = (n + 1) // 2
    programs = _sample(problems, continuer, half, n, sampling, folder, meter, tell)
    graded = label.grade_programs(programs, judge, tell)
    if n > half:
        open_ = label.uncertainty(graded)
        order = sorted(problems, key=lambda problem: -open_.get(problem.id, 1.0))
        programs = _sample(order, continuer, n, n, sampling, folder, meter, tell)
        graded = label.grade_programs(programs, judge, tell)
    counted = label.roll_out_programs(graded, known, continuer, judge, plan, sampling, folder, tell, meter)
    labelled = [label.step_data(row, known[row["task_id"]]) for row in counted]
    write_rows(labelled, folder / "labels.jsonl")
    return labelled


def _sample(
    problems: Sequence[Problem],
    continuer: Continuer,
    n: int,
    most: int,
    sampling: Sampling,
    folder: Path,
    meter: Meter,
    tell: Tell,
) -> list[Row]:
    """Up to n programs of each problem, in the order of the problems, while there is budget; with those before."""
    wanted = {problem.id for problem in problems}
    journal, rows = open_journal(folder / "programs.jsonl")
    with journal:
        kept = [row for row in rows if row["model"] == continuer.model and row["task_id"] in wanted]
        kept = [row for row in kept if row["sample"] < most]
        done = {(row["task_id"], row["sample"]) for row in kept}
        there = sum(index < n for _, index in done)
        tell(StageStarted(stage="sample", unit="programs", total=len(problems) * n, done=there))
        tokens = 0
        for row in draw(_affordable(problems, meter), continuer, n, sampling, done):
            append(journal, row)
            meter.add(row["tokens"], 1)
            kept.append(row)
            tokens += row["tokens"]
            there += 1
            tell(Progressed(done=there, tokens=tokens))
    return kept


def _affordable(problems: Iterable[Problem], meter: Meter) -> Iterator[Problem]:
    for problem in problems:
        if not meter.allows(_FOR_PROGRAMS):
            return
        yield problem


def tested(rows: Sequence[Row]) -> Mapping[str, Row]:
    """Tasks with tests, by id."""
    return {row["task_id"]: row for row in rows if row["tests"]["n"]}
