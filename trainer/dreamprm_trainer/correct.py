"""A linear head on frozen states, fitted to labels that may move: modes plain, pooled, reweight and correct.

plain:    cross-entropy to the labels as they are.
pooled:   the clean steps of the meta set are trained on beside the noisy ones.
reweight: each step's weight, in [0, 2], follows dL/dw of the meta loss (as the public DreamPRM-Code does).
correct:  each label, y = sigmoid(a), follows dL/dy of the meta loss (DreamPRM-Code's idea; see `hypergradient.py`).

Every epoch is one full-batch step, so nothing is drawn and equal data give equal heads. The label gradient needs the
states times D v; they are read once for it and for the next epoch's logits together, so correction is nearly free:

    z = X t        g = X' r        t' = t - u(g)        v = grad L(t')        [X D v, X t'] = X [D v, t']
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.head import Head
from dreamprm_cli.training import LabelsMoved, Progressed, StageStarted, Tell, Validated, silent
from dreamprm_trainer.hypergradient import label_gradients
from dreamprm_trainer.inner import SGD, Adam, Inner
from dreamprm_trainer.labels import MODES, Mode, Steps, bounded, join, monte_carlo
from dreamprm_trainer.moving import Moving, Start
from dreamprm_trainer.tables import Floats


@dataclass(frozen=True, slots=True)
class Settings:
    """How a head and its labels are fitted.

    l2:        penalty on the weights of standardised states, in the training loss
    lr, inner: of the head; epochs: at most so many; patience: epochs without a better validation loss before the end
    cold:      epochs before labels or weights begin to move
    label_lr:  how far label logits (or weights) move in the first such epoch, root mean square
    anchor:    pull of a label back to its start, times its rollouts + 2 over their mean; what is known does not move
    margin:    labels stay in [margin, 1 - margin]
    rounds:    how often the head starts anew from the labels reached ("warm restarts")
    clean:     weight of a clean step against a noisy one in mode pooled
    apart:     whole programs have a bias and a mean of their own, so that how often programs pass (it is not how often
               their first functions are right) moves no label of an inner step; the head gets the inner steps' bias
    """

    mode: Mode = "correct"
    l2: float = 0.03
    lr: float = 0.003
    inner: Literal["sgd", "adam"] = "adam"
    epochs: int = 200
    patience: int = 40
    cold: int = 10
    label_lr: float = 0.05
    anchor: float = 0.0
    margin: float = 0.02
    rounds: int = 1
    clean: float = 1.0
    apart: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"no mode {self.mode!r}", f"one of {', '.join(MODES)}")
        if self.inner not in ("sgd", "adam"):
            raise ConfigError(f"no inner optimiser {self.inner!r}", "sgd or adam")
        if not 0 < self.margin < 0.5:
            raise ConfigError(f"margin {self.margin} is not between 0 and 0.5")


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """head: at the best validation loss; labels, weights: (N,) of the noisy steps, then; validation, meta: losses by
    epoch; collapsed: the rewards or the labels had become one constant."""

    head: Head
    labels: Floats
    weights: Floats
    validation: list[float] = field(default_factory=list)
    meta: list[float] = field(default_factory=list)
    collapsed: bool = False


@dataclass(slots=True, eq=False)
class _State:
    """Everything that an epoch changes."""

    weight: Tensor
    bias: Tensor
    inner: Inner
    moving: Moving  # of the noisy steps


def fit(
    train: Steps,
    meta: Steps,
    validation: Steps,
    settings: Settings,
    start: Floats | None = None,
    resume: Path | None = None,
    head: Head | None = None,
    tell: Tell = silent,
) -> Fitted:
    """Fit a head to `train`, whose labels begin at `start` (default: Monte-Carlo).

    meta, validation: clean steps of other problems. resume: file that keeps the state between rounds of a killed run;
    it must be of the same data and settings. head: where each round starts, and what the penalty pulls to, instead of
    zeros. tell: hears of each epoch. Raises ConfigError where the sets share no dimension or one is empty.
    """
    for name, some in (("train", train), ("meta", meta), ("validation", validation)):
        if not len(some) or some.states.shape[1] != train.states.shape[1]:
            raise ConfigError(f"the {name} set is empty or has other states than the training set")
    labels = (monte_carlo(train) if start is None else start).astype(np.float32)
    if settings.mode == "correct":
        labels = bounded(labels, settings.margin)
    problem = Loop(train, meta, validation, settings, labels, head, tell)
    kept, first = _read(resume, settings)
    fitted = kept
    epochs = settings.rounds * settings.epochs
    tell(StageStarted(stage="fit", unit="epochs", total=epochs, done=first * settings.epochs))
    for number in range(first, settings.rounds):
        done = number * settings.epochs
        reached, weights = (labels, None) if fitted is None else (fitted.labels, fitted.weights)
        fitted = problem.run(reached, weights, done)
        _write(resume, settings, fitted, number + 1)
    assert fitted is not None
    return fitted


class Loop:
    """The data as tensors, standardised, and the epochs over them. `kind` is 1 for whole programs set apart, else 0."""

    def __init__(
        self,
        train: Steps,
        meta: Steps,
        validation: Steps,
        settings: Settings,
        labels: Floats,
        head: Head | None = None,
        tell: Tell = silent,
    ) -> None:
        self.settings, self.noisy, self.tell = settings, len(train), tell
        self.apart = settings.apart and bool(train.last.any() and not train.last.all())
        self.spread: Floats = train.states.std(0) + np.float32(1e-3)
        self.means = self._means(train)
        pooled = settings.mode == "pooled"
        self.x, self.kind = self._standard(join(train, meta) if pooled else train)
        self.held, self.held_kind = self._standard(meta)
        self.held_y = torch.from_numpy(monte_carlo(meta))
        self.judge, self.judge_kind = self._standard(validation)
        self.judge_y = torch.from_numpy(monte_carlo(validation))
        self.fixed = self.held_y if pooled else self.held_y[:0]
        weight, bias = (np.zeros_like(self.spread), 0.0) if head is None else (head.weight, head.bias)
        self.centre = torch.from_numpy(weight * self.spread)
        self.level = torch.from_numpy((bias + self.means @ weight).astype(np.float32))
        self.start = Start.of(labels, train.rollouts)

    def _means(self, train: Steps) -> Floats:
        """(2, F): of steps inside programs and of whole programs, or twice that of all steps."""
        whole = train.last
        if not self.apart:
            return np.stack([train.states.mean(0)] * 2)
        return np.stack([train.states[~whole].mean(0), train.states[whole].mean(0)])

    def _standard(self, steps: Steps) -> tuple[Tensor, Tensor]:
        kind = steps.last.astype(np.int64) if self.apart else np.zeros(len(steps), np.int64)
        return torch.from_numpy((steps.states - self.means[kind]) / self.spread), torch.from_numpy(kind)

    def fresh(self, labels: Floats, weights: Floats | None) -> _State:
        inner: Inner = Adam(self.settings.lr) if self.settings.inner == "adam" else SGD(self.settings.lr)
        return _State(
            weight=self.centre,
            bias=self.level,
            inner=inner,
            moving=Moving(
                labels=torch.from_numpy(labels),
                weights=torch.ones(self.noisy) if weights is None else torch.from_numpy(weights),
            ),
        )

    def run(self, labels: Floats, weights: Floats | None = None, before: int = 0) -> Fitted:
        """Epochs until the validation loss has not improved for `patience` of them. before: those of earlier rounds."""
        state = self.fresh(labels, weights)
        z = self.x @ state.weight + state.bias[self.kind]
        best, best_epoch, kept = np.inf, 0, self._keep(state)
        validation, losses = [], []
        for epoch in range(self.settings.epochs):
            z, loss = self.epoch(state, z, moving=epoch >= self.settings.cold)
            losses.append(loss)
            validation.append(self._loss(self.judge, self.judge_kind, self.judge_y, state)[0])
            self._tell(before + epoch + 1, z, state, validation[-1], loss)
            if validation[-1] < best - 1e-6:
                best, best_epoch, kept = validation[-1], epoch, self._keep(state)
            elif epoch - best_epoch >= self.settings.patience:
                break
        weight, bias, final, sample = kept
        folded = weight.numpy() / self.spread
        rewards = torch.sigmoid(self.x[: self.noisy] @ weight + bias[self.kind[: self.noisy]])
        return Fitted(
            head=Head(weight=folded.astype(np.float32), bias=float(bias[0] - float(folded @ self.means[0]))),
            labels=final.numpy(),
            weights=sample.numpy(),
            validation=validation,
            meta=losses,
            collapsed=bool(rewards.std() < 0.01 or final.std() < 0.01),
        )

    def epoch(self, state: _State, z: Tensor, moving: bool) -> tuple[Tensor, float]:
        """One step of the head at logits z (N,), and of labels or weights if `moving`: new logits, meta loss."""
        mode, count, noisy = self.settings.mode, len(self.x), self.noisy
        y = torch.cat([state.moving.labels, self.fixed])
        w = torch.cat([state.moving.weights, torch.full_like(self.fixed, self.settings.clean)])
        residual = w * (torch.sigmoid(z) - y) / count
        grads = {
            "weight": self.x.T @ residual + self.settings.l2 * (state.weight - self.centre),
            "bias": torch.zeros(2).index_add(0, self.kind, residual),
        }
        moved = state.inner.step({"weight": state.weight, "bias": state.bias}, grads)
        diagonal = state.inner.diagonal(grads) if moving and mode in ("reweight", "correct") else None
        state.inner = state.inner.after(grads)
        state.weight, state.bias = moved["weight"], moved["bias"]
        loss, error = self._loss(self.held, self.held_kind, self.held_y, state)
        if diagonal is None:
            return self.x @ state.weight + state.bias[self.kind], loss
        direction = diagonal["weight"] * (self.held.T @ error)
        both = F.linear(self.x, torch.stack([direction, state.weight]))  # (N, 2); six times as quick as x @ (F, 2)
        along = both[:, 0] + (diagonal["bias"] * torch.zeros(2).index_add(0, self.held_kind, error))[self.kind]
        gradients = label_gradients(z[:noisy], y[:noisy], state.moving.weights, along[:noisy])
        state.moving.move(self.start, self.settings, *gradients, first=not state.moving.count)
        return both[:, 1] + state.bias[self.kind], loss

    def _tell(self, epoch: int, z: Tensor, state: _State, validation: float, meta: float) -> None:
        labels, free = state.moving.labels, self.start.free
        self.tell(Progressed(done=epoch, loss=float(F.binary_cross_entropy_with_logits(z[: self.noisy], labels))))
        self.tell(Validated(at=epoch, loss=validation, meta=meta))
        if self.settings.mode == "correct" and free.any():
            self.tell(LabelsMoved(at=epoch, distance=float((labels - self.start.labels)[free].abs().mean())))

    @staticmethod
    def _loss(x: Tensor, kind: Tensor, y: Tensor, state: _State) -> tuple[float, Tensor]:
        """Mean cross-entropy and its derivative for each logit (M,)."""
        z = x @ state.weight + state.bias[kind]
        return float(F.binary_cross_entropy_with_logits(z, y)), (torch.sigmoid(z) - y) / len(y)

    @staticmethod
    def _keep(state: _State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return state.weight, state.bias, state.moving.labels, state.moving.weights


def _write(path: Path | None, settings: Settings, fitted: Fitted, rounds: int) -> None:
    if path is None:
        return
    arrays: dict[str, Any] = {
        "settings": repr(asdict(settings)),
        "rounds": rounds,
        "weight": fitted.head.weight,
        "bias": fitted.head.bias,
        "labels": fitted.labels,
        "weights": fitted.weights,
        "validation": fitted.validation,
        "meta": fitted.meta,
        "collapsed": fitted.collapsed,
    }
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    with scratch.open("wb") as file:
        np.savez(file, **arrays)
    scratch.replace(path)


def _read(path: Path | None, settings: Settings) -> tuple[Fitted | None, int]:
    """What an earlier run left and how many rounds it had done. Raises ConfigError for other settings."""
    if path is None or not path.exists():
        return None, 0
    with np.load(path) as kept:
        if str(kept["settings"]) != repr(asdict(settings)):
            raise ConfigError(f"{path} was left by a run with other settings", "name another file, or remove it")
        fitted = Fitted(
            head=Head(kept["weight"], float(kept["bias"])),
            labels=kept["labels"],
            weights=kept["weights"],
            validation=kept["validation"].tolist(),
            meta=kept["meta"].tolist(),
            collapsed=bool(kept["collapsed"]),
        )
        return fitted, int(kept["rounds"])
