import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli.aggregate import AGGREGATIONS, aggregate, auc, best_of_n, pass_at_k, recovered_gap

rewards = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=8)
pools = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9, math.nan]), st.booleans()), min_size=1, max_size=7)


def test_each_aggregation_on_known_rewards():
    steps = [0.5, 0.8, 0.2]
    assert aggregate(steps, "mean") == pytest.approx(0.5)
    assert aggregate(steps, "min") == 0.2
    assert aggregate(steps, "last") == 0.2
    assert aggregate(steps, "product") == pytest.approx(0.08)
    assert aggregate(steps, "log-odds") == pytest.approx(0.5)  # logit(0.8) = -logit(0.2)


@given(rewards)
def test_every_aggregation_stays_in_the_unit_interval(steps):
    for how in AGGREGATIONS:
        assert 0 <= aggregate(steps, how) <= 1


@given(rewards, st.sampled_from(["mean", "log-odds", "min", "last"]))
def test_a_constant_reward_is_its_own_aggregate(steps, how):
    assert aggregate([steps[0]] * len(steps), how) == pytest.approx(steps[0], abs=1e-9)


def test_certain_steps_do_not_overflow_log_odds():
    assert 0.9 < aggregate([1.0, 1.0], "log-odds") <= 1
    assert 0 <= aggregate([0.0], "log-odds") < 0.1


def test_unscored_steps_are_left_out_and_nothing_scored_is_nan():
    assert aggregate([math.nan, 0.4, 0.6]) == pytest.approx(0.5)
    assert math.isnan(aggregate([math.nan]))
    assert math.isnan(aggregate([]))


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n, passed, k):
    passed = min(passed, n)
    if k > n:
        assert math.isnan(pass_at_k(n, passed, k))
        return
    outcomes = [i < passed for i in range(n)]
    subsets = list(itertools.combinations(outcomes, k))
    assert pass_at_k(n, passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@given(pools, st.integers(1, 7))
def test_best_of_n_is_the_mean_over_all_subsets(pool, n):
    scores, passes = [s for s, _ in pool], [p for _, p in pool]
    if n > len(pool):
        assert math.isnan(best_of_n(scores, passes, n))
        return
    keys = [-math.inf if math.isnan(s) else s for s in scores]
    rates = []
    for subset in itertools.combinations(range(len(pool)), n):
        top = max(keys[i] for i in subset)
        tied = [passes[i] for i in subset if keys[i] == top]
        rates.append(sum(tied) / len(tied))
    assert best_of_n(scores, passes, n) == pytest.approx(sum(rates) / len(rates))


def test_best_of_one_is_the_mean_and_a_perfect_score_reaches_the_oracle():
    passes = [True, False, False, True]
    assert best_of_n([0.3, 0.2, 0.9, 0.1], passes, 1) == pytest.approx(0.5)
    assert best_of_n([float(p) for p in passes], passes, 2) == pytest.approx(pass_at_k(4, 2, 2))


def test_recovered_gap_needs_a_gap():
    assert recovered_gap(0.45, 0.3, 0.6) == pytest.approx(0.5)
    assert math.isnan(recovered_gap(0.3, 0.3, 0.3))


def test_auc_counts_ties_one_half_and_needs_both_classes():
    assert auc([0.9, 0.1], [True, False]) == 1
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(auc([0.5, 0.5], [True, True]))


@given(pools)
def test_auc_is_the_share_of_pairs_in_order(pool):
    keys = [(-math.inf if math.isnan(score) else score, passed) for score, passed in pool]
    pairs = [(a > b) + 0.5 * (a == b) for (a, good), (b, bad) in itertools.product(keys, keys) if good and not bad]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert auc([s for s, _ in pool], [p for _, p in pool]) == pytest.approx(expected, nan_ok=True)
