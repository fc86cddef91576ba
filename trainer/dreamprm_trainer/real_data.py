"""From labelled programs to the file of states and counts that `real.py` experiments on.

python -m dreamprm_trainer.real_data --problems PROBLEMS.jsonl.gz --labels LABELS.jsonl[.gz]
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


def make(problems: Path, labels: Path, out: Path) -> Steps:
    """Encode the programs of a label set (what the cache lacks) and write the file of their states and counts."""
    items = load([Source("real", str(problems), (str(labels),))], [Path()]).items
    cache = open_cache(cache_dir() / "features", BACKBONE, LAYERS)
    extract(items, cache)
    steps = steps_of(build((item for item in items if item.rollouts), cache), [LAYER], LAYERS)
    write(out, steps)
    return steps


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.real_data", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="labels.jsonl of `dreamprm train label`")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args(argv)
    try:
        steps = make(args.problems, args.labels, args.out)
        if not len(steps):
            raise ProblemError(f"{args.labels}: no program has rollouts of all of its inner prefixes")
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
