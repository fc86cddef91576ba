"""The policy's own attempts at mined tasks, and rollouts from their beginnings, as far as a budget goes.

Half of the programs of every task first; then the rest, and then rollouts of training programs, where the outcomes so
far leave most open: by the standard deviation of the Beta posterior of the task's pass rate. Tasks are taken in an
order drawn by digest, so that a budget that ends early leaves some of every file. Programs take two thirds of the
budget at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.policy import Sampling
from dreamprm_cli.training import Progressed, StageStarted, Tell
from dreamprm_cli.types import Problem
from dreamprm_trainer import label
from dreamprm_trainer.budget import Meter
from dreamprm_trainer.continuation import Continuer
from dreamprm_trainer.journal import append, open_journal, write_rows
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.problems import Row, problem_of
from dreamprm_trainer.rollouts import Plan
from dreamprm_trainer.sample import draw

FOR_PROGRAMS = 2 / 3  # of the budget
FILES = ("labels.jsonl", "labels.parquet")


@dataclass(frozen=True, slots=True)
class Attempts:
    """How tasks are tried: n programs of each at most; plan: rollouts of a prefix, None for none."""

    n: int
    plan: Plan | None
    sampling: Sampling

    def run(
        self, rows: Sequence[Row], continuer: Continuer, judge: Judge, folder: Path, meter: Meter, tell: Tell
    ) -> list[Row]:
        """Labelled programs of the tasks `rows`, kept in `folder/labels.jsonl`. Goes on where a killed run stopped."""
        known = {row["task_id"]: problem_of(row) for row in rows}
        held_out = {row["task_id"] for row in rows if row["split"] != "train"}
        order = sorted(known.values(), key=lambda problem: hashlib.sha256(problem.id.encode()).digest())
        half = (self.n + 1) // 2
        graded = label.grade_programs(self._sample(order, half, continuer, judge, folder, meter, tell), judge, tell)
        if self.n > half:
            unsure = label.uncertainty(graded)
            order.sort(key=lambda problem: -unsure.get(problem.id, 1.0))
            graded = label.grade_programs(
                self._sample(order, self.n, continuer, judge, folder, meter, tell), judge, tell
            )
        if self.plan is None:
            counted = [label.counted(row, known[row["task_id"]], {}) for row in graded]
        else:
            args = (continuer, judge, self.plan, self.sampling, folder, tell, meter, held_out)
            counted = label.roll_out_programs(graded, known, *args)
        labelled = [label.step_data(row, known[row["task_id"]]) for row in counted]
        for name in FILES:
            write_rows(labelled, folder / name)
        return labelled

    def _sample(
        self,
        order: Sequence[Problem],
        n: int,
        continuer: Continuer,
        judge: Judge,
        folder: Path,
        meter: Meter,
        tell: Tell,
    ) -> list[Row]:
        """Up to n programs of each problem, in that order, while there is budget; with those of before."""
        wanted = {problem.id for problem in order}
        journal, rows = open_journal(folder / "programs.jsonl")
        with journal:
            kept = [row for row in rows if row["model"] == continuer.model and row["task_id"] in wanted]
            kept = [row for row in kept if row["sample"] < self.n]
            done = {(row["task_id"], row["sample"]) for row in kept}
            there = sum(index < n for _, index in done)
            most_s = meter.left_s(FOR_PROGRAMS)
            tell(StageStarted(stage="sample", unit="programs", total=len(order) * n, done=there, most_s=most_s))
            tokens = 0
            for row in draw(_affordable(order, meter), continuer, n, self.sampling, done):
                append(journal, row)
                judge.ask(row["task_id"], row["solution"])  # the sandbox runs it while the policy goes on
                meter.add(row["tokens"], 1)
                kept.append(row)
                tokens += row["tokens"]
                there += 1
                tell(Progressed(done=there, tokens=tokens))
        place = {problem.id: number for number, problem in enumerate(order)}
        return sorted(kept, key=lambda row: (place[row["task_id"]], row["sample"]))


def _affordable(problems: Iterable[Problem], meter: Meter) -> Iterator[Problem]:
    for problem in problems:
        if not meter.allows(FOR_PROGRAMS):
            return
        yield problem


def with_tests(rows: Sequence[Row]) -> list[Row]:
    """The tasks that have tests."""
    return [row for row in rows if row["tests"]["n"]]
