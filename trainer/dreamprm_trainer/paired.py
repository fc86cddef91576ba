"""Two ways of ranking on the same problems: paired bootstrap intervals and McNemar's exact test.

The unit is the problem: programs of one problem stand or fall together, so it is problems that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
RESAMPLES = 2000


def bootstrap(problems: int, resamples: int, draw: np.random.Generator) -> Doubles:
    """(resamples, problems): the share of each problem in each draw of as many problems, with replacement.

    `shares @ values` are the resampled means of values (problems,) or (problems, methods), every column of which then
    has seen the same draws.
    """
    drawn = draw.integers(0, problems, (resamples, problems))
    places = drawn + problems * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * problems)
    return counts.reshape(resamples, problems) / problems


def interval(values: Doubles) -> list[float | None]:
    """Middle 95 % of the resampled values that are defined."""
    values = values[np.isfinite(values)]
    if not len(values):
        return [None, None]
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


@dataclass(frozen=True, slots=True)
class McNemar:
    """b problems that only the first solves, c that only the second does, and the two-sided p of so uneven a split."""

    b: int
    c: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """The exact test (McNemar 1947, with the binomial distribution itself): under the null hypothesis each problem
    that the two disagree on is either's with probability one half. Without any, p is 1."""
    b = sum(bool(x) and not y for x, y in zip(first, second, strict=True))
    c = sum(bool(y) and not x for x, y in zip(first, second, strict=True))
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))
