"""Tuning as a whole, on a real if tiny Qwen2: it learns, labels move rightly, and neither a kill nor a second process
changes what comes out."""

import copy
import multiprocessing
import signal
import socket
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import tune_kit  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from torch.func import functional_call  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from tune_kit import examples, settings  # noqa: E402

from dreamprm_cli.aggregate import auc  # noqa: E402
from dreamprm_cli.errors import ConfigError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.checkpoint import load  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_packed  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import verify  # noqa: E402
from dreamprm_trainer.examples import Example  # noqa: E402
from dreamprm_trainer.hypergradient import double_backward, training_loss  # noqa: E402
from dreamprm_trainer.inner import Adam  # noqa: E402
from dreamprm_trainer.labels import MODES, WHOLE  # noqa: E402
from dreamprm_trainer.reward_model import build  # noqa: E402
from dreamprm_trainer.team import Team  # noqa: E402
from dreamprm_trainer.tree_attention import collate  # noqa: E402
from dreamprm_trainer.tune import packed, tune  # noqa: E402
from dreamprm_trainer.tune_events import Moved, Stage, Stepped, Validated  # noqa: E402
from dreamprm_trainer.tune_loop import Loop  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
LEARN = {"epochs": 3, "head_lr": 3e-2, "label_lr": 0.5, "layers": (2, 3)}
TRAIN, META, VALIDATION = examples(0, 12, flips=0.35), examples(30, 4), examples(40, 3)


def _inner(some):
    """(labels, right) of the steps inside programs."""
    pairs = [
        (label, program.passed)
        for one in some
        for program in one.programs
        for label, count in zip(program.labels, program.rollouts, strict=True)
        if label == label and count < WHOLE
    ]
    return [label for label, _ in pairs], [right for _, right in pairs]


def _judged(some):
    return [
        count for one in some for p in one.programs for y, count in zip(p.labels, p.rollouts, strict=True) if y == y
    ]


@pytest.mark.parametrize("params", ["lora", "full"])
def test_it_learns_and_what_is_saved_scores_as_the_trainer_did(tiny, tmp_path, params):
    chosen = settings(tiny, params=params, **LEARN, frozen_below=1, lr=1e-2 if params == "lora" else 2e-3)
    told = []
    done = tune(TRAIN, VALIDATION, chosen, tmp_path, told.append)
    assert done.validation[0] == pytest.approx(np.log(2), abs=1e-4)
    assert min(done.validation) < 0.55
    assert done.auc[-1] > 0.95
    assert not done.collapsed
    assert [one.loss for one in told if isinstance(one, Validated)] == done.validation
    steps = [one for one in told if isinstance(one, Stepped)]
    assert [one.step for one in steps] == list(range(1, steps[0].steps + 1))
    assert {one.name for one in told if isinstance(one, Stage)} == {"pack", "activations", "train", "save"}

    scorer = open_packed(str(done.checkpoint), device="cpu", dtype="fp32")
    live = [
        reward
        for one in VALIDATION
        for rewards in score_programs(scorer.start(one.problem), [program.steps for program in one.programs])
        for reward in rewards
        if reward == reward
    ]
    np.testing.assert_allclose(live, done.rewards, atol=1e-4 if params == "full" else 2e-3)  # fp16 states in the cache
    assert verify(str(done.checkpoint), device="cpu", dtype="fp32").steps > 0
    assert load(done.checkpoint).forms == ("stdin",)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_from_turned_labels(tiny, tmp_path, mode):
    told = []
    chosen = settings(tiny, mode=mode, **LEARN)
    done = tune(TRAIN, VALIDATION, chosen, tmp_path, told.append, meta=META)
    assert min(done.validation) < 0.4
    moved = [one for one in told if isinstance(one, Moved)]
    known = np.array(_judged(TRAIN)) == WHOLE
    labels, right = _inner(TRAIN)
    if mode == "correct":
        assert auc(done.labels[~known].tolist(), right) > auc(labels, right) + 0.1
        assert {one.what for one in moved} == {"labels"}
        assert moved[-1].distance > 0
    else:
        assert done.labels[~known].tolist() == labels
    if mode == "reweight":
        turned = np.array(labels) != np.array(right)
        assert done.weights[~known][turned].mean() < done.weights[~known][~turned].mean()
    assert len(moved) == (chosen.epochs - 1 if mode in ("correct", "reweight") else 0)
    assert bool(done.meta) == bool(moved)


def test_a_pairwise_loss_orders_programs(tiny, tmp_path):
    """Labels that say nothing; the programs' outcomes do."""
    blank = [
        Example(one.problem, tuple(replace(p, labels=tuple(y * 0 + 0.5 for y in p.labels)) for p in one.programs))
        for one in TRAIN
    ]
    done = tune(blank, VALIDATION, settings(tiny, **LEARN, pairwise=0.9, watch="auc"), tmp_path)
    assert max(done.auc) > 0.95
    assert max(tune(blank, VALIDATION, settings(tiny, **LEARN), tmp_path / "without").auc) < 0.95


def test_a_head_that_was_fitted_before_is_where_it_starts(tiny, tmp_path):
    weight = np.random.default_rng(0).normal(size=64).astype(np.float32)
    chosen = settings(tiny, **{**LEARN, "epochs": 1, "lr": 0.0, "head_lr": 0.0})
    done = tune(TRAIN, VALIDATION, chosen, tmp_path, head=Head(weight, 0.3, 2.0, 0.1))
    np.testing.assert_allclose(done.head.weight, weight / 2, rtol=1e-5)
    assert done.head.bias == pytest.approx(0.25)


def test_rewards_of_one_constant_are_called_collapsed(tiny, tmp_path):
    told = []
    done = tune(
        TRAIN, VALIDATION, settings(tiny, **{**LEARN, "epochs": 1, "lr": 0.0, "head_lr": 0.0}), tmp_path, told.append
    )
    assert done.collapsed
    assert all(one.collapsed for one in told if isinstance(one, Validated))


def test_it_stops_when_validation_gets_no_better(tiny, tmp_path):
    chosen = settings(tiny, **{**LEARN, "epochs": 9, "lr": 0.0, "head_lr": 0.0}, patience=2)
    assert len(tune(TRAIN[:2], VALIDATION, chosen, tmp_path).validation) == 3


def _midway(tiny, dtype="fp32"):
    """A loop in the middle of training, its labels about to move."""
    changes = {"lr": 1e-3, "head_lr": 1e-3, "clip": 0.02, "weight_decay": 0.0, "dtype": dtype}
    chosen = settings(tiny, mode="correct", cold=1, **changes)
    source = locate_backbone(str(tiny))
    unsure = [
        Example(one.problem, tuple(replace(p, labels=tuple(0.3 + 0.4 * y for y in p.labels)) for p in one.programs))
        for one in TRAIN
    ]
    sets = packed(unsure, META, VALIDATION, chosen, source.folder)
    model = build(source, chosen, None, getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}[dtype]), CPU)
    loop = Loop(Team(model, Accelerator(cpu=True), None, chosen.micro_tokens), *sets, chosen, lambda _: None)
    for order in loop.orders[0][1:5]:
        loop.step([loop.data.trees[index] for index in order])
    loop.position.epoch, loop.position.step = 1, 4
    return loop


def _first(loop):
    return [loop.data.trees[index] for index in loop.orders[0][0]]


def _moves(loop):
    """How far the logits of the first batch's labels go in a step, where they may."""
    before = torch.logit(loop.moving.labels)
    loop.step(_first(loop))
    rows = np.concatenate([tree.steps for tree in _first(loop)])
    return (torch.logit(loop.moving.labels) - before)[rows][loop.start.free[rows]]


def test_labels_move_in_bf16_as_they_do_in_fp32(tiny):
    """The finite difference must not drown in rounding."""
    exact, rough = _midway(tiny), _midway(tiny, "bf16")
    rough.team.model.load_state_dict(exact.team.model.trained, strict=False)
    rough.optimiser.load_state_dict(copy.deepcopy(exact.optimiser.state_dict()))
    assert torch.nn.functional.cosine_similarity(_moves(exact), _moves(rough), dim=0) > 0.98


def test_the_moves_are_those_of_the_tested_gradient(tiny):
    """A step's labels against differentiation through AdamW's step, with a batch in several forwards and clipping."""
    loop = _midway(tiny)
    chosen, model, trees = loop.settings, loop.team.model, _first(loop)
    rows = torch.from_numpy(np.concatenate([tree.steps for tree in trees]))
    held = [loop.meta.trees[index] for index in loop.meta_batches[0]]
    clean = torch.from_numpy(loop.meta.labels[np.concatenate([tree.steps for tree in held])])
    params = {name: value.detach().clone() for name, value in model.trained.items()}
    rate = chosen.lr * loop.rate()
    states = {name: loop.optimiser.state[value] for name, value in model.trained.items()}
    inner = Adam(
        rate,
        steps=4,
        first={name: state["exp_avg"].clone() for name, state in states.items()},
        second={name: state["exp_avg_sq"].clone() for name, state in states.items()},
    )
    free, labels = loop.start.free[rows], loop.moving.labels[rows]

    def run(some, params):
        return functional_call(model, params, (collate(some, CPU),))

    class Clipped(Adam):
        """As `clip_grad_norm_` does before the step, its factor held constant."""

        def step(self, params, grads):
            norm = float(torch.stack([grad.detach().norm() for grad in grads.values()]).norm())
            assert norm > chosen.clip
            return super().step(params, {name: grad * (chosen.clip / norm) for name, grad in grads.items()})

    with sdpa_kernel(SDPBackend.MATH):
        for_y, _ = double_backward(
            lambda p: run(trees, p),
            lambda p: training_loss(run(held, p), clean, torch.ones_like(clean)),
            params,
            labels,
            torch.ones_like(labels),
            Clipped(**{name: getattr(inner, name) for name in ("lr", "steps", "first", "second")}),
        )
    wanted = -(for_y * labels * (1 - labels))[free]
    assert torch.nn.functional.cosine_similarity(_moves(loop), wanted, dim=0) > 0.999
    assert bool((loop.moving.labels[rows][~free] == labels[~free]).all())


def test_sets_without_anything_to_learn_or_to_judge_by_are_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="training set"):
        tune([], VALIDATION, settings(tiny), tmp_path)
    with pytest.raises(ConfigError, match="meta set"):
        tune(TRAIN, VALIDATION, settings(tiny, mode="correct"), tmp_path)
    unknown = [
        Example(one.problem, tuple(replace(p, rollouts=(4,) * len(p.steps)) for p in one.programs))
        for one in VALIDATION
    ]
    with pytest.raises(ConfigError, match="known to be right or wrong"):
        tune(TRAIN, unknown, settings(tiny), tmp_path)


def test_a_folder_of_another_run_is_refused(tiny, tmp_path):
    chosen = settings(tiny, **{**LEARN, "epochs": 1})
    first = tune(TRAIN[:2], VALIDATION, chosen, tmp_path)
    told = []
    again = tune(TRAIN[:2], VALIDATION, chosen, tmp_path, told.append)
    assert not any(isinstance(event, Stepped) for event in told)
    assert again.validation == first.validation
    np.testing.assert_array_equal(again.head.weight, first.head.weight)
    with pytest.raises(ConfigError, match="other settings or data"):
        tune(TRAIN[:3], VALIDATION, chosen, tmp_path)


@pytest.fixture(scope="module")
def processes():
    """Processes that are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dreamprm_trainer.tune"])
    return context


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The result of the run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    tune_kit.run(tiny, folder)
    return dict(np.load(folder / "done.npz"))


def test_a_killed_run_ends_as_one_that_was_not(tiny, tmp_path, processes, whole):
    told, tell = processes.Pipe(duplex=False)
    killed = processes.Process(target=tune_kit.run, args=(tiny, tmp_path, tell))
    killed.start()
    while told.recv() < 5:  # the last state kept is that of step 4
        pass
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "done.npz").exists()
    told, tell = processes.Pipe(duplex=False)
    resumed = processes.Process(target=tune_kit.run, args=(tiny, tmp_path, tell))
    resumed.start()
    assert told.recv() in (5, 7)  # it may have come to step 6 before the signal
    resumed.join()
    assert resumed.exitcode == 0
    found = np.load(tmp_path / "done.npz")
    for name, value in whole.items():
        np.testing.assert_array_equal(found[name], value)


def test_two_processes_do_what_one_does(tiny, tmp_path, processes, whole):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    both = [processes.Process(target=tune_kit.run, args=(tiny, tmp_path, None, rank, port)) for rank in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    found = np.load(tmp_path / "done.npz")
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3)
