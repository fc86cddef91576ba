"""McNemar's test and paired intervals on numbers worked out by hand."""

import numpy as np
import pytest

from dreamprm_trainer.paired import McNemar, bootstrap, interval, mcnemar


def test_mcnemar_by_hand():
    first = [True] * 9 + [False] + [True] * 3 + [False] * 4
    second = [False] * 9 + [True] + [True] * 3 + [False] * 4
    # 10 problems differ, 9 to 1: twice the chance of 0 or 1 heads in 10 tosses, 2 * (1 + 10) / 1024.
    assert mcnemar(first, second) == McNemar(9, 1, 22 / 1024)
    assert mcnemar(second, first) == McNemar(1, 9, 22 / 1024)


def test_mcnemar_without_difference_says_nothing():
    assert mcnemar([True, False], [True, False]) == McNemar(0, 0, 1.0)
    assert mcnemar([True, False], [False, True]) == McNemar(1, 1, 1.0)
    assert mcnemar([], []).p == 1.0


def test_mcnemar_of_many_problems_does_not_overflow():
    assert mcnemar([True] * 2000, [False] * 2000).p < 1e-300
    even = mcnemar([True] * 1500 + [False] * 1500, [False] * 1500 + [True] * 1500)
    assert even.p == 1.0


def test_mcnemar_wants_the_same_problems():
    with pytest.raises(ValueError, match="longer"):
        mcnemar([True], [True, False])


def test_each_draw_has_as_many_problems_as_there_are():
    shares = bootstrap(7, 50, np.random.default_rng(0))
    assert shares.shape == (50, 7)
    assert np.allclose(shares.sum(1), 1)
    assert np.allclose(shares * 7, np.rint(shares * 7))
    values = np.arange(7.0)
    means = shares @ values
    assert means.std() == pytest.approx(values.std() / np.sqrt(7), rel=0.3)
    again = bootstrap(7, 50, np.random.default_rng(0))
    assert np.array_equal(shares, again)


def test_an_interval_leaves_out_what_is_not_defined():
    low, high = interval(np.append(np.linspace(0, 1, 1001), [np.nan, np.inf]))
    assert (low, high) == (pytest.approx(0.025), pytest.approx(0.975))
    assert interval(np.array([np.nan])) == [None, None]
