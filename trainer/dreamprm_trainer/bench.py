"""A bench: one pool of programs, ranked by everything there is, every method measured on the same problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamprm_cli.aggregate import AGGREGATIONS, aggregate
from dreamprm_cli.errors import SandboxUnavailable
from dreamprm_cli.store import write_atomic
from dreamprm_cli.training import Tell, silent
from dreamprm_trainer import figures
from dreamprm_trainer.agreement import NONE
from dreamprm_trainer.candidates import Candidates, agreement
from dreamprm_trainer.data import Item
from dreamprm_trainer.evaluate import MAIN, baseline_columns, evaluate, pools_of, sizes_of, with_logprob
from dreamprm_trainer.paired import RESAMPLES
from dreamprm_trainer.rankers import Ranker, Rewards, score

MAJORITY = "majority"
BASELINES = ("random", "parses-and-finished", "shortest", "logprob", MAJORITY)


def bench(
    candidates: Candidates,
    rankers: Sequence[Ranker],
    features: Path,
    verdicts: Path,
    seed: int = 0,
    tell: Tell = silent,
) -> dict[str, Any]:
    """The result of `dreamprm bench --json`, but for what only the command knows (schema, duration).

    candidates: graded ones. features: folder of cached states; verdicts: file of what the sandbox has told already.
    """
    items = candidates.items
    scores = columns(rankers, score(rankers, items, features, tell), items) | baseline_columns(items)
    groups: dict[str, list[int]] = {}
    skipped: dict[str, str] = {}
    left_out = dict(candidates.left_out)
    if "logprob" not in scores:
        skipped["logprob"] = "the pool does not tell mean_logprob of every program"
    try:
        found, silent = agreement(candidates, verdicts)
    except SandboxUnavailable as error:
        skipped[MAJORITY] = f"{error.message} ({error.hint})" if error.hint else error.message
    else:
        if silent:
            left_out["problems whose tests' inputs cannot be told apart: no votes"] = silent
        if any(group != NONE for group in found):
            groups[MAJORITY] = found
        else:
            skipped[MAJORITY] = "no program gives results on its tests' inputs alone"
    pools = pools_of(items, scores, groups)
    result = evaluate(pools, sizes_of(pools), seed=seed, probabilities=[ranker.name for ranker in rankers])
    main = next((ranker for ranker in rankers if ranker.name == MAIN), None)
    return {
        **result,
        "prm": str(main.folder) if main else None,
        "aggregation": main.checkpoint.aggregation if main else None,
        "rivals": {ranker.name: str(ranker.folder) for ranker in rankers if ranker is not main},
        "skipped": skipped,
        "left_out": left_out,
        "files": dict(candidates.files),
        "seed": seed,
        "resamples": RESAMPLES,
        "usage": {"input_tokens": None, "output_tokens": 0},  # what is cached already is not read again
    }


def columns(rankers: Sequence[Ranker], rewards: Mapping[str, Rewards], items: Sequence[Item]) -> dict[str, list[float]]:
    """A reward for each program by each ranker, aggregated as its checkpoint says; by the reward model in all ways, and
    with the policy's log-probability as `solve` ranks."""
    found: dict[str, list[float]] = {}
    for ranker in rankers:
        own = ranker.checkpoint.aggregation
        found[ranker.name] = [aggregate(steps, own) for steps in rewards[ranker.name]]
        if ranker.name == MAIN:
            found |= with_logprob(found[MAIN], items, ranker.checkpoint.logprob_weight)
            others = [how for how in AGGREGATIONS if how != own]
            found |= {f"{MAIN}, {how}": [aggregate(steps, how) for steps in rewards[MAIN]] for how in others}
    return found


def save(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the result as JSON, its curves and its reliability as SVG and PNG; the files. An adherence report has
    no pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    ranked = "best_of_n" in result
    path = folder / ("bench.json" if ranked else "adherence.json")
    write_atomic(path, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    written = [path]
    if ranked:
        written += figures.curves(result, folder / "curves")
    if result.get("calibration"):
        written += figures.reliability(result, folder / "reliability")
    return written
