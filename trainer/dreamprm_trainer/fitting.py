"""The stage `fit`: from a recipe and its data to a saved checkpoint, in each of the three ways (see `recipe.py`).

Modes whose labels or weights move, and pooled training, set apart a share of the training problems, drawn by seed; the
whole programs of these are the clean meta set. Validation programs decide when to stop, and calibrate.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.prompts import problem_form
from dreamprm_cli.training import StageStarted, Tell, TrainingFinished, TrainingNotice, TrainingStarted, silent
from dreamprm_trainer import audit, checkpoint, correct, stages
from dreamprm_trainer import fit as convex
from dreamprm_trainer.data import Item, Loaded
from dreamprm_trainer.examples import examples_of
from dreamprm_trainer.labels import Steps, counted_steps, start, steps_of_items
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.select import ablations, weights_of, within
from dreamprm_trainer.stages import Place
from dreamprm_trainer.tables import Floats, Table, merge, subset
from dreamprm_trainer.tune import tune
from dreamprm_trainer.tune_news import heard


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a fit found. items, labels: the training steps (N,) as they ended, None where no label could move;
    validation: losses, in order; auc_within: on validation programs by source; more: what else the report says."""

    items: Sequence[Item]
    auc_within: Mapping[str, float | None]
    labels: Floats | None = None
    validation: Sequence[float] = ()
    collapsed: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def fit(recipe: Recipe, place: Place, tell: Tell = silent) -> dict[str, Any]:
    """Fit, save the checkpoint (with its labels where they moved), record and return the report. Raises as `fitted`."""
    report = fitted(recipe, place, tell)
    stages.record(place, {"fit": report})
    return report


def fitted(recipe: Recipe, place: Place, tell: Tell = silent) -> dict[str, Any]:
    """As `fit`, recording nothing.

    Raises ConfigError where there is no meta set, ProblemError where there is nothing to train or to validate on.
    """
    started = time.monotonic()
    tell(TrainingStarted(recipe=recipe.name, backbone=recipe.backbone, params=recipe.fit.params, mode=recipe.fit.mode))
    data = stages.loaded(recipe, place)
    items = stages.training_items(recipe, data)
    if not _validating(recipe, stages.held_out(recipe, data)):
        raise ProblemError(
            f"there is no graded validation program in {', '.join(recipe.validate)}",
            "training stops by them, and they calibrate it: a source needs problems of the split dev",
        )
    report = _about(recipe, data, items)
    if recipe.fit.params == "features":
        found = _fit_head(recipe, place, data, report, tell)
    else:
        found = _tune(recipe, place, data, items, report, tell)
    if found.collapsed:
        tell(TrainingNotice(text="the rewards or the labels have become one constant: this PRM is of no use"))
    report |= {
        "collapsed": found.collapsed,
        "validation": {"auc_within": found.auc_within, "losses": [round(loss, 5) for loss in found.validation]},
        "seconds": round(time.monotonic() - started, 1),
        **found.more,
    }
    if found.labels is not None:
        before = start(steps_of_items(found.items), recipe.fit.start)
        report["labels"] = audit.save(place.checkpoint, audit.rows_of(found.items, before, found.labels)).name
    tell(TrainingFinished(checkpoint=str(place.checkpoint)))
    return report


def _fit_head(recipe: Recipe, place: Place, data: Loaded, report: Mapping[str, Any], tell: Tell) -> Found:
    split = stages.split(recipe, place, data, tell)
    began = time.monotonic()
    judge = merge(list(_validating(recipe, split.held_out).values()))
    begin = checkpoint.start_head(recipe)
    labels: Floats | None = None
    train, losses, collapsed, more = split.train, [], False, {}
    if recipe.fit.convex:
        tell(StageStarted(stage="fit", unit="evaluations", total=0))
        weights = weights_of(train, recipe.weights)
        head = convex.fit(train, recipe.settings, recipe.layers, weights, begin, tell)
        more = {"ablations": ablations(split, recipe, begin, tell)}
    else:
        train, meta = _apart(split.train, recipe)
        steps = counted_steps(train, recipe.fit.layers, recipe.layers)
        fitted = correct.fit(
            steps,
            _whole(meta or judge, recipe),
            _whole(judge, recipe),
            recipe.epochs,
            start(steps, recipe.fit.start),
            head=begin,
            tell=tell,
        )
        head, losses, collapsed = fitted.head, fitted.validation, fitted.collapsed
        if recipe.fit.mode == "correct":
            labels = fitted.labels
            if recipe.fit.refit:
                reached = replace(train, target=labels)
                reached = reached if meta is None else merge([reached, meta])
                head = convex.fit(reached, recipe.settings, recipe.layers, start=begin)
    head = convex.calibrate(head, judge, recipe.layers, recipe.fit.layers)
    scored = {name: _number(within(head, table, recipe.fit.layers, recipe)) for name, table in split.held_out.items()}
    found = Found(
        train.items, scored, labels, losses, collapsed, {**more, "seconds": round(time.monotonic() - began, 1)}
    )
    checkpoint.save(place.checkpoint, head, recipe, {**report, "validation": {"auc_within": scored}})
    return found


def _tune(
    recipe: Recipe, place: Place, data: Loaded, items: Sequence[Item], report: Mapping[str, Any], tell: Tell
) -> Found:
    """Its state is kept in the checkpoint's folder with the suffix `.run`, so a killed one goes on."""
    clean = set(meta_problems(items, recipe))
    train = [item for item in items if item.problem.id not in clean]
    judge = [item for some in _validating(recipe, stages.held_out(recipe, data)).values() for item in some]
    tuned = tune(
        examples_of(train, start(steps_of_items(train), recipe.fit.start)),
        examples_of(judge),
        recipe.tune,
        place.checkpoint.with_name(place.checkpoint.name + ".run"),
        heard(tell, recipe.tune.watch),
        meta=examples_of([item for item in items if item.problem.id in clean]),
        head=checkpoint.start_head(recipe),
        cache=place.cache / "activations",
    )
    figures = [-auc for auc in tuned.auc] if recipe.tune.watch == "auc" else tuned.validation
    scored = {"all": _number(tuned.auc[int(np.nanargmin(figures))])}
    checkpoint.adopt(tuned.checkpoint, place.checkpoint, recipe, {**report, "validation": {"auc_within": scored}})
    labels = tuned.labels if recipe.fit.mode == "correct" else None
    return Found(train, scored, labels, tuned.validation, tuned.collapsed)


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _validating(recipe: Recipe, by_source: Mapping[str, Any]) -> dict[str, Any]:
    """Of the sources that validate."""
    return {name: some for name, some in by_source.items() if name in recipe.validate}


def _whole(table: Table, recipe: Recipe) -> Steps:
    """The last steps, whose outcomes are known."""
    return counted_steps(table, recipe.fit.layers, recipe.layers).only(table.last)


def _apart(table: Table, recipe: Recipe) -> tuple[Table, Table | None]:
    """The table to train on, and the meta set."""
    clean = set(meta_problems(table.items, recipe))
    parts = [
        [number for number, item in enumerate(table.items) if (item.problem.id in clean) is wanted]
        for wanted in (False, True)
    ]
    return subset(table, parts[0]), subset(table, parts[1]) if parts[1] else None


def meta_problems(items: Sequence[Item], recipe: Recipe) -> list[str]:
    """Training problems that are set apart, drawn by seed. Raises ConfigError where the mode needs some and there are
    none, or where none would be left to train on."""
    problems = sorted({item.problem.id for item in items})
    share = recipe.fit.meta if recipe.fit.mode != "plain" else 0.0
    count = round(share * len(problems))
    if recipe.fit.mode != "plain" and not 0 < count < len(problems):
        raise ConfigError(
            f"mode {recipe.fit.mode} has no meta set: {share:g} of {len(problems)} training problems",
            "give [fit] meta a larger share or train on more problems, or take mode plain",
        )
    order = np.random.default_rng(recipe.fit.seed).permutation(len(problems))
    return [problems[number] for number in order[:count]]


def _about(recipe: Recipe, data: Loaded, items: Sequence[Item]) -> dict[str, Any]:
    """What the report says before anything is fitted."""
    return {
        "recipe": recipe.name,
        "command": command("fit", recipe),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "backbone": recipe.backbone,
        "params": recipe.fit.params,
        "mode": recipe.fit.mode,
        "settings": {
            **_settings(recipe),
            "pooling": recipe.pooling,
            "aggregation": recipe.aggregation,
            "logprob_weight": recipe.fit.logprob_weight,
        },
        "files": data.files,
        "left_out": dict(data.left_out),
        "forms": sorted({problem_form(item.problem) for item in items}),
        "train": contents(items),
        "held_out": {name: contents(held) for name, held in stages.held_out(recipe, data).items()},
    }


def command(stage: str, recipe: Recipe) -> str:
    """As a reader would type it here; of a recipe elsewhere the name alone, which finds a shipped one."""
    path, here = recipe.path.resolve(), Path.cwd()
    shown = path.relative_to(here).as_posix() if path.is_relative_to(here) else path.stem
    return f"dreamprm train {stage} --recipe {shown} --data DATA"


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Of the way that is taken."""
    shared = {key: value for key, value in asdict(recipe.fit).items() if key not in ("params", "mode", "solver")}
    if recipe.fit.convex:
        return {"solver": "convex", **shared, **asdict(recipe.settings)}
    if recipe.fit.params == "features":
        refit = {"refit": asdict(recipe.settings)} if recipe.fit.refit else {}
        return {"solver": "epochs", **shared, **asdict(recipe.epochs), **refit}
    return {**shared, **asdict(recipe.tune)}


def contents(items: Sequence[Item]) -> dict[str, Any]:
    """Problems, programs, steps, pass rate and authors, by source."""
    by_source: dict[str, Any] = {}
    for source in dict.fromkeys(item.source for item in items):
        own = [item for item in items if item.source == source]
        by_source[source] = {
            "problems": len({item.problem.id for item in own}),
            "programs": len(own),
            "steps": sum(step.scored for item in own for step in item.steps),
            "rollouts": sum(sum(item.rollouts) for item in own),
            "passed": round(sum(item.passed for item in own) / len(own), 4),
            "models": dict(Counter(item.model for item in own)),
        }
    return by_source


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
