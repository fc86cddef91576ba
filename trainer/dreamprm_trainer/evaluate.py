"""What a way of ranking programs is worth: best-of-n on graded pools, with intervals over problems.

Every number compares methods on the same programs. Best-of-n is the exact expectation over subsets of a pool, not one
draw. Intervals are paired bootstraps: problems are drawn with replacement, all methods see the same draw.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dreamprm_cli.aggregate import auc, best_of_n, pass_at_k, standing
from dreamprm_trainer.agreement import majority_of_n, votes
from dreamprm_trainer.data import Item
from dreamprm_trainer.paired import RESAMPLES, Doubles, bootstrap, interval, mcnemar

MAIN = "prm"  # the method that all others are compared with
WITH_LOGPROB = "prm+logprob"  # its rewards and the policy's mean log-probability: what `solve` ranks by
WEIGHTS = (0, 1, 2, 4, 8)  # of that log-probability, where one is to be chosen


@dataclass(frozen=True, slots=True)
class Pool:
    """The programs of one problem: who passed, and what each method says of them (same order).

    scores: a number for each program, the best highest; NaN ranks last. groups: of methods that choose by vote, the
    group of each program (see `agreement`).
    """

    problem: str
    passed: tuple[bool, ...]
    scores: Mapping[str, tuple[float, ...]]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        return [*self.scores, *self.groups]

    def keys(self, method: str) -> tuple[float, ...]:
        """What the whole pool is ranked by."""
        return self.scores[method] if method in self.scores else votes(self.groups[method])

    def best(self, method: str, n: int) -> float:
        """Exact expected pass rate of the program that is chosen out of n drawn."""
        if method in self.groups:
            return majority_of_n(self.groups[method], self.passed, n)
        return best_of_n(self.scores[method], self.passed, n)


def sizes_of(pools: Sequence[Pool], powers: Sequence[int] = (1, 2, 4, 8, 16)) -> list[int]:
    """The n that best-of-n is told for: `powers` up to the largest pool, and the size that half of the pools reach."""
    counts = sorted(len(pool.passed) for pool in pools)
    return sorted({*(n for n in powers if n <= counts[-1]), counts[len(counts) // 2]}) if counts else []


def baseline_scores(item: Item) -> dict[str, float]:
    """Scores that need no reward model."""
    whole = item.finish_reason == "stop" and parses(item.code)
    return {
        "random": 0.0,
        "parses-and-finished": float(whole),
        "shortest": -float(len(item.code)),
        "logprob": item.mean_logprob,
    }


def baseline_columns(items: Sequence[Item]) -> dict[str, list[float]]:
    """The baselines' scores along `items`; mean log-probability only where it is known of every program."""
    rows = [baseline_scores(item) for item in items]
    names = list(rows[0]) if rows else []
    known = not any(math.isnan(row["logprob"]) for row in rows)
    return {name: [row[name] for row in rows] for name in names if known or name != "logprob"}


def with_logprob(rewards: Sequence[float], items: Sequence[Item], weight: float) -> dict[str, list[float]]:
    """The column WITH_LOGPROB; none where the weight is 0 or the log-probability of a program is not known."""
    if not weight or any(math.isnan(item.mean_logprob) for item in items):
        return {}
    return {
        WITH_LOGPROB: [standing(reward, item.mean_logprob, weight) for reward, item in zip(rewards, items, strict=True)]
    }


def by_weight(rewards: Sequence[float], items: Sequence[Item]) -> dict[str, float]:
    """AUC within problems by the reward with each of WEIGHTS times the log-probability beside it.

    Empty where the log-probability of a program is not known, or no problem has passing and failing programs.
    """
    columns = {"0": list(rewards)}
    for weight in WEIGHTS[1:]:
        columns |= {f"{weight}": column for column in with_logprob(rewards, items, weight).values()}
    pools = pools_of(items, columns)
    if len(columns) < len(WEIGHTS) or not _mixed(pools):
        return {}
    return {name: float(within_aucs(pools, name).mean()) for name in columns}


def pools_of(
    items: Sequence[Item],
    scores: Mapping[str, Sequence[float]],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> list[Pool]:
    """A pool for each problem, in the order of the items; scores and groups run along them."""
    members: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        members.setdefault(item.problem.id, []).append(index)
    return [
        Pool(
            problem,
            tuple(items[index].passed for index in own),
            {name: tuple(values[index] for index in own) for name, values in scores.items()},
            {name: tuple(values[index] for index in own) for name, values in (groups or {}).items()},
        )
        for problem, own in members.items()
    ]


def parses(code: str) -> bool:
    """Whether the text is valid Python (it is read, never run)."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(code.strip())


def evaluate(
    pools: Sequence[Pool],
    sizes: Sequence[int],
    resamples: int = RESAMPLES,
    seed: int = 0,
    probabilities: Collection[str] = (),
) -> dict[str, Any]:
    """Metrics of all methods, with the keys of `dreamprm bench --json`.

    For each n only problems with at least n programs count (`problems_with`); pass@1 and the oracle are taken on the
    same ones. `best_of_n[method][n]` has solved_rate, solved (problems, expected), recovered_gap, ci95 (of
    solved_rate), gap_ci95, and `over`: the difference in solved_rate to `prm` and to `random` (of `prm` and
    `prm+logprob`: to every other method) with its interval. `mcnemar[method]` compares the programs that `prm` and the
    method choose out of all of each problem's. probabilities: methods whose scores claim to be some; `calibration` is
    of these.
    """
    methods = pools[0].methods if pools else []
    result: dict[str, Any] = {
        "problems": len(pools),
        "candidates": sum(len(pool.passed) for pool in pools),
        "mixed_problems": len(_mixed(pools)),
        "pass@1": _mean([pass_at_k(len(pool.passed), sum(pool.passed), 1) for pool in pools]),
        "problems_with": {},
        "oracle": {},
        "best_of_n": {method: {} for method in methods},
        "auc": {},
        "auc_within": {},
        "calibration": {},
        "mcnemar": {},
    }
    draw = np.random.default_rng(seed)
    for n in sizes:
        large = [pool for pool in pools if len(pool.passed) >= n]
        if not large:
            continue
        result["problems_with"][str(n)] = len(large)
        result["oracle"][str(n)] = float(np.mean([pass_at_k(len(p.passed), sum(p.passed), n) for p in large]))
        for method, row in _best(large, methods, n, bootstrap(len(large), resamples, draw)).items():
            result["best_of_n"][method][str(n)] = row
    passed = [label for pool in pools for label in pool.passed]
    for method in methods:
        keys = [key for pool in pools for key in pool.keys(method)]
        result["auc"][method] = _number(auc(keys, passed))
        if method in probabilities:
            result["calibration"][method] = calibration(keys, passed)
    result["auc_within"] = _within(pools, methods, draw, resamples)
    if MAIN in methods:
        chosen = picks(pools, methods, seed)
        result["mcnemar"] = {m: asdict(mcnemar(chosen[MAIN], chosen[m])) for m in methods if m != MAIN}
    return result


def _best(pools: Sequence[Pool], methods: Sequence[str], n: int, shares: Doubles) -> dict[str, dict[str, Any]]:
    """Best-of-n of each method. shares: (resamples, problems), see `bootstrap`."""
    each = np.array([[pool.best(method, n) for method in methods] for pool in pools])  # (P, M)
    base = np.array([pass_at_k(len(pool.passed), sum(pool.passed), 1) for pool in pools])
    oracle = np.array([pass_at_k(len(pool.passed), sum(pool.passed), n) for pool in pools])
    means = shares @ each  # (R, M)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = (means - (shares @ base)[:, None]) / (shares @ (oracle - base))[:, None]
        gap = (each.mean(0) - base.mean()) / (oracle.mean() - base.mean())
    rows: dict[str, dict[str, Any]] = {}
    for column, method in enumerate(methods):
        others = methods if method in (MAIN, WITH_LOGPROB) else [name for name in (MAIN, "random") if name in methods]
        rows[method] = {
            "solved_rate": float(each[:, column].mean()),
            "solved": float(each[:, column].sum()),
            "ci95": interval(means[:, column]),
            "recovered_gap": _number(float(gap[column])),
            "gap_ci95": interval(gaps[:, column]),
            "over": {
                other: {
                    "difference": float((each[:, column] - each[:, methods.index(other)]).mean()),
                    "ci95": interval(means[:, column] - means[:, methods.index(other)]),
                }
                for other in others
                if other != method
            },
        }
    return rows


def picks(pools: Sequence[Pool], methods: Sequence[str], seed: int = 0) -> dict[str, list[bool]]:
    """Whether the program that each method puts first out of all of a problem's passes, problem by problem.

    Ties are broken by one random order of the programs, the same for all methods.
    """
    draw = np.random.default_rng(seed)
    chosen: dict[str, list[bool]] = {method: [] for method in methods}
    for pool in pools:
        order = draw.permutation(len(pool.passed)).tolist()
        for method in methods:
            keys = [-math.inf if math.isnan(key) else key for key in pool.keys(method)]
            chosen[method].append(pool.passed[max(order, key=keys.__getitem__)])
    return chosen


def _within(
    pools: Sequence[Pool], methods: Sequence[str], draw: np.random.Generator, resamples: int
) -> dict[str, dict[str, Any]]:
    """AUC within problems by method: the mean over those with passing and failing programs."""
    if not _mixed(pools):
        return {method: {"value": None, "ci95": [None, None]} for method in methods}
    each = np.array([within_aucs(pools, method) for method in methods]).T  # (mixed problems, M)
    means = bootstrap(len(each), resamples, draw) @ each
    return {
        method: {"value": float(each[:, column].mean()), "ci95": interval(means[:, column])}
        for column, method in enumerate(methods)
    }


def _mixed(pools: Sequence[Pool]) -> list[Pool]:
    return [pool for pool in pools if 0 < sum(pool.passed) < len(pool.passed)]


def within_aucs(pools: Sequence[Pool], method: str) -> Doubles:
    """AUC in each problem that has both passing and failing programs."""
    return np.array([auc(pool.keys(method), pool.passed) for pool in _mixed(pools)])


def calibration(rewards: Sequence[float], passed: Sequence[bool], bins: int = 10) -> dict[str, Any]:
    """Expected calibration error over equal-width bins, and the reliability curve (mean reward, pass rate, count)."""
    pairs = [(r, y) for r, y in zip(rewards, passed, strict=True) if not math.isnan(r)]
    curve, error = [], 0.0
    for number in range(bins):
        inside = [(r, y) for r, y in pairs if min(int(r * bins), bins - 1) == number]
        if inside:
            reward = sum(r for r, _ in inside) / len(inside)
            rate = sum(y for _, y in inside) / len(inside)
            error += len(inside) / len(pairs) * abs(reward - rate)
            curve.append([round(reward, 4), round(rate, 4), len(inside)])
    return {"ece": error if pairs else None, "curve": curve}


def _mean(values: Sequence[float]) -> float | None:
    return _number(sum(values) / len(values)) if values else None


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def table(result: Mapping[str, Any], baseline: str = "random") -> str:
    """The metrics as a plain table, a row a method."""
    sizes = list(result["oracle"])
    lines = [
        f"{result['problems']} problems ({result['mixed_problems']} with passing and failing programs), "
        f"{result['candidates']} programs, pass@1 {result['pass@1']:.3f}, oracle "
        + ", ".join(f"{result['oracle'][n]:.3f}@{n}" for n in sizes),
        f"{'method':20} {'AUC within':>20} {'AUC':>6}" + "".join(f"{f'best of {n}':>24}{'gap':>6}" for n in sizes),
    ]
    for method, by_size in result["best_of_n"].items():
        within = result["auc_within"][method]
        row = f"{method:20} {_cell(within['value'], within['ci95']):>20} {_short(result['auc'][method]):>6}"
        for n in sizes:
            one = by_size[n]
            row += f"{_cell(one['solved_rate'], one['ci95']):>24}{_short(one['recovered_gap'], 2):>6}"
        lines.append(row)
    return "\n".join(lines)


def _cell(value: float | None, interval: Sequence[float | None]) -> str:
    return f"{_short(value)} [{_short(interval[0])}, {_short(interval[1])}]"


def _short(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
