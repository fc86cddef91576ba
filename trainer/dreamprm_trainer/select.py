"""Which settings and which sources are worth having, measured on validation problems of several sources."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from dreamprm_cli.aggregate import aggregate
from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.prm.head import Head
from dreamprm_cli.training import Progressed, StageStarted, Tell, silent
from dreamprm_trainer.data import Item
from dreamprm_trainer.evaluate import Pool, baseline_columns, pools_of, within_aucs
from dreamprm_trainer.fit import Settings, Steps, fit
from dreamprm_trainer.recipe import Grid, Recipe
from dreamprm_trainer.tables import Floats, Table, subset


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Training programs (each text of a problem once) and, by source, the programs to judge on (as drawn)."""

    train: Table
    held_out: Mapping[str, Table]


def weights_of(table: Table, by_source: Mapping[str, float]) -> Floats:
    return np.array([by_source.get(item.source, 1.0) for item in table.items], np.float32)


def rewards(head: Head, table: Table, layers: Sequence[int], cached: Sequence[int]) -> list[list[float]]:
    """Step rewards of each program's scored steps."""
    flat = head.rewards(table.features(layers, cached))
    result: list[list[float]] = [[] for _ in table.items]
    for program, reward in zip(table.program.tolist(), flat.tolist(), strict=True):
        result[program].append(reward)
    return result


def pools(
    table: Table, steps: Sequence[Sequence[float]], aggregations: Sequence[str], baselines: bool = False
) -> list[Pool]:
    """A pool for each problem: the reward under each aggregation (the first is called `prm`), and the baselines."""
    scores = {
        "prm" if number == 0 else f"prm, {how}": [aggregate(rewards, how) for rewards in steps]
        for number, how in enumerate(aggregations)
    }
    return pools_of(table.items, scores | (baseline_columns(table.items) if baselines else {}))


def within(head: Head, table: Table, layers: Sequence[int], recipe: Recipe) -> float:
    """Mean AUC within problems; NaN where no problem has both outcomes."""
    steps = rewards(head, table, layers, recipe.layers)
    values = within_aucs(pools(table, steps, [recipe.aggregation]), "prm")
    return float(values.mean()) if len(values) else float("nan")


def resampled(table: Table, seed: int) -> Table:
    """The table with its problems drawn anew with replacement; seed 0 is the table itself."""
    if seed == 0:
        return table
    numbers = table.problem
    members = [np.flatnonzero(numbers == number) for number in range(int(numbers.max()) + 1)]
    drawn = np.random.default_rng(seed).integers(0, len(members), len(members))
    return subset(table, [int(index) for number in drawn for index in members[number]])


def settings_of(grid: Grid) -> Iterator[Settings]:
    for layers, l2, steps, pairwise in itertools.product(grid.layers, grid.l2, grid.steps, grid.pairwise):
        yield Settings(layers, l2, cast(Steps, steps), pairwise)


def folds_of(items: Iterable[Item], families: Mapping[str, str], folds: int = 5) -> list[frozenset[str]]:
    """The families of the items' problems (`overlap.families`), drawn into folds.

    Raises ProblemError where all problems are alike.
    """
    own = sorted({families[item.problem.id] for item in items})
    if len(own) < 2:
        raise ProblemError(
            "all training problems are alike: none can be held out",
            "they share names, statements or solutions; give a source of other problems",
        )
    order = np.random.default_rng(0).permutation(own).tolist()
    return [frozenset(order[fold::folds]) for fold in range(min(folds, len(own)))]


def cross_fit(
    train: Table,
    drawn: Table,
    recipe: Recipe,
    families: Mapping[str, str],
    folds: Iterable[Collection[str]],
    start: Head | None = None,
) -> list[list[float]]:
    """Step rewards of `drawn` (programs of training problems) by heads that were fitted without their fold.

    folds: families that are held out together, with all their programs, whatever source they are from; every program of
    `drawn` is of one. Not calibrated. start: as in `fit`; it must not have seen the problems. Raises ProblemError where
    a fold leaves nothing to fit.
    """
    result: list[list[float]] = [[] for _ in drawn.items]
    for fold in folds:
        rest = [n for n, item in enumerate(train.items) if families[item.problem.id] not in fold]
        if not rest:
            raise ProblemError("no training problem is left to fit on", "give sources of other problems as well")
        kept = subset(train, rest)
        head = fit(kept, recipe.settings, recipe.layers, weights_of(kept, recipe.weights), start)
        members = [n for n, item in enumerate(drawn.items) if families[item.problem.id] in fold]
        scored = rewards(head, subset(drawn, members), recipe.settings.layers, recipe.layers)
        for number, steps in zip(members, scored, strict=True):
            result[number] = steps
    return result


def search(split: Split, recipe: Recipe, start: Head | None = None, tell: Tell = silent) -> list[dict[str, Any]]:
    """AUC within validation problems of each setting, by source: mean and sd over refits on resampled problems.

    Best first, by the mean over sources. start: as in `fit`. Raises ConfigError for a grid that does not go with it.
    """
    grid = recipe.grid
    if grid is None:
        raise ConfigError(f"{recipe.path} has no [search]", "say there which layers, l2, steps and pairwise to try")
    if start is not None and set(grid.layers) != {recipe.fit.layers}:
        raise ConfigError(
            f"[search] of {recipe.path} tries other layers than those of the PRM that [fit] starts from",
            f"layers = [{list(recipe.fit.layers)}] there, or no init",
        )
    found: dict[Settings, list[dict[str, float]]] = {}
    tell(StageStarted(stage="search", unit="draws", total=grid.seeds))
    for seed in range(grid.seeds):
        drawn = resampled(split.train, seed)
        weights = weights_of(drawn, recipe.weights)
        for settings in settings_of(grid):
            head = fit(drawn, settings, recipe.layers, weights, start)
            row = {name: within(head, table, settings.layers, recipe) for name, table in split.held_out.items()}
            found.setdefault(settings, []).append(row)
        tell(Progressed(done=seed + 1))
    rows = []
    for settings, draws in found.items():
        by_source = {name: [row[name] for row in draws] for name in split.held_out}
        overall = [float(np.nanmean(list(row.values()))) for row in draws]
        rows.append(
            {
                "settings": {
                    "layers": list(settings.layers),
                    "l2": settings.l2,
                    "steps": settings.steps,
                    "pairwise": settings.pairwise,
                },
                "auc_within": float(np.mean(overall)),
                "sd": float(np.std(overall)),
                "by_source": {name: float(np.mean(values)) for name, values in by_source.items()},
            }
        )
    return sorted(rows, key=lambda row: -float(row["auc_within"]))


def ablations(
    split: Split, recipe: Recipe, start: Head | None = None, tell: Tell = silent, seeds: int = 3
) -> dict[str, dict[str, Any]]:
    """AUC within validation problems when each training source is left out, or alone, over refits on `seeds` draws."""
    sources = list(dict.fromkeys(item.source for item in split.train.items))
    trials: dict[str, Table] = {"all": split.train}
    for source in sources if len(sources) > 1 else ():
        named = [index for index, item in enumerate(split.train.items) if item.source == source]
        rest = [index for index, item in enumerate(split.train.items) if item.source != source]
        trials[f"only {source}"] = subset(split.train, named)
        trials[f"without {source}"] = subset(split.train, rest)
    result = {}
    tell(StageStarted(stage="sources left out", unit="refits", total=len(trials) * seeds))
    for number, (name, table) in enumerate(trials.items()):
        draws = []
        for seed in range(seeds):
            drawn = resampled(table, seed)
            head = fit(drawn, recipe.settings, recipe.layers, weights_of(drawn, recipe.weights), start)
            tell(Progressed(done=number * seeds + seed + 1))
            draws.append({key: within(head, held, recipe.fit.layers, recipe) for key, held in split.held_out.items()})
        overall = [float(np.nanmean(list(row.values()))) for row in draws]
        result[name] = {
            "programs": len(table.items),
            "auc_within": float(np.mean(overall)),
            "sd": float(np.std(overall)),
            "by_source": {key: float(np.mean([row[key] for row in draws])) for key in split.held_out},
        }
    return result
