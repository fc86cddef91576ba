"""The experiment on real rollouts: its divisions, its noise, its measures."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from dreamprm_cli.prm.head import Head
from dreamprm_trainer import real
from dreamprm_trainer.correct import Fitted
from dreamprm_trainer.experiment import Outcome
from dreamprm_trainer.labels import WHOLE, Steps, monte_carlo
from dreamprm_trainer.real import Condition, divide, measure, read, thinned, write
from dreamprm_trainer.real_data import steps_of


@pytest.fixture
def steps():
    """40 problems x 4 programs x 3 steps; a hidden ability decides, and states show it."""
    rng = np.random.default_rng(0)
    states, passes, rollouts, program, problem = [], [], [], [], []
    for number in range(160):
        ability = rng.normal()
        chance = 1 / (1 + np.exp(-2 * ability))
        for step in range(3):
            states.append(np.append(ability, rng.normal(size=7)) + 0.3 * rng.normal(size=8))
            last = step == 2
            rollouts.append(WHOLE if last else 8)
            passes.append(WHOLE * (rng.random() < chance) if last else rng.binomial(8, chance))
            program.append(number)
            problem.append(number // 4)
    arrays = (np.array(program), np.array(problem), np.array(passes, np.float32), np.array(rollouts, np.float32))
    return Steps(np.array(states, np.float32), *arrays)


def test_a_division_keeps_problems_apart_and_clean_sets_clean(steps):
    draw = divide(steps, Condition(meta=0.5), 3)
    parts = [set(part.problem) for part in (draw.train, draw.meta, draw.validation, draw.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert (len(parts[3]), len(parts[1])) == (12, 14)
    assert draw.meta.last.all()
    assert draw.validation.last.all()
    again = divide(steps, Condition(meta=0.1), 3)
    assert set(again.test.problem) == parts[3]


def test_thinning_keeps_outcomes_and_the_average(steps):
    rng = np.random.default_rng(1)
    inner = ~steps.last
    drawn = [thinned(steps, Condition(rollouts=2), rng) for _ in range(300)]
    for one in drawn:
        assert set(one.rollouts[inner]) == {2}
        assert (one.passes[inner] <= 2).all()
        assert np.array_equal(one.passes[~inner], steps.passes[~inner])
    mean = np.mean([monte_carlo(one)[inner] for one in drawn], 0)
    assert np.abs(mean - monte_carlo(steps)[inner]).max() < 0.12
    turned = np.mean([monte_carlo(thinned(steps, Condition(flips=0.4), rng))[inner] for _ in range(300)], 0)
    assert np.abs(turned - (0.4 + 0.2 * monte_carlo(steps)[inner])).max() < 0.08


def test_measures_by_hand():
    """Two problems: in the first the better program is ranked first, in the second last."""
    states = np.array([[3], [1], [0], [0], [2], [2], [5], [5]], np.float32)
    outcome = np.array([0, WHOLE, 0, 0, 0, WHOLE, 0, 0], np.float32)  # of the last steps
    counts = np.array([3, WHOLE, 1, WHOLE, 2, WHOLE, 2, WHOLE], np.float32)
    passes = outcome + np.array([3, 0, 0, 0, 1, 0, 1, 0], np.float32)
    test = Steps(states, np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 0, 0, 1, 1, 1, 1]), passes, counts)
    empty = test.only(np.zeros(0, np.int64))
    head = Fitted(Head(np.ones(1, np.float32), 0.0), np.zeros(0), np.zeros(0))
    found = measure(real.Draw(empty, empty, empty, test), Outcome(np.zeros(0), head))
    assert found["within"] == 0.5
    assert found["prm_auc_whole"] == 0.5  # 2 and 2 pass, 0 and 5 fail
    # passing rollouts: three of reward 3, one of 2, one of 5; failing: one of 0, one of 2, one of 5.
    wins = 3 * (1 + 1 + 0) + (1 + 0.5 + 0) + (1 + 1 + 0.5)
    assert found["inner_auc"] == pytest.approx(wins / 15)
    assert np.isnan(found["best_of_4"])  # no problem has four programs


def test_only_programs_that_were_rolled_out_whole(planted):
    table, _ = planted
    items = [replace(item, passes=(0, 1, 0), rollouts=(0, 4, 0)) for item in table.items]
    items[0] = replace(items[0], passes=(0, 0, 0), rollouts=(0, 0, 0))
    steps = steps_of(replace(table, items=tuple(items)), [2], [1, 2, 3])
    assert len(steps) == len(table.program) - 2
    assert set(steps.rollouts[steps.last]) == {WHOLE}
    assert np.array_equal(steps.passes[steps.last] > 0, table.outcome[1:] > 0)
    assert set(monte_carlo(steps)[~steps.last]) == {0.25}


def test_the_command_at_small_size(steps, tmp_path, capsys, one_thread):
    write(tmp_path / "real.npz", steps)
    assert np.array_equal(read(tmp_path / "real.npz").passes, steps.passes)
    arguments = ["--file", str(tmp_path / "real.npz"), "--small", "--seeds", "2", "--out", str(tmp_path / "out.json")]
    assert real.EXPERIMENT.main(arguments) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["problems"], result["test_problems"], result["programs"]) == (40, 12, 160)
    for condition in ("K=1", "all rollouts"):
        assert result["summary"][condition]["td (d)"]["inner_auc"]["mean"] > 0.7
        assert "minus" in result["summary"][condition]["corrected"]["within"]
    assert "all rollouts" in capsys.readouterr().out
