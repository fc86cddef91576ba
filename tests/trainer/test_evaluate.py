"""Best-of-n, gaps and intervals on pools whose answers are known."""

import itertools
import math
import time

import pytest

from dreamprm_trainer.evaluate import (
    Pool,
    baseline_scores,
    by_weight,
    calibration,
    evaluate,
    parses,
    picks,
    sizes_of,
    table,
    within_aucs,
)


def _pools(count=40):
    """Pools of 4 with 0 to 3 passing programs; `oracle` knows, `inverse` knows the wrong way round."""
    made = []
    for number in range(count):
        passed = tuple(k < number % 4 for k in (2, 0, 3, 1))
        truth = tuple(float(p) for p in passed)
        scores = {"prm": truth, "random": (0.0,) * 4, "inverse": tuple(-t for t in truth)}
        made.append(Pool(f"P/{number}", passed, scores))
    return made


def test_known_rankings_get_what_they_deserve():
    result = evaluate(_pools(), (1, 2, 4, 8), resamples=200)
    assert result["problems"] == 40
    assert result["mixed_problems"] == 30
    assert result["pass@1"] == pytest.approx(1.5 / 4)
    assert list(result["oracle"]) == ["1", "2", "4"]  # no pool holds eight
    assert result["oracle"]["4"] == pytest.approx(0.75)
    best = result["best_of_n"]
    assert best["prm"]["4"]["recovered_gap"] == pytest.approx(1)
    assert best["random"]["4"]["recovered_gap"] == pytest.approx(0)
    assert best["inverse"]["4"]["solved_rate"] == pytest.approx(0)
    assert best["prm"]["1"]["recovered_gap"] is None
    low, high = best["prm"]["4"]["ci95"]
    assert low < 0.75 < high
    assert best["prm"]["4"]["over"]["random"]["difference"] == pytest.approx(0.375)
    assert best["prm"]["4"]["over"]["random"]["ci95"][0] > 0
    assert best["inverse"]["4"]["over"]["random"]["ci95"][1] < 0
    assert result["auc"]["prm"] == 1
    assert result["auc_within"]["inverse"]["value"] == 0
    assert result["auc_within"]["random"]["value"] == pytest.approx(0.5)
    assert "prm" in table(result)


def test_best_of_two_is_the_mean_over_all_pairs():
    passed, scores = (True, False, True, False, False), (0.9, 0.8, 0.2, 0.2, 0.1)
    wins = []
    for pair in itertools.combinations(range(5), 2):
        top = max(scores[k] for k in pair)
        tied = [k for k in pair if scores[k] == top]
        wins.append(sum(passed[k] for k in tied) / len(tied))
    result = evaluate([Pool("p", passed, {"prm": scores})], (2,), resamples=10)
    assert result["best_of_n"]["prm"]["2"]["solved_rate"] == pytest.approx(sum(wins) / len(wins))


def test_intervals_are_paired_and_repeatable():
    one, two = (evaluate(_pools(), (4,), resamples=100, seed=3) for _ in range(2))
    assert one == two
    same = [Pool(p.problem, p.passed, {"prm": p.scores["prm"], "copy": p.scores["prm"]}) for p in _pools()]
    over = evaluate(same, (4,), resamples=100)["best_of_n"]["prm"]["4"]["over"]["copy"]
    assert over == {"difference": 0.0, "ci95": [0.0, 0.0]}


def test_missing_scores_rank_last():
    pool = Pool("p", (True, False), {"prm": (math.nan, 0.1)})
    assert evaluate([pool], (2,), resamples=10)["best_of_n"]["prm"]["2"]["solved_rate"] == 0
    assert within_aucs([pool], "prm").tolist() == [0.0]


def test_calibration_error():
    rewards = [0.05] * 10 + [0.95] * 10
    assert calibration(rewards, [False] * 10 + [True] * 10)["ece"] == pytest.approx(0.05)
    assert calibration(rewards, [True] * 10 + [False] * 10)["ece"] == pytest.approx(0.95)
    assert calibration([1.0, math.nan], [True, False])["curve"] == [[1.0, 1.0, 1]]
    assert calibration([], [])["ece"] is None


@pytest.mark.parametrize(
    ("code", "valid"),
    [("x = 1\n", True), ("def f(:\n", False), ("", False), ("x = '\x00'", False), ("(" * 5000, False)],
)
def test_parses(code, valid):
    assert parses(code) is valid


def test_baselines(make_item):
    whole = baseline_scores(make_item(code="x = 1\n", mean_logprob=-0.5))
    assert whole == {"random": 0.0, "parses-and-finished": 1.0, "shortest": -6.0, "logprob": -0.5}
    assert baseline_scores(make_item(code="x = 1\n", finish_reason="length"))["parses-and-finished"] == 0.0


def test_a_weight_of_log_probability_is_worth_what_it_ranks_right(make_item):
    """The reward ranks the problem's three programs half wrong, log-probability right."""
    items = [make_item(sample=n, passed=n == 0, mean_logprob=lp) for n, lp in enumerate((-0.1, -0.6, -1.0))]
    found = by_weight([0.5, 0.6, 0.4], items)
    assert list(found) == ["0", "1", "2", "4", "8"]
    assert [found[weight] for weight in ("0", "1", "8")] == [0.5, 1.0, 1.0]  # 0.6 is 0.41 of log-odds above 0.5
    assert by_weight([0.5, 0.6], [items[1], items[2]]) == {}  # none passes
    silent = make_item(sample=3, mean_logprob=math.nan)
    assert by_weight([0.5, 0.6, 0.4], [items[0], items[1], silent]) == {}


def test_sizes_go_up_to_the_largest_pool_and_name_its_size():
    def of(*counts):
        return sizes_of([Pool(str(n), (True,) * n, {}) for n in counts])

    assert of(8, 8) == [1, 2, 4, 8]
    assert of(10, 10, 10) == [1, 2, 4, 8, 10]
    assert of(3, 5, 5, 20) == [1, 2, 4, 5, 8, 16]  # half of the problems have five or more
    assert of() == []


def test_problems_with_too_few_programs_are_left_out_of_an_n():
    pools = [Pool("a", (True, False), {"prm": (0.0, 1.0)}), Pool("b", (True,), {"prm": (0.5,)})]
    result = evaluate(pools, (1, 2), resamples=10)
    assert result["problems_with"] == {"1": 2, "2": 1}
    assert result["best_of_n"]["prm"]["1"]["solved_rate"] == pytest.approx(0.75)
    assert result["best_of_n"]["prm"]["2"]["solved"] == 0
    assert result["oracle"]["2"] == 1


def test_a_vote_depends_on_who_was_drawn():
    # Two of four agree and pass; a score that says so from the start would be right whenever one of them is drawn.
    pool = Pool("p", (True, True, False, False), {"prm": (1.0, 1.0, 0.0, 0.0)}, {"majority": (0, 0, 1, 2)})
    best = evaluate([pool], (1, 2, 4), resamples=10)["best_of_n"]
    assert best["prm"]["2"]["solved_rate"] == pytest.approx(5 / 6)
    assert best["majority"]["2"]["solved_rate"] == pytest.approx(1 / 6 + 4 / 6 * 0.5)
    assert best["majority"]["4"]["solved_rate"] == 1
    assert evaluate([pool], (1,), resamples=10)["auc"]["majority"] == 1


def test_mcnemar_is_of_the_programs_chosen_out_of_all():
    passed = (False, True)
    pools = [Pool(str(n), passed, {"prm": (0.0, 1.0), "worse": (1.0, 0.0), "twin": (0.2, 0.3)}) for n in range(6)]
    result = evaluate(pools, (2,), resamples=10)
    assert result["mcnemar"] == {"worse": {"b": 6, "c": 0, "p": 2 / 64}, "twin": {"b": 0, "c": 0, "p": 1.0}}
    assert "mcnemar" in evaluate([], (1,))
    assert evaluate([Pool("p", passed, {"random": (0.0, 0.0)})], (2,), resamples=10)["mcnemar"] == {}


def test_ties_are_broken_by_one_order_for_all_methods():
    pools = [Pool(str(n), (True, False, False), {"a": (0.0,) * 3, "b": (1.0,) * 3}) for n in range(60)]
    chosen = picks(pools, ["a", "b"], seed=1)
    assert chosen["a"] == chosen["b"]
    assert 8 < sum(chosen["a"]) < 32  # about one in three
    assert picks(pools, ["a"], seed=2) != picks(pools, ["a"], seed=1)


def test_only_probabilities_are_calibrated():
    pools = [Pool("p", (True, False), {"prm": (0.8, 0.4), "shortest": (-10.0, -20.0)})]
    found = evaluate(pools, (1,), resamples=10, probabilities=["prm"])["calibration"]
    assert list(found) == ["prm"]
    assert found["prm"]["ece"] == pytest.approx((0.2 + 0.4) / 2)


def test_thousands_of_programs_take_no_time():
    passed = tuple(n % 3 == 0 for n in range(16))
    pools = [
        Pool(str(k), passed, {name: tuple(math.sin(k * n + len(name)) for n in range(16)) for name in ("prm", *"abcd")})
        for k in range(200)
    ]
    started = time.process_time()
    evaluate(pools, (1, 2, 4, 8, 16))
    assert time.process_time() - started < 10
