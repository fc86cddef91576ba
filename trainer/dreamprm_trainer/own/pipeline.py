"""mine -> label -> fit -> eval for one's own repositories. Killed at any moment, the same command goes on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.models import cache_dir
from dreamprm_cli.policy import Sampling
from dreamprm_cli.training import StageStarted, Tell, TrainingNotice
from dreamprm_trainer import fitting
from dreamprm_trainer.budget import Meter
from dreamprm_trainer.continuation import Continuer, open_continuer
from dreamprm_trainer.data import Source
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.own import attempts, default, report
from dreamprm_trainer.own.options import Options, name_of
from dreamprm_trainer.problems import Row, problem_of, read_jsonl
from dreamprm_trainer.recipe import Recipe, find_recipe, read_recipe
from dreamprm_trainer.rollouts import Plan
from dreamprm_trainer.stages import Place

LEAST_TASKS = 8  # tested training tasks; fewer say nothing


def run(options: Options, tell: Tell) -> Row:
    """The report, which is also in `out/report.json` and `out/report.md`; with the keys of `report.compare`.

    Raises ProblemError where the repositories hold too little to learn from or to judge by.
    """
    repos = options.named()
    mined = {name: mine(name, repo, options, tell) for name, repo in repos.items()}
    rows = {name: attempts.tested(read_jsonl(options.out / name / "tasks.jsonl")) for name in repos}
    _enough(rows)
    meter = Meter(options.budget, options.out / "spent.json")
    with ExitStack() as stack:
        writer = open_continuer(options.policy, "stream")
        stack.callback(writer.close)
        for done, name in enumerate(repos):  # each has its share, and what those before it left over
            part = meter.budget.amount * (done + 1) / len(repos)
            own = Meter(replace(meter.budget, amount=part), options.out / "spent.json")
            label(repos[name], options, rows[name], writer, own, tell)
    recipe, place = recipe_for(list(repos), options), place_of(options)
    fitted = fitting.fit(recipe, place, tell)
    found = report.compare(recipe, place, options.prm, tell)
    adopted = []
    if found["better"] and options.adopt:
        adopted = [str(default.adopt(repo, place.checkpoint)) for repo in repos.values()]
    spent = Meter(options.budget, options.out / "spent.json").spent
    whole: Row = {
        "repositories": {name: about(mined[name]) for name in repos},
        "policy": options.policy,
        "budget": {"amount": options.budget.amount, "unit": options.budget.unit}
        if options.budget.amount < float("inf")
        else None,
        "spent": {unit: round(value, 1) for unit, value in spent.items()},
        "train": fitted["train"],
        "checkpoint": str(place.checkpoint),
        **found,
        "adopted_in": adopted,
    }
    report.write(whole, options.out)
    return whole


def mine(name: str, repo: Path, options: Options, tell: Tell) -> Row:
    """Tasks of the repository, in `out/NAME`."""
    from dreamprm_trainer.mine import pipeline as mining
    from dreamprm_trainer.mine.repository import Repository

    tell(StageStarted(stage=f"mine {name}", unit="", total=0))
    with Repository(repo) as repository:
        asked = mining.Options(True, options.by, False, options.workers)
        return mining.mine(repository, options.out / name, asked, lambda line: tell(TrainingNotice(text=line)))


def about(mined: Row) -> Row:
    """What the report says of what was mined."""
    keys = ("commit", "functions", "covered", "tests", "tasks", "with_killing_test", "negatives", "splits", "left_out")
    return {key: mined[key] for key in keys}


def _enough(rows: dict[str, Any]) -> None:
    parts = [row["split"] for some in rows.values() for row in some.values()]
    if parts.count("train") < LEAST_TASKS or not parts.count("dev") or not parts.count("test"):
        told = ", ".join(f"{parts.count(part)} {part}" for part in ("train", "dev", "test"))
        raise ProblemError(
            f"too few functions with a test that notices a wrong body: {told}",
            f"at least {LEAST_TASKS} to train on and some held out: add tests, or train on several repositories",
        )


def label(repo: Path, options: Options, rows: Any, writer: Continuer, meter: Meter, tell: Tell) -> None:
    """Attempts at the tasks with tests, graded by the repository's own tests."""
    from dreamprm_trainer.mine.grading import Grader

    folder = options.out / name_of(repo)
    known = {name: problem_of(row) for name, row in rows.items()}
    sampling = Sampling(temperature=0.8, max_tokens=options.max_tokens, seed=options.seed)
    plan = Plan(min(4, options.rollouts), 2, options.rollouts)
    grader = Grader(repo, folder, options.workers)
    with grader, Judge(known, folder / "verdicts.jsonl", grader.grade, options.workers) as judge:
        attempts.attempt(list(known.values()), writer, judge, options.n, plan, sampling, folder, meter, tell)


def recipe_for(names: list[str], options: Options) -> Recipe:
    """The shipped recipe `repo` with a source for each repository."""
    recipe = read_recipe(find_recipe("repo"))
    sources = tuple(
        Source(
            name=name,
            problems=f"{name}/tasks.jsonl",
            pools=(f"{name}/labels.jsonl", f"{name}/pool.jsonl"),
            splits=("train", "dev", "test"),
            min_tests=1,
        )
        for name in names
    )
    fit = replace(recipe.fit, init=options.prm, seed=options.seed)
    return replace(recipe, sources=sources, train=tuple(names), fit=fit)


def place_of(options: Options) -> Place:
    folder = options.out / "prm"
    return Place(options.out, cache_dir() / "features", folder, options.out / "metrics.json")
