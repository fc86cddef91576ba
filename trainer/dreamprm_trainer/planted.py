"""Does label correction work? Known step truth, noise put on it, and every control beside the correction.

python -m dreamprm_trainer.planted --out benchmarks/results/planted.json          # full size, some minutes
python -m dreamprm_trainer.planted --small --seeds 5                              # a minute

The programs are those of `plant.py`: correct ones and mutants whose first wrong function is known; their states are
frozen. For each seed the training problems are divided into noisy ones, clean ones (`meta`: outcomes of whole programs,
nothing about their steps) and validation; the noisy ones' steps get labels by one of two kinds of noise:

flip:     the truth of every step, turned over with probability `level`; one rollout.
rollouts: `rollouts` draws. A right prefix passes with a probability of its problem's own, Beta-distributed with mean
          1 - level (a policy finds some problems hard); a wrong one with level / 4 (repairs, weak tests). The outcome of
          a whole program is known.

Judged by: how well the labels order right and wrong prefixes (AUC) and their distance to the truth (Brier), on prefixes
that are not whole programs; and the AUC of the head so fitted on problems that it has never seen.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.aggregate import auc
from dreamprm_trainer.correct import Fitted, Settings, fit
from dreamprm_trainer.labels import WHOLE, Steps, blended, bounded, monte_carlo, shrunk, td
from dreamprm_trainer.tables import Floats

FILE = Path(__file__).parents[1] / "data" / "planted-0.5b.npz"
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """steps: with counts of the truth; truth: (N,) whether the prefix is right; test: (N,) problem is held out."""

    steps: Steps
    truth: Floats
    test: Bools


@dataclass(frozen=True, slots=True)
class Noise:
    kind: str
    level: float
    rollouts: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind} {self.level:.0%}" + (f", K={self.rollouts}" if self.kind == "rollouts" else "")


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One seed's division. `truth` runs along `train`."""

    train: Steps
    truth: Floats
    meta: Steps
    validation: Steps


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a method makes of a draw: labels (N,) of the noisy steps and a head."""

    labels: Floats
    fitted: Fitted


Method = Callable[[Draw], Outcome]


def read(path: Path = FILE) -> Planted:
    """The file of states that `write` made."""
    with np.load(path) as file:
        states = file["states"].astype(np.float32) * file["scale"]
        truth = file["truth"].astype(np.float32)
        steps = Steps(
            states, file["program"].astype(np.int64), file["problem"].astype(np.int64), truth, np.ones_like(truth)
        )
        return Planted(steps, truth, file["test"])


def write(path: Path, planted: Planted) -> None:
    """States as int8, each dimension in units of a 1/40 of its standard deviation, clipped at 3.2 of them."""
    states = planted.steps.states - planted.steps.states.mean(0)
    scale = (states.std(0) / 40 + 1e-6).astype(np.float32)
    np.savez_compressed(
        path,
        states=np.clip(np.round(states / scale), -127, 127).astype(np.int8),
        scale=scale,
        truth=planted.truth.astype(np.int8),
        program=planted.steps.program.astype(np.int16),
        problem=planted.steps.problem.astype(np.int16),
        test=planted.test,
    )


def noisy(steps: Steps, truth: Floats, noise: Noise, rng: np.random.Generator) -> Steps:
    """The steps with counts drawn by `noise`."""
    right = truth > 0.5
    if noise.kind == "flip":
        turned = rng.random(len(truth)) < noise.level
        return steps.counted((right ^ turned).astype(np.float32), np.ones(len(truth)))
    ability = rng.beta(2 * (1 - noise.level), 2 * noise.level, int(steps.problem.max()) + 1)
    chance = np.where(right, ability[steps.problem], noise.level / 4)
    passes = rng.binomial(noise.rollouts, chance)
    return steps.counted(
        np.where(steps.last, WHOLE * truth, passes), np.where(steps.last, WHOLE, noise.rollouts)
    )


def divide(planted: Planted, noise: Noise, seed: int, meta: float = 0.25, validation: float = 0.15) -> Draw:
    """Training problems at random into noisy, meta and validation."""
    rng = np.random.default_rng(seed)
    problems = rng.permutation(np.unique(planted.steps.problem[~planted.test]))
    clean, judge = (round(share * len(problems)) for share in (meta, validation))
    parts = []
    for some in np.split(problems, [clean, clean + judge]):
        parts.append(np.isin(planted.steps.problem, some))
    known = planted.steps.counted(WHOLE * planted.truth, np.full(len(planted.truth), WHOLE))
    last = planted.steps.last
    train = planted.steps.only(parts[2])
    return Draw(
        train=noisy(train, planted.truth[parts[2]], noise, rng),
        truth=planted.truth[parts[2]],
        meta=known.only(parts[0] & last),
        validation=known.only(parts[1] & last),
    )


def start(draw: Draw, how: str) -> Floats:
    """Labels before any fitting: `mc`, `beta`, `blend SHARE` or `td TRACE` (of the Beta posterior means)."""
    kind, _, value = how.partition(" ")
    if kind == "mc":
        return monte_carlo(draw.train)
    base = shrunk(draw.train)
    if kind == "blend":
        return blended(draw.train, base, float(value))
    return td(draw.train, base, float(value)) if kind == "td" else base


def fixed(how: str, settings: Settings) -> Method:
    """Train on labels that do not move."""

    def method(draw: Draw) -> Outcome:
        labels = start(draw, how)
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, settings, labels))

    return method


def moving(how: str, settings: Settings, then: Settings | None = None) -> Method:
    """Correct the labels from a start; `then`: and train a head on them, in another mode."""

    def method(draw: Draw) -> Outcome:
        fitted = fit(draw.train, draw.meta, draw.validation, settings, start(draw, how))
        labels = fitted.labels
        if then is not None:
            fitted = fit(draw.train, draw.meta, draw.validation, then, labels)
        return Outcome(labels, fitted)

    return method


def predicted(how: str, settings: Settings, strength: float) -> Method:
    """Labels as a Beta posterior whose prior is a pooled head's prediction, worth `strength` rollouts."""

    def method(draw: Draw) -> Outcome:
        first = fit(draw.train, draw.meta, draw.validation, settings, start(draw, how))
        prior = first.head.rewards(draw.train.states).astype(np.float32)
        labels = shrunk(draw.train, 0, 0) if strength == 0 else _posterior(draw.train, prior, strength)
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, settings, labels))

    return method


def _posterior(steps: Steps, prior: Floats, strength: float) -> Floats:
    return (steps.passes + strength * prior) / (steps.rollouts + strength)


def clean_only(settings: Settings) -> Method:
    """Train on the meta set alone; the labels are the head's predictions."""

    def method(draw: Draw) -> Outcome:
        fitted = fit(draw.meta, draw.meta, draw.validation, settings)
        return Outcome(fitted.head.rewards(draw.train.states).astype(np.float32), fitted)

    return method


def truth(settings: Settings) -> Method:
    """Train on the truth: what no method can have."""

    def method(draw: Draw) -> Outcome:
        return Outcome(draw.truth, fit(draw.train, draw.meta, draw.validation, settings, draw.truth))

    return method


def measure(planted: Planted, draw: Draw, outcome: Outcome) -> dict[str, float]:
    """Labels and rewards against the truth. `inner`: prefixes that are not whole programs."""
    inner = ~draw.train.last
    labels = bounded(outcome.labels, 1e-6)
    failing = draw.truth[draw.train.last][np.unique(draw.train.program, return_inverse=True)[1]] < 0.5
    rewards = outcome.fitted.head.rewards(planted.steps.states[planted.test])
    right, last = planted.truth[planted.test] > 0.5, planted.steps.last[planted.test]
    own = outcome.fitted.head.rewards(draw.train.states)
    return {
        "label_auc": auc(labels[inner].tolist(), (draw.truth[inner] > 0.5).tolist()),
        "label_auc_failing": auc(labels[inner & failing].tolist(), (draw.truth[inner & failing] > 0.5).tolist()),
        "label_brier": float(((labels - draw.truth)[inner] ** 2).mean()),
        "reward_auc_train": auc(own[inner].tolist(), (draw.truth[inner] > 0.5).tolist()),
        "prm_auc": auc(rewards.tolist(), right.tolist()),
        "prm_auc_inner": auc(rewards[~last].tolist(), right[~last].tolist()),
        "prm_auc_whole": auc(rewards[last].tolist(), right[last].tolist()),
        "prm_brier_inner": float(((rewards - right)[~last] ** 2).mean()),
        "collapsed": float(outcome.fitted.collapsed),
    }
