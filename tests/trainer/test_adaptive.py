"""What a plan costs and errs, against simulation and by hand."""

import itertools
import json
import random

import pytest

from dreamprm_trainer.adaptive import compare, main, rates, worth
from dreamprm_trainer.rollouts import Plan


def _by_enumeration(rate, plan):
    rollouts = wrong = error = 0.0
    for outcomes in itertools.product([True, False], repeat=plan.most):
        chance = rate ** sum(outcomes) * (1 - rate) ** (plan.most - sum(outcomes))
        count = plan.enough(outcomes)
        label = sum(outcomes[:count]) / count
        rollouts += chance * count
        wrong += chance * (0.5 if label == 0.5 else (label > 0.5) != (rate > 0.5)) * (rate != 0.5)
        error += chance * (label - rate) ** 2
    return rollouts, wrong, error


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.45, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("plan", [Plan(2, 2, 8, 0.2), Plan(4, 2, 10), Plan(3, 4, 9, 0.15), Plan(8, 1, 8)])
def test_exact_worth_is_that_of_all_orders(rate, plan):
    found = worth(rate, plan)
    assert (found.rollouts, found.wrong, found.error) == pytest.approx(_by_enumeration(rate, plan))


def test_sure_prefixes_stop_at_once_and_cannot_err():
    assert (worth(1.0, Plan()).rollouts, worth(1.0, Plan()).wrong) == (4, 0)
    found = compare([0.0, 1.0], Plan(), 16)
    assert (found["share"], found["wrong_side"], found["unanimous"]) == (0.25, 0, 1)
    unsure = compare([0.4], Plan(), 16)
    assert unsure["wrong_side"] > unsure["wrong_side_fixed"] > 0
    assert 0.5 < unsure["share"] < 1


def test_rates_are_of_distinct_prefixes_with_enough_rollouts(tmp_path, capsys):
    row = {"task_id": "a", "completions": ["x", "y", "z"], "mc_pass": [4, 16, 0], "mc_total": [16, 16, 0]}
    rows = [row, row, {**row, "completions": ["x", "w", "z"], "mc_pass": [4, 1, 0], "mc_total": [16, 4, 0]}]
    assert sorted(rates(rows, 16)) == [0.25, 1.0]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert main([str(path), "--out", str(tmp_path / "o.json")]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["prefixes"] == 2
    capsys.readouterr()
    assert main([str(path), "--fixed", "32"]) == 42
    assert "no prefix has 32 rollouts" in capsys.readouterr().err


def test_simulated_plans_cost_what_is_reckoned():
    draw, plan = random.Random(0), Plan()
    counts = [plan.enough([draw.random() < 0.3 for _ in range(16)]) for _ in range(4000)]
    assert sum(counts) / len(counts) == pytest.approx(worth(0.3, plan).rollouts, abs=0.2)
