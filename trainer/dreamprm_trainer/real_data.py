"""From labelled programs to the file of states and counts that `real.py` experiments on.

python -m dreamprm_trainer.real_data --problems PROBLEMS.jsonl.gz --labels LABELS.jsonl[.gz]
python -m dreamprm_trainer.real_data --recipe RECIPE.toml --data DATA    # all training sources, as far as rolled out
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamprm_cli.errors import DreamPRMError, ProblemError
from dreamprm_cli.models import cache_dir
from dreamprm_trainer.data import Item, Source, load
from dreamprm_trainer.features import extract, open_cache
from dreamprm_trainer.labels import Steps, counted_steps
from dreamprm_trainer.real import FILE, write
from dreamprm_trainer.recipe import find_recipe, read_recipe
from dreamprm_trainer.tables import Table, build

BACKBONE = "qwen2.5-coder-0.5b"
LAYER = 20
LAYERS = (8, 12, 14, 16, 18, 20, 22, 24)  # what the default recipe caches


def steps_of(table: Table, layers: Sequence[int], cached: Sequence[int]) -> Steps:
    """Steps of the programs all of whose inner prefixes were rolled out; the last step has its program's outcome."""
    whole = [all(item.rollouts[n] for n in scored_steps(item)[:-1]) for item in table.items]
    return counted_steps(table, layers, cached).only(np.array(whole, bool)[table.program])


def scored_steps(item: Item) -> list[int]:
    return [number for number, step in enumerate(item.steps) if step.scored]


def of_labels(problems: Path, labels: Path) -> list[Item]:
    """The programs of one label set."""
    return load([Source("real", str(problems), (str(labels),))], [Path()]).items


def of_recipe(name: str, data: Path) -> list[Item]:
    """The training programs of a recipe."""
    recipe = read_recipe(find_recipe(name))
    sources = [source for source in recipe.sources if source.name in recipe.train]
    loaded = load(sources, [recipe.folder, data], recipe.reference)
    return [item for item in loaded.items if item.split == "train"]


def make(items: Sequence[Item], out: Path) -> Steps:
    """Encode programs that have counts (what the cache lacks) and write the file of their states and counts."""
    counted = [item for item in items if item.rollouts]
    cache = open_cache(cache_dir() / "features", BACKBONE, LAYERS)
    extract(counted, cache)
    steps = steps_of(build(counted, cache), [LAYER], LAYERS)
    write(out, steps)
    return steps


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.real_data", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--labels", type=Path, help="labels.jsonl of `dreamprm train label`")
    parser.add_argument("--recipe", help="instead of both: the training programs of a recipe")
    parser.add_argument("--data", type=Path, default=Path(), help="with --recipe: the folder of its problems")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args(argv)
    if not args.recipe and not (args.problems and args.labels):
        parser.error("--problems and --labels, or --recipe")
    try:
        items = of_recipe(args.recipe, args.data) if args.recipe else of_labels(args.problems, args.labels)
        steps = make(items, args.out)
        if not len(steps):
            raise ProblemError(f"{args.recipe or args.labels}: no program has rollouts of all of its inner prefixes")
    except DreamPRMError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    inner = int((~steps.last).sum())
    print(
        f"{len(np.unique(steps.problem))} problems, {int(steps.last.sum())} programs, {inner} inner steps",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
