"""What training on repositories would mine and cost, before any of their code runs.

The rates are rough: tokens of a program, seconds of one and of mining a function are those of runs on humanize,
inflection and toolz with the 0.5B as policy and PRM, on a machine that was busy with other work; the rest is a guess.
Larger models take longer in proportion to the parameters that a token meets. What a label costs is taken from earlier
runs into the same folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm_cli.prm.checkpoint import load, resolve
from dreamprm_trainer.own.attempts import FOR_PROGRAMS
from dreamprm_trainer.own.options import Options
from dreamprm_trainer.problems import Row
from dreamprm_trainer.shapes import SHAPES, shape_of


@dataclass(frozen=True, slots=True)
class Rates:
    """tokens, label_s: of a program or rollout, written and graded; tested: tasks per function that tests name;
    mine_s: of mining a covered function; read_s: of reading a task's programs with the PRM."""

    tokens: float
    label_s: float
    tested: float
    mine_s: float
    read_s: float


ROUGH = Rates(tokens=155.0, label_s=7.0, tested=0.8, mine_s=3.0, read_s=8.0)


def estimate(options: Options) -> Row:
    """`{tasks, functions, covered, drawn, tests, measured, estimated: {rollouts, tokens, minutes, parts}, left_out}`,
    of all the repositories together. drawn: of the covered functions, those that are mined. A program counts as a
    rollout; minutes: of all four parts, `parts` of each.

    measured: they were mined here before; else tasks and covered are those that the text of the tests names. Raises
    ProblemError for nothing to mine.
    """
    each = [_one(repo, options.out / name, options.functions) for name, repo in options.named().items()]
    found: Row = {key: sum(one[key] for one in each) for key in ("tasks", "functions", "covered", "drawn", "tests")}
    found["measured"] = all(one["measured"] for one in each)
    found["estimated"] = cost(found["tasks"], found["drawn"], options, rates(options))
    found["left_out"] = [row for one in each for row in one["left_out"]]
    return found


def cost(tasks: int, drawn: int, options: Options, rate: Rates) -> Row:
    """Of mining `drawn` functions, and of labelling, fitting and judging by `tasks` of them."""
    budget = options.budget
    # Rollouts take the third of a budget that programs leave, as far as there are programs of several functions.
    rollouts = min(tasks * options.n / FOR_PROGRAMS, budget.rollouts(rate.tokens, rate.label_s))
    minutes = {
        "mine": drawn * rate.mine_s / 60,
        "label": rollouts * rate.label_s / 60,
        "fit and eval": tasks * rate.read_s / 60,
    }
    return {
        "rollouts": round(rollouts),
        "tokens": round(rollouts * rate.tokens),
        "minutes": round(sum(minutes.values()), 1),
        "parts": {name: round(value, 1) for name, value in minutes.items()},
    }


def rates(options: Options) -> Rates:
    """The rough ones for these models; what labels cost as it was in the runs into `out` so far, if there were any."""
    read_s = ROUGH.read_s * _times(load(resolve(options.prm)).backbone)
    spent = _json(options.out / "spent.json")
    if not spent.get("rollouts"):
        return replace(ROUGH, label_s=ROUGH.label_s * _times(options.policy), read_s=read_s)
    each = spent["rollouts"]
    return replace(ROUGH, tokens=spent["tokens"] / each, label_s=spent["minutes"] * 60 / each, read_s=read_s)


def _times(model: str) -> float:
    """How much longer a token takes than with the 0.5B; 1 for a model whose shape is not known."""
    shape = shape_of(model)
    return 1.0 if shape is None else shape.written / SHAPES["qwen2.5-coder-0.5b"].written


def _one(repo: Path, folder: Path, most: int | None) -> Row:
    from dreamprm_trainer.mine import pipeline
    from dreamprm_trainer.mine.repository import Repository

    with Repository(repo) as repository:
        kept = _json(folder / "report.json")
        covered = kept.get("covered") or 0
        # Mined here before, and as much of it as is asked for now.
        if kept.get("commit") == repository.sha and kept.get("drawn") == min(covered, most or covered):
            return {**kept, "tasks": kept["with_killing_test"], "measured": True}
        read = pipeline.read(repository)
        named = sum(one.name in read.named for one in read.fit)
        drawn = min(named, most or named)
        left_out = [{"name": name, "why": why} for name, why in (*repository.left_out, *read.left_out)]
        return {
            "tasks": round(ROUGH.tested * drawn), "functions": len(read.functions), "covered": named, "drawn": drawn,
            "tests": read.tests, "left_out": left_out, "measured": False,
        }  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
