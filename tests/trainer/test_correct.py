"""The head's loop: the label gradient in it is the tested one, labels move towards the truth, and nothing is drawn."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from dreamprm_cli.aggregate import auc
from dreamprm_cli.errors import ConfigError
from dreamprm_cli.training import LabelsMoved, Progressed, StageStarted, TrainingEvent, Validated
from dreamprm_trainer.correct import MODES, Loop, Settings, fit
from dreamprm_trainer.hypergradient import double_backward
from dreamprm_trainer.labels import WHOLE, Steps, monte_carlo

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN = 24


def _world(seed=0, problems=120, flips=0.35):
    """(train, truth, meta, validation, test): right prefixes lie on one side of a direction; some labels are turned."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=HIDDEN) / HIDDEN**0.5
    count = problems * 8
    states = rng.normal(size=(count, HIDDEN)).astype(np.float32)
    truth = (states @ direction + 0.3 * rng.normal(size=count) > 0).astype(np.float32)
    program = np.arange(count) // 2
    steps = Steps(states, program, np.arange(count) // 8, truth * WHOLE, np.full(count, WHOLE, np.float32))

    def part(low, high):
        return (steps.problem >= low) & (steps.problem < high)

    noisy = steps.only(part(0, 60))
    turned = rng.random(len(noisy)) < flips
    train = noisy.counted(np.abs(truth[: len(noisy)] - turned), np.ones(len(noisy)))
    last = steps.last
    return (
        train,
        truth[: len(noisy)],
        steps.only(part(60, 85) & last),
        steps.only(part(85, 95) & last),
        steps.only(part(95, 120)),
    )


def _auc(scores, right):
    return auc(scores.tolist(), (right > 0.5).tolist())


FAST = Settings(l2=0.01, lr=0.02, epochs=60, patience=60, label_lr=0.1)


def test_labels_move_towards_the_truth_and_the_head_gains():
    train, truth, meta, validation, test = _world()
    before = _auc(monte_carlo(train), truth)
    plain = fit(train, meta, validation, replace(FAST, mode="plain"))
    corrected = fit(train, meta, validation, FAST)
    assert np.array_equal(plain.labels, monte_carlo(train))
    assert _auc(corrected.labels, truth) > before + 0.1
    assert corrected.labels.dtype == np.float32
    assert len(np.unique(corrected.labels)) > 100  # soft, not rounded
    assert 0.02 - 1e-6 <= corrected.labels.min() <= corrected.labels.max() <= 0.98 + 1e-6
    right = monte_carlo(test)
    assert _auc(corrected.head.rewards(test.states), right) > _auc(plain.head.rewards(test.states), right)


def test_weights_stay_between_0_and_2_and_tell_flipped_labels():
    train, truth, meta, validation, _ = _world()
    fitted = fit(train, meta, validation, replace(FAST, mode="reweight", epochs=30))
    assert 0 <= fitted.weights.min() < 0.8
    assert 1.2 < fitted.weights.max() <= 2
    agrees = monte_carlo(train) == truth
    assert fitted.weights[agrees].mean() > fitted.weights[~agrees].mean() + 0.1
    assert np.array_equal(fitted.labels, monte_carlo(train))


def test_pooled_training_sees_the_clean_steps():
    train, truth, meta, validation, test = _world(flips=0.5)
    right = monte_carlo(test)
    heads = {
        mode: fit(train, meta, validation, replace(FAST, mode=mode, clean=4.0)).head for mode in ("plain", "pooled")
    }
    assert _auc(heads["pooled"].rewards(test.states), right) > _auc(heads["plain"].rewards(test.states), right) + 0.1
    assert len(truth) == len(train)


@pytest.mark.parametrize("inner", ["sgd", "adam"])
@pytest.mark.parametrize("apart", [False, True])
def test_the_epoch_moves_labels_by_the_label_gradient(inner, apart):
    """Against differentiation through the step, with the data as the loop has them."""
    train, _, meta, validation, _ = _world(problems=100)
    settings = Settings(inner=inner, lr=0.01, l2=0.0, label_lr=1e-3, apart=apart, cold=0)
    loop = Loop(train, meta, validation, settings, np.full(len(train), 0.4, np.float32))
    state = loop.fresh(loop.start.labels.numpy(), None)
    z = torch.zeros(len(train))
    for moving in (False, False):
        z, _ = loop.epoch(state, z, moving)
    inner_before, labels = state.inner, state.moving.labels
    params = {"weight": state.weight, "bias": state.bias}

    def logits(p, x=loop.x, kind=loop.kind):
        return x @ p["weight"] + p["bias"][kind]

    def clean_loss(p):
        out = logits(p, loop.held, loop.held_kind)
        return torch.nn.functional.binary_cross_entropy_with_logits(out, loop.held_y)

    truth, _ = double_backward(logits, clean_loss, params, labels, torch.ones(len(train)), inner_before)
    loop.epoch(state, z, True)
    moved = torch.logit(labels.double()) - torch.logit(state.moving.labels.double())
    cosine = torch.nn.functional.cosine_similarity((truth * labels * (1 - labels)).double(), moved.double(), dim=0)
    assert float(cosine) >= 0.9999
    assert float(moved.square().mean().sqrt()) == pytest.approx(1e-3, rel=1e-3)


def test_what_is_known_does_not_move_and_rollouts_hold_a_label_back():
    train, _, meta, validation, _ = _world()
    rollouts = np.ones(len(train))
    rollouts[: len(train) // 2] = 20
    rollouts[train.last] = WHOLE
    began = 0.25 + 0.5 * monte_carlo(train)
    fitted = fit(train.counted(began * rollouts, rollouts), meta, validation, replace(FAST, anchor=8.0, epochs=30))
    moved = np.abs(fitted.labels - began)
    assert moved[train.last].max() < 1e-6
    many, few = (moved[(rollouts == count) & ~train.last].mean() for count in (20, 1))
    assert 0.01 < many < 0.7 * few


def test_equal_data_give_equal_fits():
    train, _, meta, validation, _ = _world()
    one, two = (fit(train, meta, validation, FAST) for _ in range(2))
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(one.head.weight, two.head.weight)
    assert one.validation == two.validation


def test_a_killed_run_goes_on(tmp_path):
    train, _, meta, validation, _ = _world()
    whole = fit(train, meta, validation, replace(FAST, rounds=3, epochs=20))
    place = tmp_path / "state.npz"

    class Killed(Exception):
        pass

    run, done = Loop.run, []

    def killed(self, *given):
        if len(done) == 2:
            raise Killed
        done.append(1)
        return run(self, *given)

    Loop.run = killed
    try:
        with pytest.raises(Killed):
            fit(train, meta, validation, replace(FAST, rounds=3, epochs=20), resume=place)
    finally:
        Loop.run = run
    resumed = fit(train, meta, validation, replace(FAST, rounds=3, epochs=20), resume=place)
    assert np.array_equal(resumed.labels, whole.labels)
    assert np.array_equal(resumed.head.weight, whole.head.weight)
    with pytest.raises(ConfigError, match="other settings"):
        fit(train, meta, validation, replace(FAST, rounds=2), resume=place)


def test_training_ends_when_validation_does_not_gain():
    train, _, meta, validation, _ = _world(flips=0.5)
    fitted = fit(train, meta, validation, replace(FAST, mode="plain", epochs=500, patience=5, lr=0.1))
    assert len(fitted.validation) < 100
    best = int(np.argmin(fitted.validation))
    short = fit(train, meta, validation, replace(FAST, mode="plain", epochs=best + 1, patience=500, lr=0.1))
    assert np.allclose(short.head.weight, fitted.head.weight)


def test_constant_rewards_are_reported():
    train, _, meta, validation, _ = _world()
    flat = train.counted(np.ones(len(train)), np.full(len(train), 2))
    assert fit(flat, meta, validation, replace(FAST, mode="plain", l2=100.0)).collapsed
    assert not fit(train, meta, validation, replace(FAST, mode="plain")).collapsed


def test_wrong_settings_and_sets_are_named():
    train, _, meta, validation, _ = _world()
    with pytest.raises(ConfigError, match="no mode"):
        Settings(mode="other")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin"):
        Settings(margin=0.5)
    with pytest.raises(ConfigError, match="meta set is empty"):
        fit(train, meta.only(np.zeros(len(meta), bool)), validation, FAST)
    assert set(MODES) == {"plain", "pooled", "reweight", "correct"}


def test_a_head_to_start_from_is_where_the_rounds_begin():
    train, _, meta, validation, test = _world()
    first = fit(train, meta, validation, replace(FAST, mode="plain")).head
    still = fit(train, meta, validation, replace(FAST, mode="plain", epochs=1, lr=1e-6), head=first).head
    assert still.rewards(test.states) == pytest.approx(first.rewards(test.states), abs=1e-3)
    pulled = fit(train, meta, validation, replace(FAST, mode="plain", l2=100.0), head=first).head
    assert pulled.weight == pytest.approx(first.weight, abs=0.02)
    without = fit(train, meta, validation, replace(FAST, mode="plain", l2=100.0)).head
    assert np.abs(without.weight).max() < 0.05 < np.abs(first.weight).max() / 2


def test_every_epoch_is_told():
    train, _, meta, validation, _ = _world()
    told: list[TrainingEvent] = []
    fitted = fit(train, meta, validation, replace(FAST, rounds=2, epochs=5, patience=9, cold=2), tell=told.append)
    stage, *events = told
    assert stage == StageStarted(stage="fit", unit="epochs", total=10)
    assert [event.done for event in events if isinstance(event, Progressed)] == list(range(1, 11))
    validated = [event for event in events if isinstance(event, Validated)]
    assert [event.at for event in validated] == list(range(1, 11))
    assert [event.loss for event in validated[5:]] == fitted.validation
    assert [event.meta for event in validated[5:]] == fitted.meta
    moved = [event.distance for event in events if isinstance(event, LabelsMoved)]
    assert len(moved) == 10
    assert moved[-1] > 0
    told.clear()
    fit(train, meta, validation, replace(FAST, mode="plain", epochs=5), tell=told.append)
    assert not any(isinstance(event, LabelsMoved) for event in told)
