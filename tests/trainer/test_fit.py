"""The head finds a planted direction, is the same every time, and keeps its rewards when the features are scaled."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.evaluate import within_aucs
from dreamprm_trainer.fit import Settings, calibrate, fit
from dreamprm_trainer.select import cross_fit, folds_of, pools, resampled, rewards
from dreamprm_trainer.tables import merge, subset

CACHED = (4, 8, 12)


def _within(head, table, layers=(8,)):
    steps = rewards(head, table, layers, CACHED)
    return within_aucs(pools(table, steps, ["mean"]), "prm").mean()


@pytest.mark.parametrize("steps", ["all", "last", "mean"])
@pytest.mark.parametrize("pairwise", [0.0, 0.5, 1.0])
def test_the_planted_direction_is_found(planted, steps, pairwise):
    table, direction = planted
    train = subset(table, range(240))
    test = subset(table, range(240, 360))
    head = fit(train, Settings((8,), 0.03, steps, pairwise), CACHED)
    weight = head.weight / np.linalg.norm(head.weight)
    assert weight @ direction > 0.8
    assert _within(head, test) > 0.9
    blind = fit(train, Settings((4,), 0.03, steps, pairwise), CACHED)
    assert 0.35 < _within(blind, test, (4,)) < 0.65


def test_several_layers_are_read_side_by_side(planted):
    table, _ = planted
    head = fit(table, Settings((12, 8), 0.03), CACHED)
    assert head.weight.shape == (32,)
    assert np.linalg.norm(head.weight[16:]) > 1.4 * np.linalg.norm(head.weight[:16])
    flat = np.concatenate([table.states[:, 2], table.states[:, 1]], axis=1).astype(np.float32)
    assert rewards(head, table, (12, 8), CACHED)[0] == pytest.approx(head.rewards(flat)[:2])


def test_the_same_data_and_settings_give_the_same_head(planted):
    table, _ = planted
    one, two = (fit(table, Settings((8,), 0.1, "all", 0.5), CACHED) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert one.bias == two.bias


def test_the_standardisation_is_folded_in(planted):
    """Features in other units change weights and bias, not rewards."""
    table, _ = planted
    other = replace(table, states=(table.states.astype(np.float32) * 4 - 8).astype(np.float16))
    settings = Settings((8,), 0.1)
    first = np.concatenate(rewards(fit(table, settings, CACHED), table, (8,), CACHED))
    second = np.concatenate(rewards(fit(other, settings, CACHED), other, (8,), CACHED))
    assert np.abs(first - second).max() < 0.02


def test_programs_without_weight_do_not_count(planted):
    table, _ = planted
    half = subset(table, range(180))
    weights = np.repeat([1.0, 0.0], 180).astype(np.float32)
    one = fit(half, Settings((8,), 0.1), CACHED)
    # Zero weight removes a program from the loss; it still takes part in the standardisation of the features.
    two = fit(table, Settings((8,), 0.1), CACHED, weights)
    cosine = one.weight @ two.weight / np.linalg.norm(one.weight) / np.linalg.norm(two.weight)
    assert cosine > 0.98


def test_calibration_makes_rewards_pass_rates_and_keeps_the_order(planted):
    table, _ = planted
    sharp = fit(table, Settings((8,), 0.03), CACHED)
    wild = replace(sharp, weight=sharp.weight * 5, bias=sharp.bias * 5 + 4)
    calm = calibrate(wild, table, CACHED, (8,))
    before, after = (np.concatenate(rewards(h, table, (8,), CACHED)) for h in (wild, calm))
    assert np.mean((after - table.target) ** 2) < np.mean((before - table.target) ** 2)
    assert abs(after.mean() - table.target.mean()) < 0.02
    assert _within(calm, table) == pytest.approx(_within(wild, table), abs=0.02)


def test_a_resampled_table_holds_whole_problems(planted):
    table, _ = planted
    assert resampled(table, 0) is table
    drawn = resampled(table, 1)
    assert len(drawn.items) == len(table.items)
    assert drawn.states.shape == table.states.shape
    assert len({item.problem.id for item in drawn.items}) < 60
    first = drawn.items[0]
    original = table.items.index(first)
    assert np.array_equal(drawn.states[:2], table.states[2 * original : 2 * original + 2])
    again = merge([subset(table, range(10)), subset(table, range(10, 360))])
    assert np.array_equal(again.program, table.program)
    assert np.array_equal(again.states, table.states)


class _Recipe:
    """What cross_fit reads of a recipe."""

    settings = Settings((8,), 0.1)
    layers = CACHED
    weights: dict[str, float] = {}  # noqa: RUF012


def _ranked(table, family=lambda name: name):
    """AUC of a table's own programs, cross-fitted."""
    families = {item.problem.id: family(item.problem.id) for item in table.items}
    steps = cross_fit(table, table, _Recipe, families, folds_of(table.items, families))
    return within_aucs(pools(table, steps, ["mean"]), "prm").mean()


def _by_chance(table):
    rng = np.random.default_rng(1)
    items = tuple(replace(item, passed=bool(rng.random() < 0.5)) for item in table.items)
    target = np.array([float(items[n].passed) for n in table.program], dtype=np.float32)
    return replace(table, items=items, target=target)


def test_cross_fitting_ranks_each_problem_by_a_head_that_never_saw_it(planted):
    table, _ = planted
    assert _ranked(table) > 0.9
    assert 0.35 < _ranked(_by_chance(table)) < 0.65  # a leak would rank noise right


def test_cross_fitting_holds_out_problems_that_are_alike_together(planted, monkeypatch):
    table, _ = planted
    twins = tuple(replace(item, problem=replace(item.problem, id=f"{item.problem.id} twin")) for item in table.items)
    both = merge([table, replace(table, items=twins)])
    every = {item.problem.id for item in both.items}
    left_out = []

    def fitted(kept, *rest):
        left_out.append(every - {item.problem.id for item in kept.items})
        return fit(kept, *rest)

    monkeypatch.setattr("dreamprm_trainer.select.fit", fitted)
    _ranked(both, lambda name: name.removesuffix(" twin"))
    assert len(left_out) == 5
    assert set().union(*left_out) == every
    assert all((f"{name} twin" in fold) == (name in fold) for fold in left_out for name in every if "twin" not in name)
    with pytest.raises(ProblemError, match="are alike"):
        _ranked(table, lambda _: "one")


def test_a_whole_set_can_be_held_out(planted):
    table, _ = planted
    names = sorted({item.problem.id for item in table.items})
    families = {name: name for name in names}
    ours = frozenset(names[: len(names) // 2])
    drawn = subset(table, [n for n, item in enumerate(table.items) if item.problem.id in ours])
    others = subset(table, [n for n, item in enumerate(table.items) if item.problem.id not in ours])
    steps = cross_fit(table, drawn, _Recipe, families, [ours])
    assert steps == rewards(fit(others, _Recipe.settings, CACHED), drawn, (8,), CACHED)
    with pytest.raises(ProblemError, match="no training problem is left"):
        cross_fit(drawn, drawn, _Recipe, families, [ours])


def test_baselines_that_are_not_known_are_left_out(planted):
    table, _ = planted
    steps = [[0.5]] * len(table.items)
    assert "logprob" not in pools(table, steps, ["mean"], baselines=True)[0].scores
    items = tuple(replace(item, mean_logprob=-1.0) for item in table.items)
    assert "logprob" in pools(replace(table, items=items), steps, ["mean"], baselines=True)[0].scores


def test_a_head_to_start_from_is_what_little_data_leave(planted):
    table, direction = planted
    first = fit(table, Settings((8,), 0.03), CACHED)
    few = subset(table, range(6))
    strong = fit(few, Settings((8,), 1000.0), CACHED, start=first)
    assert strong.weight == pytest.approx(first.weight, abs=1e-3)
    assert fit(few, Settings((8,), 1000.0), CACHED).weight == pytest.approx(np.zeros(16), abs=1e-3)
    weak = fit(few, Settings((8,), 0.03), CACHED, start=first)
    assert np.abs(weak.weight - first.weight).max() > 0.01
    again = fit(table, Settings((8,), 1e-6), CACHED, start=first)
    assert again.weight @ direction / np.linalg.norm(again.weight) > 0.8


def test_the_loss_is_told(planted):
    table, _ = planted
    told = []
    fit(table, Settings((8,), 0.1), CACHED, tell=told.append)
    assert [event.done for event in told] == list(range(1, len(told) + 1))
    assert told[0].loss == pytest.approx(np.log(2), abs=1e-3)
    assert told[-1].loss < told[0].loss
