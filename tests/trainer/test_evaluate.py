"""Best-of-n, gaps and intervals on pools whose answers are known."""

import itertools
import math

import pytest

from dreamprm_trainer.evaluate import Pool, baseline_scores, calibration, evaluate, parses, table, within_aucs


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
