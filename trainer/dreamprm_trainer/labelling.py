"""One run of `dreamprm train label`: who writes, goes on and judges, for the problems of one folder or of a recipe."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.policy import Sampling
from dreamprm_cli.training import Tell
from dreamprm_cli.types import Problem
from dreamprm_sandbox import Limits
from dreamprm_trainer import label
from dreamprm_trainer.budget import Budget, Meter
from dreamprm_trainer.continuation import Continuer
from dreamprm_trainer.data import Source, find, problem_rows
from dreamprm_trainer.engine import Engine
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.problems import Row, problem_of, read_jsonl
from dreamprm_trainer.recipe import Label, Recipe
from dreamprm_trainer.rollouts import Plan

FILES = ("labels.jsonl", "labels.parquet")


@dataclass(frozen=True, slots=True)
class Job:
    """Problems whose programs are labelled in one folder; programs: those, instead of sampling any. held_out: problems
    that nothing is fitted on: their programs have a verdict and no rollouts."""

    problems: Sequence[Problem]
    out: Path
    programs: Sequence[Row] = ()
    held_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Settings:
    """policy writes n programs of each problem, rollout_policy goes on from their prefixes; plan: None for no rollouts.
    limits, workers: of the sandbox. prompts: write the problem's text into the labels."""

    policy: str
    rollout_policy: str
    n: int
    sampling: Sampling
    rollout_sampling: Sampling
    plan: Plan | None
    budget: Budget
    limits: Limits
    workers: int | None = None
    prompts: bool = True


class Labeller:
    """Labels the programs of one job after another; the policy stays open between them."""

    def __init__(self, engine: Engine, settings: Settings, tell: Tell) -> None:
        self._engine, self._settings, self._tell = engine, settings, tell
        self._opened: dict[str, Continuer] = {}

    def __enter__(self) -> Labeller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the policy."""
        while self._opened:
            self._opened.popitem()[1].close()

    def run(self, job: Job) -> dict[str, int]:
        """`labels.jsonl` and `labels.parquet` in the job's folder; what is in them, and how many tests were run."""
        asked, tell, out = self._settings, self._tell, job.out
        known = {problem.id: problem for problem in job.problems}
        programs = list(job.programs) or label.sample_programs(
            job.problems, self._writer(asked.policy), asked.n, asked.sampling, out, tell
        )
        with ExitStack() as stack:
            box = stack.enter_context(self._engine.sandbox(asked.workers, asked.limits))
            judge = stack.enter_context(Judge(known, out / "verdicts.jsonl", box.run, box.width, asked.limits))
            graded = label.grade_programs(programs, judge, tell)
            if asked.plan is None:
                counted = [label.counted(row, known[row["task_id"]], {}) for row in graded]
            else:
                roller = self._writer(asked.rollout_policy)
                meter = Meter(asked.budget, out / "spent.json")
                counted = label.roll_out_programs(
                    graded, known, roller, judge, asked.plan, asked.rollout_sampling, out, tell, meter, job.held_out
                )
            ran = judge.ran
        labelled = [label.step_data(row, known[row["task_id"]]) for row in counted]
        if not asked.prompts:
            labelled = [{key: value for key, value in row.items() if key != "prompt"} for row in labelled]
        for name in FILES:
            write_rows(labelled, out / name)
        return {**label.totals(labelled), "tests_run": ran}

    def _writer(self, model: str) -> Continuer:
        """One at a time: two models would not fit into a laptop's memory."""
        if model not in self._opened:
            self.close()
            self._opened[model] = self._engine.continuer(model)
        return self._opened[model]


def label_of(recipe: Recipe) -> Label:
    """Raises ConfigError where the recipe does not say."""
    if recipe.label is None:
        raise ConfigError(f"the recipe {recipe.name!r} has no [label]", "it was made from programs as they are: fit it")
    return recipe.label


def plan_of(asked: Label) -> Plan:
    """The recipe's rollouts: adaptive ones up to k, or always k."""
    default = Plan()
    return Plan(min(default.first, asked.k), default.more, asked.k) if asked.adaptive else Plan(asked.k, 1, asked.k)


def jobs_of(recipe: Recipe, data: Path, names: Sequence[str] = (), limit: int | None = None) -> list[Job]:
    """A job for each folder that the pools of the recipe's sources lie in; sources may share one.

    names: only these sources; limit: problems of a folder at most. Raises ConfigError, ProblemError.
    """
    if unknown := set(names) - {source.name for source in recipe.sources}:
        told = ", ".join(source.name for source in recipe.sources)
        raise ConfigError(f"no source {sorted(unknown)[0]!r} in the recipe {recipe.name!r}", f"it has {told}")
    folders = (recipe.folder, data)
    humaneval = read_jsonl(find(recipe.reference, folders)) if recipe.reference else []
    found: defaultdict[Path, dict[str, Problem]] = defaultdict(dict)
    held_out: set[str] = set()
    for source in recipe.sources:
        if not names or source.name in names:
            rows = problem_rows(source, folders, humaneval, Counter())
            found[_folder(source, data)] |= {task_id: problem_of(row) for task_id, (row, _) in rows.items()}
            held_out |= {task_id for task_id, (_, split) in rows.items() if split != "train"}
    return [Job(list(problems.values())[:limit], out, held_out=frozenset(held_out)) for out, problems in found.items()]


def _folder(source: Source, data: Path) -> Path:
    """Where labels of the source are written to be found by `fit`."""
    for pool in source.pools:
        if Path(pool).name in FILES:
            return (data / pool).parent
    raise ConfigError(
        f"source {source.name!r} reads no {FILES[0]}", f'pools = ["labels/{source.name}/{FILES[0]}"], or use --problems'
    )
