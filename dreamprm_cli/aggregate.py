"""From step rewards to one reward, and from graded pools to pass@k, best-of-n and the recovered gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

_EPS = 1e-6


def _log_odds(rewards: Sequence[float]) -> float:
    """Mean of logit(r), mapped back to [0, 1]: certain steps count for more than in the plain mean."""
    logits = [math.log(max(r, _EPS)) - math.log(max(1 - r, _EPS)) for r in rewards]
    return 1 / (1 + math.exp(-sum(logits) / len(logits)))


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda rewards: sum(rewards) / len(rewards),  # the paper's choice
    "min": min,
    "last": lambda rewards: rewards[-1],
    "product": math.prod,
    "log-odds": _log_odds,
}


def aggregate(step_rewards: Sequence[float], how: str = "mean") -> float:
    """One reward in [0, 1] from the rewards of a program's steps; steps that are NaN (not scored) are left out.

    NaN when no step was scored. Raises KeyError for an unknown aggregation.
    """
    function = AGGREGATIONS[how]
    scored = [r for r in step_rewards if not math.isnan(r)]
    return function(scored) if scored else math.nan


def standing(reward: float, mean_logprob: float, weight: float) -> float:
    """What programs are ranked by: the reward's log-odds, and `weight` times the policy's mean log-probability.

    A reward model that reads code and a policy that wrote it err in different ways. NaN when either is.
    """
    return math.log(max(reward, _EPS)) - math.log(max(1 - reward, _EPS)) + weight * mean_logprob


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Unbiased pass@k from n samples of which `passed` pass (Chen et al. 2021, eq. 1); NaN when n < k."""
    if n < k:
        return math.nan
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)


def best_of_n(scores: Sequence[float], passes: Sequence[bool], n: int) -> float:
    """Exact expected pass rate of the top-scored program among n drawn without replacement; ties share evenly.

    scores, passes: shape (pool,). A NaN score ranks below all others. NaN when the pool is smaller than n.
    """
    size = len(scores)
    if size < n or n < 1:
        return math.nan
    total = math.comb(size, n)
    expected, below = 0.0, 0
    for tied in _ranks(scores, passes):
        # Subsets whose maximum is this score: all from those at or below it, less all from those below it.
        wins = math.comb(below + len(tied), n) - math.comb(below, n)
        expected += wins / total * (sum(tied) / len(tied))
        below += len(tied)
    return expected


def _ranks(scores: Sequence[float], labels: Sequence[bool]) -> Iterator[list[bool]]:
    """The labels of equal scores together, lowest score first; a NaN is below all others."""
    keys = [-math.inf if math.isnan(s) else s for s in scores]
    for _, tied in groupby(sorted(zip(keys, labels, strict=True)), key=itemgetter(0)):
        yield [bool(label) for _, label in tied]


def recovered_gap(best: float, mean: float, oracle: float) -> float:
    """(best-of-n - mean) / (oracle - mean); NaN when there is no gap to recover."""
    return (best - mean) / (oracle - mean) if oracle > mean else math.nan


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a passing program scores above a failing one, ties one half; NaN with one class only.

    A NaN score ranks below all others.
    """
    wins, above, below = 0.0, 0, 0  # pairs won; passing and failing programs so far
    for tied in _ranks(scores, labels):
        passing = sum(tied)
        failing = len(tied) - passing
        wins += passing * (below + 0.5 * failing)
        above, below = above + passing, below + failing
    return wins / (above * below) if above and below else math.nan
