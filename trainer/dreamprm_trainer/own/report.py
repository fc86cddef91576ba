"""What the new PRM is worth on held-out functions, beside the shipped one, and whether it takes its place.

Two pools of the same functions: the policy's own attempts (what `solve` ranks), and with them the repository's bodies
and the wrong ones that its tests refuse. The gate, on functions with right and wrong programs:

1. there are at least six of them (of fewer not even all, one way, would be significant in a sign test);
2. the AUC within functions, on all programs, is above that of the shipped PRM with the whole 95 % interval of the
   paired difference (bootstrap over functions);
3. on the attempts alone, of at least three functions, it is not below: a head that has only learned what a mutant looks
   like is no better for `solve`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm_cli.aggregate import aggregate
from dreamprm_cli.errors import ProblemError
from dreamprm_cli.training import Tell
from dreamprm_trainer import stages
from dreamprm_trainer.data import Item
from dreamprm_trainer.evaluate import MAIN, baseline_columns, evaluate, pools_of, sizes_of, within_aucs
from dreamprm_trainer.paired import RESAMPLES, bootstrap, interval
from dreamprm_trainer.problems import Row
from dreamprm_trainer.rankers import open_rankers, score
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.stages import Place

SHIPPED = "shipped"
LEAST = 6  # held-out functions with right and wrong programs; two-sided, 2 / 2**6 < 0.05
LEAST_TRIED = 3  # of them with right and wrong attempts of the policy
RULE = (
    f"at least {LEAST} held-out functions with right and wrong programs; on all of these programs the 95 % interval of "
    "the difference in AUC within functions lies above 0; on the policy's own attempts the difference is not below 0, "
    f"and at least {LEAST_TRIED} functions have right and wrong ones"
)
_OWN = "repository"  # the model of programs that mining made


def compare(recipe: Recipe, place: Place, shipped: str, tell: Tell) -> Row:
    """`{attempts, all, difference, attempts_difference, by_repository, better, why, rule}`; the first two as
    `evaluate.evaluate` says. Raises ProblemError."""
    held = stages.held_out(recipe, stages.loaded(recipe, replace(place, test=True)))
    items = [item for some in held.values() for item in some]
    if not items:
        raise ProblemError("no held-out function has a graded program", "give a larger --budget")
    rankers = open_rankers(str(place.checkpoint), {SHIPPED: shipped})
    rewards = score(rankers, items, place.cache, tell)
    scores = {
        ranker.name: [aggregate(steps, ranker.checkpoint.aggregation) for steps in rewards[ranker.name]]
        for ranker in rankers
    }
    return judged(items, scores)


def judged(items: Sequence[Item], scores: Mapping[str, Sequence[float]]) -> Row:
    """As `compare`, of scores along `items` by MAIN and SHIPPED."""
    attempts, own = _only(items, scores, _attempted)
    whole, part = difference(items, scores), difference(attempts, own)
    better, why = gate(whole, part)
    return {
        "attempts": _measured(attempts, own) if attempts else None,
        "all": _measured(items, scores),
        "difference": whole,
        "attempts_difference": part,
        "by_repository": {name: _alone(items, scores, name) for name in sorted({item.source for item in items})},
        "better": better,
        "why": why,
        "rule": RULE,
    }


def _alone(items: Sequence[Item], scores: Mapping[str, Sequence[float]], repository: str) -> Row:
    theirs = _only(items, scores, lambda item: item.source == repository)
    return {
        "difference": difference(*theirs),
        "attempts_difference": difference(*_only(*theirs, _attempted)),
    }


def _only(
    items: Sequence[Item], scores: Mapping[str, Sequence[float]], wanted: Callable[[Item], bool]
) -> tuple[list[Item], dict[str, list[float]]]:
    kept = [number for number, item in enumerate(items) if wanted(item)]
    return [items[number] for number in kept], {
        name: [values[number] for number in kept] for name, values in scores.items()
    }


def _attempted(item: Item) -> bool:
    return item.model != _OWN


def _measured(items: Sequence[Item], scores: Mapping[str, Sequence[float]]) -> Row:
    pools = pools_of(items, {**scores, **baseline_columns(items)})
    return evaluate(pools, sizes_of(pools), probabilities=[MAIN, SHIPPED])


def difference(items: Sequence[Item], scores: Mapping[str, Sequence[float]], seed: int = 0) -> Row:
    """`{value, ci95, functions}`: AUC within functions, new less shipped, over those with right and wrong programs."""
    pools = pools_of(items, {name: scores[name] for name in (MAIN, SHIPPED)})
    each = within_aucs(pools, MAIN) - within_aucs(pools, SHIPPED)
    if not len(each):
        return {"value": None, "ci95": [None, None], "functions": 0}
    ends = interval(bootstrap(len(each), RESAMPLES, np.random.default_rng(seed)) @ each)
    return {"value": float(each.mean()), "ci95": ends, "functions": len(each)}


def gate(whole: Row, attempts: Row) -> tuple[bool, str]:
    """(whether the new PRM takes the shipped one's place, why), given `difference` on all programs and on attempts."""
    if whole["functions"] < LEAST:
        return False, f"only {_have(whole['functions'])} right and wrong programs; {LEAST} are needed"
    if whole["ci95"][0] <= 0:
        return False, "not shown to be better on held-out functions"
    if attempts["functions"] < LEAST_TRIED:
        return False, (
            f"better with the repository's bodies, but only {_have(attempts['functions'])} right and wrong attempts of "
            f"the policy; {LEAST_TRIED} are needed"
        )
    if attempts["value"] < 0:
        return False, "better with the repository's bodies, and worse on the policy's own attempts"
    return True, "better on held-out functions"


def _have(functions: int) -> str:
    return "1 held-out function has" if functions == 1 else f"{functions} held-out functions have"


def write(found: Row, folder: Path) -> None:
    """`report.json` and `report.md`."""
    for name, text in (("report.json", json.dumps(found, indent=1) + "\n"), ("report.md", page(found))):
        scratch = folder / f".{name}.{os.getpid()}"
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(folder / name)


def page(found: Row) -> str:
    """The report in Markdown."""
    names = ", ".join(found["repositories"])
    lines = [f"# A reward model for {names}", "", f"**{conclusion(found)}**", ""]
    for name, mined in found["repositories"].items():
        parts = ", ".join(f"{count} {part}" for part, count in mined["splits"].items())
        lines.append(
            f"- {name} at {mined['commit'][:12]}: {mined['functions']} functions, {mined['covered']} covered by "
            f"{mined['tests']} tests that pass twice; {mined['tasks']} tasks ({parts}), {mined['with_killing_test']} "
            f"with a test that notices a wrong body, {mined['negatives']} wrong bodies"
        )
    labels, spent = found["labels"], found["spent"]
    lines += [
        f"- {found['policy']}: {labels['programs']:,} attempts at {labels['problems']:,} functions, "
        f"{labels['passed']:,} of them right; {labels['labelled_steps']:,} steps with labels, "
        f"{labels['rolled_out_steps']:,} of them from rollouts; {spent['minutes']:g} minutes, "
        f"{spent['tokens']:,.0f} tokens",
        f"- trained on {_counted(found['train'])}",
        f"- the rule: {found['rule']}",
        *(_alone_told(name, one) for name, one in found["by_repository"].items() if len(found["by_repository"]) > 1),
        "",
    ]
    titles = {"attempts": "The policy's own attempts", "all": "With the repository's bodies and refused ones"}
    for key, title in titles.items():
        if found[key] is not None:
            lines += [f"## {title}", "", *_table(found[key]), ""]
    lines += [
        "All of it on functions of the held-out part. Intervals are 95 %, paired bootstraps over functions; best-of-n "
        "is an exact expectation.",
        "",
    ]
    out = [(one["name"], one["why"]) for mined in found["repositories"].values() for one in mined["left_out"]]
    if out:
        lines += ["## Left out", "", *(f"- `{name}`: {_short(why)}" for name, why in out[:_MOST_LINES])]
        lines += [f"- and {len(out) - _MOST_LINES} more, in the mining's report"] * (len(out) > _MOST_LINES)
    return "\n".join(lines) + "\n"


def _alone_told(name: str, one: Row) -> str:
    whole, attempts = _difference_told(one["difference"]), _difference_told(one["attempts_difference"])
    return f"- on {name} alone: {whole}; on attempts {attempts}"


def _difference_told(one: Row) -> str:
    """`AUC +0.089 [+0.028, +0.154], 46 functions`."""
    if one["value"] is None:
        return "no function with right and wrong programs"
    low, high = one["ci95"]
    functions = "1 function" if one["functions"] == 1 else f"{one['functions']} functions"
    return f"AUC {one['value']:+.3f} [{low:+.3f}, {high:+.3f}], {functions}"


def _counted(train: Mapping[str, Row]) -> str:
    programs, steps = (sum(one[key] for one in train.values()) for key in ("programs", "steps"))
    return f"{programs:,} programs ({steps:,} steps) of {sum(one['problems'] for one in train.values()):,} functions"


_MOST_LINES = 40
_TITLES = {MAIN: "new PRM", SHIPPED: "shipped PRM", "logprob": "mean log-probability"}


def _table(result: Row) -> list[str]:
    sizes = list(result["oracle"])
    lines = [
        f"{result['problems']} functions, {result['mixed_problems']} of them with right and wrong programs; "
        f"{result['candidates']} programs, pass@1 {result['pass@1']:.3f}, oracle "
        + ", ".join(f"{result['oracle'][n]:.3f} at {n}" for n in sizes),
        "",
        "| method | AUC within functions | AUC | " + " | ".join(f"best of {n}" for n in sizes) + " |",
        "|---|---|---|" + "---|" * len(sizes),
    ]
    for method, by_size in result["best_of_n"].items():
        within = result["auc_within"][method]
        cells = [_cell(within["value"], within["ci95"]), _number(result["auc"][method])]
        cells += [_cell(by_size[n]["solved_rate"], by_size[n]["ci95"]) for n in sizes]
        lines.append(f"| {_TITLES.get(method, method)} | " + " | ".join(cells) + " |")
    functions = ", ".join(f"{result['problems_with'][n]} with {n}" for n in sizes)
    return [*lines, "", f"Functions with so many programs: {functions}."]


def conclusion(found: Row) -> str:
    """One sentence."""
    difference = found["difference"]
    told = "" if difference["value"] is None else f" ({_difference_told(difference)})"
    if not found["better"]:
        return f"The shipped PRM stays the default: {found['why']}{told}."
    where = ", ".join(found.get("adopted_in") or ())
    return f"The new PRM is {found['why']}{told}" + (f"; it is the default by {where}." if where else ".")


def _cell(value: float | None, ends: Sequence[float | None]) -> str:
    return f"{_number(value)} [{_number(ends[0])}, {_number(ends[1])}]"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(text: str) -> str:
    return " ".join(text.split())[:160].replace("|", "\\|")
