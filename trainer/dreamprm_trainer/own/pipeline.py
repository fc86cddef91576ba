"""Mine, label, fit, eval: a folder of results from repositories.

Each part goes on where a killed run stopped: runs of the tests, programs, verdicts, rollouts and states are kept as
they come, what is spent of the budget as well; the fit takes seconds.

    out/report.json, report.md      what the new PRM is worth, and whether it is the default now
    out/candidate/                  the new PRM
    out/prm/                        the same if it became the default: what dreamprm.toml names
    out/spent.json                  of the budget
    out/NAME/                       tasks, pool, programs, verdicts, rollouts and labels of the repository NAME
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dreamprm_cli.errors import CheckpointError, ProblemError
from dreamprm_cli.models import Report, cache_dir
from dreamprm_cli.policy import Sampling
from dreamprm_cli.prm.adapter import load_adapter
from dreamprm_cli.prm.checkpoint import backbone_of, load, resolve
from dreamprm_cli.prm.source import locate_backbone
from dreamprm_cli.training import (
    PartStarted,
    Progressed,
    StageStarted,
    Tell,
    TrainingEvent,
    TrainingFinished,
    TrainingNotice,
)
from dreamprm_trainer import fitting
from dreamprm_trainer.budget import Meter
from dreamprm_trainer.checkpoint import start_head
from dreamprm_trainer.continuation import Continuer
from dreamprm_trainer.data import Source
from dreamprm_trainer.engine import open_engine
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.own import default, report
from dreamprm_trainer.own.attempts import Attempts, with_tests
from dreamprm_trainer.own.options import Options
from dreamprm_trainer.problems import Row, problem_of, read_jsonl
from dreamprm_trainer.recipe import Recipe, find_recipe, read_recipe
from dreamprm_trainer.rollouts import Plan
from dreamprm_trainer.stages import Place

PARTS = ("mine", "label", "fit", "eval")
LEAST_TASKS = 8  # tested training tasks; fewer say nothing
_ROWS, _LENGTH = 32, 3072  # of the batch: prompts hold the module around the function
_FIRST, _MORE = 4, 2  # rollouts of every prefix, and at a time where they do not agree


def run(options: Options, tell: Tell) -> Row:
    """The report, which is also in `out/report.json` and `out/report.md`; with the keys of `report.compare`.

    Raises ProblemError where the repositories hold too little to learn from or to judge by.
    """
    repos = options.named()
    recipe, place = recipe_for(list(repos), options), place_of(options)
    clocks: list[tuple[float, float]] = []

    def part(number: int) -> None:
        tell(PartStarted(parts=PARTS, at=number))
        clocks.append((time.monotonic(), time.process_time()))

    part(0)
    mined = {name: mine(name, repo, options, tell) for name, repo in repos.items()}
    rows = {name: with_tests(read_jsonl(options.out / name / "tasks.jsonl")) for name in repos}
    check_enough([row["split"] for some in rows.values() for row in some])
    part(1)
    label(repos, rows, options, tell)
    part(2)
    fitted = fitting.fit(recipe, place, _without_end(tell))
    part(3)
    found = report.compare(recipe, place, options.prm, tell)
    clocks.append((time.monotonic(), time.process_time()))
    whole: Row = {
        "repositories": {name: about(one) for name, one in mined.items()},
        "policy": options.policy,
        "budget": _told(options),
        "spent": {unit: round(value, 1) for unit, value in Meter(options.budget, _spent(options)).spent.items()},
        "train": fitted["train"],
        "labels": label_counts(options.out, list(repos)),
        "checkpoint": str(place.checkpoint),
        **found,
        "adopted_in": [],
        "seconds": _took([wall for wall, _ in clocks]),
        "processor_seconds": _took([own for _, own in clocks]),
    }
    if found["better"] and options.adopt:
        kept = default.keep(place.checkpoint, options.out / "prm")
        adopted = [str(default.adopt(repo, kept)) for repo in repos.values()]
        whole |= {"checkpoint": str(kept), "adopted_in": adopted}
    report.write(whole, options.out)
    tell(TrainingFinished(checkpoint=whole["checkpoint"]))
    return whole


def fetch(options: Options, report: Report | None = None) -> None:
    """What is needed from elsewhere, and a PRM to start from that this can go on with: told before hours of labelling.

    Raises ModelError, CheckpointError."""
    recipe = recipe_for(["repository"], options)
    locate_backbone(recipe.backbone, report=report)
    if options.engine == "batched":
        locate_backbone(options.policy, report=report)
    start_head(recipe)


def mine(name: str, repo: Path, options: Options, tell: Tell) -> Row:
    """Tasks of the repository, in `out/NAME`."""
    from dreamprm_trainer.mine import pipeline as mining
    from dreamprm_trainer.mine.repository import Repository

    tell(StageStarted(stage=f"mine {name}", unit="functions", total=0))
    begun: list[int] = []

    def at(done: int, total: int) -> None:
        if not begun:
            begun.append(done)
            tell(StageStarted(stage=f"mine {name}", unit="functions", total=total, done=max(0, done - 1)))
        tell(Progressed(done=done))

    with Repository(repo) as repository:
        asked = mining.Options(True, options.by, False, options.workers, options.functions)
        return mining.mine(repository, options.out / name, asked, lambda line: tell(TrainingNotice(text=line)), at)


def about(mined: Row) -> Row:
    """What the report says of what was mined."""
    counts = ("functions", "covered", "drawn", "tests", "tasks", "with_killing_test", "negatives")
    return {key: mined[key] for key in ("commit", *counts, "splits", "left_out")}


def check_enough(parts: Sequence[str]) -> None:
    """parts: of the tasks with tests. Raises ProblemError."""
    if parts.count("train") < LEAST_TASKS or not parts.count("dev") or not parts.count("test"):
        told = ", ".join(f"{parts.count(part)} {part}" for part in ("train", "dev", "test"))
        raise ProblemError(
            f"too few functions with a test that notices a wrong body: {told}",
            f"at least {LEAST_TASKS} to train on and some held out: add tests, or train on several repositories",
        )


def label(repos: Mapping[str, Path], rows: Mapping[str, Sequence[Row]], options: Options, tell: Tell) -> None:
    """Attempts at the tasks with tests, graded by the repository's own tests. Each repository has its share of the
    budget, and what those before it left over."""
    budget, base = options.budget, [options.base_url] if options.base_url else []
    with open_engine(options.engine, base_urls=base, rows=_ROWS, length=_LENGTH) as engine:
        writer = engine.continuer(options.policy)
        try:
            for done, (name, repo) in enumerate(repos.items(), 1):
                share = replace(budget, amount=budget.amount * done / len(repos))
                _attempt(repo, rows[name], options.out / name, options, writer, Meter(share, _spent(options)), tell)
        finally:
            writer.close()


def _attempt(
    repo: Path, rows: Sequence[Row], folder: Path, options: Options, writer: Continuer, meter: Meter, tell: Tell
) -> None:
    from dreamprm_trainer.mine.grading import Grader

    plan = Plan(min(_FIRST, options.rollouts), _MORE, options.rollouts) if options.rollouts else None
    sampling = Sampling(temperature=0.8, max_tokens=options.max_tokens, seed=options.seed)
    known = {row["task_id"]: problem_of(row) for row in rows}
    grader = Grader(repo, folder, options.workers)
    with grader, Judge(known, folder / "verdicts.jsonl", grader.grade, options.workers) as judge:
        Attempts(options.n, plan, sampling).run(rows, writer, judge, folder, meter, tell)


def label_counts(out: Path, names: Sequence[str]) -> Row:
    """What the labels of all repositories hold together."""
    from dreamprm_trainer.label import totals

    return dict(totals([row for name in names for row in read_jsonl(out / name / "labels.jsonl")]))


def recipe_for(names: Sequence[str], options: Options) -> Recipe:
    """The shipped recipe `repo` with a source for each repository, over the states that the PRM to start from reads.

    Raises CheckpointError."""
    recipe, folder = read_recipe(find_recipe("repo")), resolve(options.prm)
    begin = load(folder)
    if load_adapter(folder) is not None or begin.unit != "function":
        raise CheckpointError(
            f"{folder} does not read functions with a frozen backbone", "start from a PRM that does, such as `default`"
        )
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
    own = recipe.over(backbone_of(begin, folder), begin.layers, begin.pooling)
    fit = replace(own.fit, init=options.prm, logprob_weight=begin.logprob_weight)
    own = replace(own, sources=sources, train=tuple(names), fit=fit, aggregation=begin.aggregation)
    return own.asked(seed=options.seed)


def place_of(options: Options) -> Place:
    return Place(options.out, cache_dir() / "features", options.out / "candidate", options.out / "metrics.json")


def _spent(options: Options) -> Path:
    return options.out / "spent.json"


def _took(clock: Sequence[float]) -> dict[str, float]:
    """Of each part, in this run, and of all."""
    each = {name: round(end - start, 1) for name, start, end in zip(PARTS, clock, clock[1:], strict=False)}
    return {**each, "all": round(clock[-1] - clock[0], 1)}


def _told(options: Options) -> Row | None:
    amount = options.budget.amount
    return {"amount": amount, "unit": options.budget.unit} if math.isfinite(amount) else None


def _without_end(tell: Tell) -> Tell:
    """What a part's end is not the end of the whole for."""

    def heard(event: TrainingEvent) -> None:
        if not isinstance(event, TrainingFinished):
            tell(event)

    return heard
