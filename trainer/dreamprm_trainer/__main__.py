"""`python -m dreamprm_trainer STAGE --recipe FILE --data DIR`: features, search, fit, eval, cross, card."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import DreamPRMError
from dreamprm_cli.prompts import problem_form
from dreamprm_trainer.recipe import Recipe, read_recipe

SIZES = (1, 2, 4, 8)


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    try:
        stages[args.stage](args, read_recipe(args.recipe))
    except DreamPRMError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    from dreamprm_cli.models import cache_dir

    parser = argparse.ArgumentParser(prog="dreamprm_trainer", description="Fit and judge a process reward model.")
    parser.add_argument("stage", choices=list(stages))
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of problem sets and pools")
    parser.add_argument("--cache", type=Path, default=cache_dir() / "features")
    parser.add_argument("--checkpoint", type=Path, default=Path("dreamprm_cli/prm/checkpoints/default"))
    parser.add_argument("--metrics", type=Path, help="JSON of all results (default: beside the recipe)")
    parser.add_argument("--sources", nargs="*", help="only these sources of the recipe")
    parser.add_argument("--minutes", type=float, help="features: stop after so long; the next run goes on")
    parser.add_argument("--test", action="store_true", help="features, eval: the test split. To be looked at once.")
    args = parser.parse_args(argv)
    args.metrics = args.metrics or args.recipe.with_suffix(".metrics.json")
    return args


def _load(args: argparse.Namespace, recipe: Recipe, ungraded: bool = False) -> Any:
    """Graded programs: those of the test split with --test, of the others without."""
    from dreamprm_trainer.data import load

    sources = [
        replace(source, splits=tuple(one for one in source.splits if (one == "test") == args.test))
        for source in recipe.sources
        if not args.sources or source.name in args.sources
    ]
    return load([s for s in sources if s.splits], [recipe.folder, args.data], recipe.reference, ungraded)


def features(args: argparse.Namespace, recipe: Recipe) -> None:
    """Encode all programs with the backbone, once."""
    from dreamprm_trainer.features import extract, open_cache

    loaded = _load(args, recipe, ungraded=True)
    if not extract(loaded.items, open_cache(args.cache, recipe.backbone, recipe.layers), args.minutes):
        print("time is up; the next run goes on", file=sys.stderr)


def _split(args: argparse.Namespace, recipe: Recipe) -> tuple[Any, Any]:
    from dreamprm_trainer.data import unique
    from dreamprm_trainer.features import open_cache
    from dreamprm_trainer.select import Split
    from dreamprm_trainer.tables import build

    loaded = _load(args, recipe)
    cache = open_cache(args.cache, recipe.backbone, recipe.layers)
    train = unique(item for item in loaded.items if item.split == "train" and item.source in recipe.train)
    held_out = {}
    for source in recipe.sources:
        table = build((i for i in loaded.items if i.split in ("dev", "test") and i.source == source.name), cache)
        if table.items:
            held_out[source.name] = table
    return loaded, Split(build(train, cache), held_out)


def search(args: argparse.Namespace, recipe: Recipe) -> None:
    """Try the recipe's grid on the validation problems; the best go to stdout."""
    from dreamprm_trainer.select import search as run

    _, split = _split(args, recipe)
    rows = run(split, recipe)
    _record(args, {"search": rows[:40], "search_size": len(rows)})
    for row in rows[:20]:
        print(f"{row['auc_within']:.4f} ±{row['sd']:.4f} {json.dumps(row['settings'])} {_rounded(row['by_source'])}")


def fit(args: argparse.Namespace, recipe: Recipe) -> None:
    """Fit the head with the recipe's settings, calibrate it on the validation problems and save the checkpoint."""
    from dreamprm_trainer.checkpoint import save
    from dreamprm_trainer.fit import calibrate
    from dreamprm_trainer.fit import fit as run
    from dreamprm_trainer.select import ablations, weights_of
    from dreamprm_trainer.tables import merge

    started = time.monotonic()
    loaded, split = _split(args, recipe)
    head = run(split.train, recipe.settings, recipe.layers, weights_of(split.train, recipe.weights))
    familiar = [table for name, table in split.held_out.items() if name in recipe.train]
    head = calibrate(head, merge(familiar), recipe.layers, recipe.settings.layers)
    trials = ablations(split, recipe)
    for name, trial in trials.items():
        print(f"{name:32} {trial['auc_within']:.4f} ±{trial['sd']:.4f} {_rounded(trial['by_source'])}")
    report = {
        "recipe": recipe.name,
        "command": f"python -m dreamprm_trainer fit --recipe trainer/recipes/{recipe.path.name} --data DATA",
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "seconds": round(time.monotonic() - started, 1),
        "backbone": recipe.backbone,
        "settings": {**asdict(recipe.settings), "aggregation": recipe.aggregation},
        "files": loaded.files,
        "left_out": dict(loaded.left_out),
        "forms": sorted({problem_form(item.problem) for item in split.train.items}),
        "train": _contents(split.train),
        "held_out": {name: _contents(table) for name, table in split.held_out.items()},
        "ablations": trials,
    }
    _record(args, {"fit": report})
    save(args.checkpoint, head, recipe, report)


def evaluate(args: argparse.Namespace, recipe: Recipe) -> None:
    """Rank the held-out programs with the saved checkpoint, against the baselines."""
    from dreamprm_cli.aggregate import AGGREGATIONS, aggregate
    from dreamprm_trainer.checkpoint import load_head
    from dreamprm_trainer.evaluate import calibration, table
    from dreamprm_trainer.evaluate import evaluate as run
    from dreamprm_trainer.select import pools, rewards

    head = load_head(args.checkpoint, recipe)
    _, split = _split(args, recipe)
    ways = [recipe.aggregation, *(how for how in AGGREGATIONS if how != recipe.aggregation)]
    results = {}
    for name, held in split.held_out.items():
        steps = rewards(head, held, recipe.settings.layers, recipe.layers)
        result = run(pools(held, steps, ways, baselines=True), SIZES)
        whole = [aggregate(one, recipe.aggregation) for one in steps]
        result["calibration"] = calibration(whole, [item.passed for item in held.items])
        results[name] = result
        print(f"\n{name}\n{table(result)}\ncalibration error {result['calibration']['ece']:.3f}")
    _record(args, {"test" if args.test else "validation": results})


def cross(args: argparse.Namespace, recipe: Recipe) -> None:
    """Rank the training problems' programs, each by a head fitted without its problem, with the recipe's settings.

    The settings were chosen on the validation problems, so nothing was chosen or fitted on the problems ranked.
    """
    from dreamprm_cli.aggregate import AGGREGATIONS, aggregate
    from dreamprm_trainer.evaluate import calibration, table
    from dreamprm_trainer.evaluate import evaluate as run
    from dreamprm_trainer.features import open_cache
    from dreamprm_trainer.select import cross_fit, pools
    from dreamprm_trainer.tables import build

    loaded, split = _split(args, recipe)
    ways = [recipe.aggregation, *(how for how in AGGREGATIONS if how != recipe.aggregation)]
    results = {}
    for name in recipe.train:
        own = [item for item in loaded.items if item.split == "train" and item.source == name]
        drawn = build(own, open_cache(args.cache, recipe.backbone, recipe.layers))
        steps = cross_fit(split.train, drawn, recipe)
        result = run(pools(drawn, steps, ways, baselines=True), SIZES)
        result["calibration"] = calibration([aggregate(one, ways[0]) for one in steps], [i.passed for i in drawn.items])
        results[name] = result
        print(f"\n{name}\n{table(result)}\ncalibration error {result['calibration']['ece']:.3f}")
    _record(args, {"cross": results})


def card(args: argparse.Namespace, recipe: Recipe) -> None:
    """Write the model card from the recorded results."""
    from dreamprm_trainer.card import write

    write(args.checkpoint / "MODEL_CARD.md", json.loads(args.metrics.read_text(encoding="utf-8")), recipe)


def _record(args: argparse.Namespace, results: Mapping[str, Any]) -> None:
    known = json.loads(args.metrics.read_text(encoding="utf-8")) if args.metrics.exists() else {}
    args.metrics.parent.mkdir(parents=True, exist_ok=True)
    args.metrics.write_text(json.dumps({**known, **results}, indent=1) + "\n", encoding="utf-8")


def _contents(table: Any) -> dict[str, Any]:
    by_source: dict[str, Any] = {}
    for source in dict.fromkeys(item.source for item in table.items):
        items = [item for item in table.items if item.source == source]
        by_source[source] = {
            "problems": len({item.problem.id for item in items}),
            "programs": len(items),
            "steps": sum(step.scored for item in items for step in item.steps),
            "passed": round(sum(item.passed for item in items) / len(items), 4),
            "models": dict(Counter(item.model for item in items)),
        }
    return by_source


def _rounded(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


stages = {"features": features, "search": search, "fit": fit, "eval": evaluate, "cross": cross, "card": card}

if __name__ == "__main__":
    sys.exit(main())
