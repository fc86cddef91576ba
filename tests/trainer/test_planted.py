"""The planted-noise experiment: its noise, its division, its statistics; and the committed states at small size."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm_cli.aggregate import auc as slow_auc
from dreamprm_trainer import experiment_report, planted
from dreamprm_trainer.experiment import auc, interval, summary, table
from dreamprm_trainer.labels import WHOLE, monte_carlo
from dreamprm_trainer.planted import FILE, Noise, divide, noisy, read


@pytest.fixture(scope="module")
def states():
    return read(FILE)


def test_a_division_shares_no_problem_and_holds_test_problems_out(states):
    draw = divide(states, Noise("flip", 0.2), 0)
    numbers = [set(part.problem.tolist()) for part in (draw.train, draw.meta, draw.validation)]
    numbers.append(set(states.steps.problem[states.test].tolist()))
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == len(set(states.steps.problem.tolist()))
    assert draw.meta.last.all()  # outcomes of whole programs, nothing about their steps
    again = divide(states, Noise("flip", 0.2), 0)
    assert np.array_equal(draw.train.passes, again.train.passes)
    other = divide(states, Noise("flip", 0.2), 1)
    assert set(other.train.problem.tolist()) != numbers[0]


def test_truth_falls_once_in_a_program(states):
    """A prefix of a right prefix is right."""
    same = states.steps.program[1:] == states.steps.program[:-1]
    assert (np.diff(states.truth)[same] <= 0).all()
    assert 0.3 < states.truth.mean() < 0.8


def test_noise_is_what_it_says(states):
    rng = np.random.default_rng(0)
    flipped = noisy(states.steps, states.truth, Noise("flip", 0.3), rng)
    assert np.mean(flipped.passes != states.truth) == pytest.approx(0.3, abs=0.03)
    rolled = noisy(states.steps, states.truth, Noise("rollouts", 0.4, 4), rng)
    whole, right = rolled.last, states.truth > 0.5
    assert np.array_equal(monte_carlo(rolled)[whole], states.truth[whole])
    assert (rolled.rollouts[whole] == WHOLE).all()
    assert (rolled.rollouts[~whole] == 4).all()
    assert monte_carlo(rolled)[~whole & right].mean() == pytest.approx(0.6, abs=0.06)
    assert monte_carlo(rolled)[~whole & ~right].mean() == pytest.approx(0.1, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auc_by_ranks_is_auc(pairs):
    scores, right = np.array([float(s) for s, _ in pairs]), np.array([y for _, y in pairs])
    expected = slow_auc(scores.tolist(), right.tolist())
    assert auc(scores, right) == pytest.approx(expected, nan_ok=True)


def test_intervals_and_paired_differences():
    assert interval([1.0, 2.0, 3.0]) == {"mean": 2.0, "ci95": [pytest.approx(-0.4843), pytest.approx(4.4843)]}
    assert interval([float("nan")])["mean"] is None
    found = {"n": {"ours": {"0": {"m": 0.8}, "1": {"m": 0.6}}, "control": {"0": {"m": 0.7}, "1": {"m": 0.5}}}}
    result = summary(found, ["ours"], ["m"])
    assert result["n"]["ours"]["m"]["minus"]["control"] == {"mean": 0.1, "ci95": [0.1, 0.1]}
    assert "minus" not in result["n"]["control"]["m"]
    assert "ours" in table(result, ["m"])


def test_states_are_kept_to_a_fortieth_of_their_spread(states, tmp_path):
    place = tmp_path / "states.npz"
    planted.write(place, states)
    again = read(place)
    assert np.array_equal(again.truth, states.truth)
    assert np.array_equal(again.steps.program, states.steps.program)
    error = np.abs(again.steps.states - (states.steps.states - states.steps.states.mean(0)))
    assert np.median(error / states.steps.states.std(0)) < 0.02


def test_correction_brings_noisy_labels_closer_to_the_truth(states, tmp_path, capsys):
    """The experiment at small size: what it claims at full size holds here too, and a stopped run goes on."""
    place = tmp_path / "small.json"
    assert planted.EXPERIMENT.main(["--small", "--seeds", "2", "--out", str(place)]) == 0
    kept = json.loads(place.read_text())["seeds"]
    assert planted.EXPERIMENT.main(["--small", "--seeds", "3", "--out", str(place)]) == 0
    result = json.loads(place.read_text())
    assert all(
        result["seeds"]["flip 40%"]["corrected"][seed] == row for seed, row in kept["flip 40%"]["corrected"].items()
    )
    flips = result["summary"]["flip 40%"]
    for control in ("noisy (a)", "pooled (b)", "shrunk (c)", "reweighted (e)"):
        assert flips["corrected"]["label_auc"]["minus"][control]["mean"] > 0.03
        assert flips["corrected"]["label_brier"]["minus"][control]["mean"] < 0
    assert flips["truth"]["prm_auc"]["mean"] > flips["corrected"]["prm_auc"]["mean"]
    assert not any(row["collapsed"] for row in result["seeds"]["flip 40%"]["corrected"].values())
    assert "corrected" in capsys.readouterr().out
    place.write_text(json.dumps({**result, "data_sha256": "of other data"}))
    assert planted.EXPERIMENT.main(["--small", "--seeds", "1", "--out", str(place)]) == 0
    assert "begun anew" in capsys.readouterr().err
    assert list(json.loads(place.read_text())["seeds"]["flip 40%"]["corrected"]) == ["0"]


def test_the_page_marks_what_an_interval_tells_apart():
    def entry(mean, low, high):
        minus = {name: {"mean": 0.0, "ci95": [low, high]} for name in experiment_report.CONTROLS}
        return {metric: {"mean": mean, "ci95": [mean, mean], "minus": minus} for metric in experiment_report.METRICS}

    names = (*experiment_report.CONTROLS, *experiment_report.RIVALS, "truth")
    by = {name: entry(0.5, 0, 0) for name in names}
    by |= dict.fromkeys(experiment_report.OURS, entry(0.5, -0.1, 0.1))
    by |= {"corrected": entry(0.7, 0.1, 0.3), "corrected td": entry(0.3, -0.3, -0.1)}
    about = {"problems": 3, "test_problems": 1, "programs": 9, "steps": 20, "command": "x"}
    rows = experiment_report.report({**about, "summary": {"flip 10%": by}}).splitlines()
    auc_row, brier_row = (
        next(row for row in rows[rows.index(f"## {head}") :] if row.startswith("| flip"))
        for head, _ in (experiment_report.METRICS["label_auc"], experiment_report.METRICS["label_brier"])
    )
    assert "**0.700 [+0.100, +0.300]**" in auc_row
    assert "0.300 [-0.300, -0.100] (worse)" in auc_row
    assert "0.700 [+0.100, +0.300] (worse)" in brier_row  # less is better there
    assert "| 0.500 [-0.100, +0.100] |" in auc_row
