"""What a way of ranking programs is worth: best-of-n on graded pools, with intervals over problems.

Every number compares methods on the same programs. Best-of-n is the exact expectation over subsets of a pool, not one
draw. Intervals are paired bootstraps: problems are drawn with replacement, all methods see the same draw.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.aggregate import auc, best_of_n, pass_at_k
from dreamprm_trainer.data import Item

Doubles = NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pool:
    """The programs of one problem: who passed, and each method's scores (same order). NaN ranks last."""

    problem: str
    passed: tuple[bool, ...]
    scores: Mapping[str, tuple[float, ...]]


def baseline_scores(item: Item) -> dict[str, float]:
    """Scores that need no reward model."""
    whole = item.finish_reason == "stop" and parses(item.code)
    return {
        "random": 0.0,
        "parses-and-finished": float(whole),
        "shortest": -float(len(item.code)),
        "logprob": item.mean_logprob,
    }


def parses(code: str) -> bool:
    """Whether the text is valid Python (it is read, never run)."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(code.strip())


def evaluate(pools: Sequence[Pool], sizes: Sequence[int], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Metrics of all methods, with the keys of `dreamprm bench --json`.

    For each n only problems with at least n programs count; pass@1 and the oracle are taken on the same ones.
    `best_of_n[method][n]` has solved_rate, recovered_gap, ci95 (of solved_rate), gap_ci95, and `over`: the difference
    in solved_rate to each other baseline with its interval.
    """
    methods = list(pools[0].scores) if pools else []
    result: dict[str, Any] = {
        "problems": len(pools),
        "candidates": sum(len(pool.passed) for pool in pools),
        "mixed_problems": sum(0 < sum(pool.passed) < len(pool.passed) for pool in pools),
        "pass@1": _mean([pass_at_k(len(pool.passed), sum(pool.passed), 1) for pool in pools]),
        "oracle": {},
        "best_of_n": {method: {} for method in methods},
        "auc": {},
        "auc_within": {},
    }
    draw = np.random.default_rng(seed)
    for n in sizes:
        large = [pool for pool in pools if len(pool.passed) >= n]
        if not large:
            continue
        base = np.array([pass_at_k(len(pool.passed), sum(pool.passed), 1) for pool in large])
        oracle = np.array([pass_at_k(len(pool.passed), sum(pool.passed), n) for pool in large])
        best = {m: np.array([best_of_n(pool.scores[m], pool.passed, n) for pool in large]) for m in methods}
        drawn = draw.integers(0, len(large), (resamples, len(large)))
        result["oracle"][str(n)] = float(oracle.mean())
        for method in methods:
            result["best_of_n"][method][str(n)] = _one(method, best, base, oracle, drawn)
    for method in methods:
        scores = [score for pool in pools for score in pool.scores[method]]
        labels = [label for pool in pools for label in pool.passed]
        result["auc"][method] = _number(auc([-math.inf if math.isnan(s) else s for s in scores], labels))
        result["auc_within"][method] = _within(pools, method, draw, resamples)
    return result


def _one(method: str, best: Mapping[str, Doubles], base: Doubles, oracle: Doubles, drawn: Any) -> dict[str, Any]:
    own = best[method]
    means, bases, oracles = own[drawn].mean(1), base[drawn].mean(1), oracle[drawn].mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = (means - bases) / (oracles - bases)
        gap = (own.mean() - base.mean()) / (oracle.mean() - base.mean())
    over = {
        other: {"difference": float((own - values).mean()), "ci95": _interval((own - values)[drawn].mean(1))}
        for other, values in best.items()
        if other != method
    }
    return {
        "solved_rate": float(own.mean()),
        "ci95": _interval(means),
        "recovered_gap": _number(float(gap)),
        "gap_ci95": _interval(gaps),
        "over": over,
    }


def _within(pools: Sequence[Pool], method: str, draw: np.random.Generator, resamples: int) -> dict[str, Any]:
    """AUC within problems: the mean over those with passing and failing programs."""
    values = within_aucs(pools, method)
    if not len(values):
        return {"value": None, "ci95": [None, None]}
    drawn = draw.integers(0, len(values), (resamples, len(values)))
    return {"value": float(values.mean()), "ci95": _interval(values[drawn].mean(1))}


def within_aucs(pools: Sequence[Pool], method: str) -> Doubles:
    """AUC in each problem that has both passing and failing programs."""
    each = [
        auc([-math.inf if math.isnan(s) else s for s in pool.scores[method]], pool.passed)
        for pool in pools
        if 0 < sum(pool.passed) < len(pool.passed)
    ]
    return np.array(each)


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


def _interval(values: Doubles) -> list[float | None]:
    values = values[np.isfinite(values)]
    if not len(values):
        return [None, None]
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


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
