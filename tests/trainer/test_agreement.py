"""Votes among programs: exact expectations against all subsets, one by one."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_trainer.agreement import NONE, groups, majority_of_n, votes


def slowly(group, passes, n):
    """The mean over all subsets: of each, the mean over the members of its largest groups."""
    rates = []
    for subset in itertools.combinations(range(len(group)), n):
        size = {k: sum(group[other] == group[k] for other in subset) if group[k] != NONE else 0 for k in subset}
        top = [k for k in subset if size[k] == max(size.values())]
        rates.append(sum(passes[k] for k in top) / len(top))
    return sum(rates) / len(rates)


def test_equal_results_are_one_group_and_failures_are_none():
    assert groups(["a", None, "b", "a", None]) == (0, NONE, 1, 0, NONE)
    assert votes((0, NONE, 1, 0, NONE)) == (2.0, 0.0, 1.0, 2.0, 0.0)


def test_two_that_agree_win_over_one_that_does_not():
    # Of three programs two agree and are right. All three: right. Two drawn: the pair (1/3) is right, the others tie.
    assert majority_of_n((0, 0, 1), (True, True, False), 3) == 1.0
    assert majority_of_n((0, 0, 1), (True, True, False), 2) == pytest.approx(1 / 3 + 2 / 3 / 2)
    assert majority_of_n((0, 0, 1), (True, True, False), 1) == pytest.approx(2 / 3)


def test_a_program_without_a_vote_is_chosen_only_among_its_like():
    assert majority_of_n((NONE, NONE, 0), (False, False, True), 2) == pytest.approx(2 / 3)
    assert majority_of_n((NONE, NONE), (True, False), 2) == 0.5


def test_too_few_programs_are_no_number():
    assert math.isnan(majority_of_n((0,), (True,), 2))
    assert math.isnan(majority_of_n((0,), (True,), 0))


@given(st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=8), st.integers(1, 8))
def test_the_expectation_is_the_mean_over_all_subsets(pool, n):
    group, passes = [g for g, _ in pool], [p for _, p in pool]
    if n > len(pool):
        assert math.isnan(majority_of_n(group, passes, n))
        return
    # Programs of one group that differ in outcome cannot be told apart by their results: a draw of them is by chance.
    assert majority_of_n(group, passes, n) == pytest.approx(slowly(group, passes, n))


def test_large_pools_are_no_trouble():
    group, passes = [k % 40 for k in range(1000)], [k % 3 == 0 for k in range(1000)]
    assert 0 < majority_of_n(group, passes, 16) < 1
    assert 0 < majority_of_n(group, passes, 1000) < 1
