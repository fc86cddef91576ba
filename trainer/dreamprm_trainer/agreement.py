"""Majority by execution agreement (CodeT, Chen et al. 2022, without generated tests): programs that give the same
results on the tests' inputs vote for each other. What the tests expect is not looked at.

A program that fails on an input, or whose results cannot be compared, has no vote: it is chosen when there is nothing
else. What a vote is worth depends on which programs were drawn, so best-of-n is not that of a fixed score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from dreamprm_cli.aggregate import best_of_n

NONE = -1  # the group of programs without a vote


def groups(results: Sequence[str | None]) -> tuple[int, ...]:
    """A number for each program: equal results have equal numbers, None has `NONE`."""
    numbers: dict[str, int] = {}
    return tuple(NONE if result is None else numbers.setdefault(result, len(numbers)) for result in results)


def votes(group: Sequence[int]) -> tuple[float, ...]:
    """How many programs of all agree with each, itself included; 0 without a vote."""
    size = Counter(group)
    return tuple(0.0 if number == NONE else float(size[number]) for number in group)


def majority_of_n(group: Sequence[int], passes: Sequence[bool], n: int) -> float:
    """Exact expected pass rate of a program of the largest group among n drawn without replacement.

    Equally large groups share evenly; where no program drawn has a vote, all share. NaN when there are fewer than n.
    """
    size = len(group)
    if not 1 <= n <= size:
        return math.nan
    if n == size:
        return best_of_n(votes(group), passes, n)
    members: dict[int, list[bool]] = {}
    for number, passed in zip(group, passes, strict=True):
        members.setdefault(number, []).append(bool(passed))
    silent = members.pop(NONE, [])
    expected = math.comb(len(silent), n) * _rate(silent)
    for most in range(1, min(n, max(map(len, members.values()), default=0)) + 1):
        for (drawn, tied), (_, rates) in _draws(list(members.values()), most, n).items():
            if tied:
                expected += math.comb(len(silent), n - drawn) * rates / tied
    return expected / math.comb(size, n)


def _draws(members: Sequence[Sequence[bool]], most: int, n: int) -> dict[tuple[int, int], tuple[int, float]]:
    """Of the ways to draw up to n voters, no group more than `most` times, those with each (number drawn, groups that
    reach `most`): how many there are, and the pass rates of those groups summed over them."""
    states: dict[tuple[int, int], tuple[int, float]] = {(0, 0): (1, 0.0)}
    for passes in members:
        following: dict[tuple[int, int], tuple[int, float]] = {}
        for (drawn, tied), (ways, rates) in states.items():
            for taken in range(min(most, len(passes), n - drawn) + 1):
                times = math.comb(len(passes), taken)
                reached = taken == most
                key = (drawn + taken, tied + reached)
                known, sums = following.get(key, (0, 0.0))
                gained = rates + ways * _rate(passes) * reached
                following[key] = (known + ways * times, sums + gained * times)
        states = following
    return states


def _rate(passes: Sequence[bool]) -> float:
    return sum(passes) / len(passes) if passes else 0.0
