"""What training on repositories would mine and cost, before any of their code runs."""

from __future__ import annotations

import json
from pathlib import Path

from dreamprm_trainer.own.options import Options
from dreamprm_trainer.problems import Row

_TOKENS = 130  # ours: of a program, the mean of the 0.5B's over three packages' functions
_TOKENS_S = 25.0  # ours: a processor core, the default policy
_TEST_S = 1.5  # ours: of grading a program
_DESCRIBED = 0.8  # ours: share of the functions that tests name which become tasks


def estimate(options: Options) -> Row:
    """`{tasks, functions, covered, tests, measured, estimated: {rollouts, tokens, minutes}, left_out}`, of all the
    repositories together. measured: they were mined here before; else tasks and covered are those that the text of
    the tests names. Raises ProblemError for nothing to mine."""
    each = [_one(repo, options.out / name) for name, repo in options.named().items()]
    found: Row = {key: sum(one[key] for one in each) for key in ("tasks", "functions", "covered", "tests")}
    found["measured"] = all(one["measured"] for one in each)
    rollouts = float(found["tasks"] * options.n)
    budget = options.budget
    if budget.unit == "rollouts":
        rollouts = min(rollouts, budget.amount)
    if budget.unit == "tokens":
        rollouts = min(rollouts, budget.amount / _TOKENS)
    each_s = _TOKENS / _TOKENS_S + _TEST_S
    if budget.unit == "minutes":
        rollouts = min(rollouts, budget.amount * 60 / each_s)
    found["estimated"] = {
        "rollouts": round(rollouts),
        "tokens": round(rollouts * _TOKENS),
        "minutes": round(rollouts * each_s / 60, 1),
    }
    found["left_out"] = [row for one in each for row in one["left_out"]]
    return found


def _one(repo: Path, folder: Path) -> Row:
    from dreamprm_trainer.mine import pipeline
    from dreamprm_trainer.mine.repository import Repository

    with Repository(repo) as repository:
        try:
            kept = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        if kept.get("commit") == repository.sha and kept.get("with_killing_test") is not None:
            return {**kept, "tasks": kept["with_killing_test"], "covered": kept["covered"] or 0, "measured": True}
        read = pipeline.read(repository)
        named = sum(one.name in read.named for one in read.fit)
        left_out = [{"name": name, "why": why} for name, why in (*repository.left_out, *read.left_out)]
        return {
            "tasks": round(_DESCRIBED * named), "functions": len(read.functions), "covered": named,
            "tests": read.tests, "left_out": left_out, "measured": False,
        }  # fmt: skip
