"""What `dreamprm train` does, stage by stage: features, search, eval, cross, card. `fit` is in `fitting.py`.

Each stage goes on where a killed one stopped, or is done in seconds. All results go into one JSON file (`metrics`), and
the model card is made from it and from nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm_cli.aggregate import AGGREGATIONS, aggregate
from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.training import Tell, silent
from dreamprm_trainer import card as model_card
from dreamprm_trainer.bench import columns
from dreamprm_trainer.checkpoint import start_head
from dreamprm_trainer.data import Item, Loaded, Source, find, load, unique
from dreamprm_trainer.evaluate import MAIN, baseline_columns, by_weight, pools_of, sizes_of, with_logprob
from dreamprm_trainer.evaluate import evaluate as measured
from dreamprm_trainer.features import Cache, extract, open_cache
from dreamprm_trainer.labels import start, steps_of_items
from dreamprm_trainer.overlap import families
from dreamprm_trainer.rankers import open_rankers, score
from dreamprm_trainer.reading import Reading
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.select import Split, cross_fit, folds_of
from dreamprm_trainer.select import search as tried
from dreamprm_trainer.tables import Table, build


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training finds its data and keeps what it makes.

    data: folder of problem sets and pools; cache: of states; metrics: JSON of all results; sources: only these of the
    recipe (empty: all); test: the test split, instead of the others. To be looked at once.
    """

    data: Path
    cache: Path
    checkpoint: Path
    metrics: Path
    sources: tuple[str, ...] = ()
    test: bool = False


def chosen(recipe: Recipe, place: Place) -> list[Source]:
    """The sources that are looked at, with their splits that are. Raises ConfigError for an unknown one."""
    if unknown := set(place.sources) - {source.name for source in recipe.sources}:
        raise ConfigError(
            f"{recipe.path} has no source {', '.join(sorted(unknown))}",
            f"one of {', '.join(source.name for source in recipe.sources)}",
        )
    sources = [
        replace(source, splits=tuple(one for one in source.splits if (one == "test") == place.test))
        for source in recipe.sources
        if not place.sources or source.name in place.sources
    ]
    return [source for source in sources if source.splits]


def check(recipe: Recipe, place: Place) -> None:
    """Raises ProblemError where a file is missing: told before a model is fetched."""
    for source in chosen(recipe, place):
        for name in (source.problems, *source.pools):
            find(name, [recipe.folder, place.data])


def loaded(recipe: Recipe, place: Place, *, ungraded: bool = False) -> Loaded:
    """Graded programs of what is looked at. Raises ProblemError."""
    return load(chosen(recipe, place), [recipe.folder, place.data], recipe.reference, ungraded)


def cache_of(recipe: Recipe, place: Place) -> Cache:
    return open_cache(place.cache, recipe.backbone, recipe.layers, Reading(unit=recipe.unit, pooling=recipe.pooling))


def features(recipe: Recipe, place: Place, *, minutes: float | None = None, tell: Tell = silent) -> bool:
    """Encode all programs with the backbone, once. False when `minutes` were up before the end."""
    return extract(loaded(recipe, place, ungraded=True).items, cache_of(recipe, place), minutes, tell)


def training_items(recipe: Recipe, data: Loaded) -> list[Item]:
    """Each text once, the programs of a problem together. Raises ProblemError where there are none."""
    found = unique(item for item in data.items if item.split == "train" and item.source in recipe.train)
    if not any(step.scored for item in found for step in item.steps):
        raise ProblemError(
            f"there is no graded program to train on in {', '.join(recipe.train)}",
            "its pools hold none of the train split: sample and label programs first",
        )
    first = {(item.source, item.problem.id): number for number, item in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda item: first[item.source, item.problem.id])


def held_out(recipe: Recipe, data: Loaded) -> dict[str, list[Item]]:
    """Validation or test programs by source, as drawn; sources without any are left out."""
    found = {
        source.name: [item for item in data.items if item.split != "train" and item.source == source.name]
        for source in recipe.sources
    }
    return {name: items for name, items in found.items() if items}


def split(recipe: Recipe, place: Place, data: Loaded, tell: Tell = silent) -> Split:
    """Tables of the states of `data`, which are encoded where they are missing. Training labels are where the recipe
    says that they begin: with "mc" and no rollouts, the program's outcome."""
    cache = cache_of(recipe, place)
    held = held_out(recipe, data)
    train = [] if place.test else training_items(recipe, data)
    extract([*train, *(item for items in held.values() for item in items)], cache, None, tell)
    tables = {name: build(items, cache) for name, items in held.items()}
    return Split(labelled(build(train, cache), recipe), {name: table for name, table in tables.items() if table.items})


def labelled(table: Table, recipe: Recipe) -> Table:
    """The table with the labels that the recipe begins with as its targets."""
    return replace(table, target=start(steps_of_items(table.items), recipe.fit.start))


def search(recipe: Recipe, place: Place, tell: Tell = silent) -> list[dict[str, Any]]:
    """Try the recipe's grid on the validation problems; best first."""
    rows = tried(split(recipe, place, loaded(recipe, place), tell), recipe, start_head(recipe), tell)
    record(place, {"search": rows[:40], "search_size": len(rows)})
    return rows


def evaluate(recipe: Recipe, place: Place, tell: Tell = silent) -> dict[str, Any]:
    """Rank the held-out programs of each source with the saved checkpoint, against its rivals and the baselines."""
    held = held_out(recipe, loaded(recipe, place))
    if not held:
        kind = "test" if place.test else "validation"
        raise ProblemError(f"no source of {recipe.path} has graded {kind} programs here", "see `splits` and --data")
    rankers = open_rankers(str(place.checkpoint), {})
    results = {}
    for name, items in held.items():
        results[name] = judged(items, columns(rankers, score(rankers, items, place.cache, tell), items))
    record(place, {"test" if place.test else "validation": results})
    return results


def judged(items: Sequence[Item], scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Metrics of the programs' scores by each method, and of the baselines."""
    pools = pools_of(items, {**scores, **baseline_columns(items)})
    return measured(pools, sizes_of(pools), probabilities=[MAIN])


def cross(recipe: Recipe, place: Place, whole_sets: bool = False, tell: Tell = silent) -> dict[str, Any]:
    """Rank the training problems' programs, each by a head fitted without its problem and those like it, with the
    recipe's settings.

    The settings were chosen on the validation problems, so nothing was chosen or fitted on the problems ranked.
    whole_sets: the head is fitted without any problem of the same set, which is one `problems` file of the recipe.
    Two files can still be of one kind, and validation problems of the same file can have chosen the settings.
    Beside the metrics of `evaluate` each source has `by_weight`, from which `logprob_weight` can be chosen.
    """
    if not recipe.fit.convex:
        raise ConfigError("cross-fitting is of the convex solver", 'it needs params = "features" and mode = "plain"')
    data = loaded(recipe, place)
    parts, head = split(recipe, place, data, tell), start_head(recipe)
    cache, alike = cache_of(recipe, place), families(data.rows)
    sets = {source.name: source.problems for source in recipe.sources}
    results = {}
    for name in (one for one in recipe.train if one not in recipe.fit.replay):
        own = [item for item in data.items if item.split == "train" and item.source == name]
        extract(own, cache, None, tell)
        drawn = build(own, cache)
        if whole_sets:
            same = [item for item in data.items if item.split == "train" and sets[item.source] == sets[name]]
            folds = [frozenset(alike[item.problem.id] for item in same)]
        else:
            folds = folds_of(drawn.items, alike)
        steps = cross_fit(parts.train, drawn, recipe, alike, folds, head)
        ways = [recipe.aggregation, *(how for how in AGGREGATIONS if how != recipe.aggregation)]
        named = {MAIN if how == ways[0] else f"{MAIN}, {how}": how for how in ways}
        scores = {one: [aggregate(r, how) for r in steps] for one, how in named.items()}
        scores |= with_logprob(scores[MAIN], drawn.items, recipe.fit.logprob_weight)
        results[name] = {**judged(drawn.items, scores), "by_weight": by_weight(scores[MAIN], drawn.items)}
    record(place, {"sets" if whole_sets else "cross": results})
    return results


def card(recipe: Recipe, place: Place) -> Path:
    """Write the model card from the recorded results. Raises ProblemError where there are none."""
    metrics = recorded(place)
    for stage, keys in (("fit", ("fit",)), ("eval", model_card.SECTIONS)):
        if not any(metrics.get(key) for key in keys):
            raise ProblemError(f"{place.metrics} has no results of `{stage}`", f"run `dreamprm train {stage}` first")
    model_card.write(place.checkpoint / "MODEL_CARD.md", metrics, recipe)
    return place.checkpoint / "MODEL_CARD.md"


def recorded(place: Place) -> dict[str, Any]:
    """All results so far."""
    try:
        return dict(json.loads(place.metrics.read_text(encoding="utf-8"))) if place.metrics.exists() else {}
    except ValueError:
        raise ProblemError(f"{place.metrics} is not JSON", "remove it, or name another file with --metrics") from None


def record(place: Place, results: Mapping[str, Any]) -> None:
    """Put results beside those that are recorded."""
    text = json.dumps({**recorded(place), **results}, indent=1) + "\n"
    place.metrics.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.metrics.with_name(f".{place.metrics.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(place.metrics)
