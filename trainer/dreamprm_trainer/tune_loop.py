"""The steps over shuffled batches: losses, labels that move, validation. Orders come from seed and epoch alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dreamprm_cli.aggregate import auc
from dreamprm_trainer.hypergradient import label_gradients
from dreamprm_trainer.labels import bounded
from dreamprm_trainer.moving import Moving, Start
from dreamprm_trainer.sequences import Sequences, Tree, join, shuffled
from dreamprm_trainer.tables import Floats, Ints
from dreamprm_trainer.team import Forward, Loss, Team
from dreamprm_trainer.tune_events import Moved, Stepped, Tell, Validated
from dreamprm_trainer.tune_settings import TuneSettings
from dreamprm_trainer.unrolled import correct_step, plain_step

# How far the finite difference goes. In bf16 a shorter one is lost in rounding.
_RELATIVE = {torch.float32: 3e-4, torch.bfloat16: 5e-3}


@dataclass(slots=True)
class Position:
    """Where a run stands, and what it has seen. since: validations since the best; collapsed: at the best."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = math.inf
    since: int = 0
    collapsed: bool = False
    done: bool = False
    validation: list[float] = field(default_factory=list)
    auc: list[float] = field(default_factory=list)
    meta: list[float] = field(default_factory=list)


class Loop:
    """Model, optimiser and labels, and the data they go over."""

    def __init__(
        self, team: Team, train: Sequences, meta: Sequences, validation: Sequences, settings: TuneSettings, tell: Tell
    ) -> None:
        self.team, self.meta, self.validation, self.settings, self.tell = team, meta, validation, settings, tell
        self.data = join(train, meta) if settings.mode == "pooled" else train
        labels = bounded(train.labels, settings.margin) if settings.mode == "correct" else train.labels
        self.start = Start.of(labels, train.rollouts)
        self.moving = Moving(self.start.labels, torch.ones(len(labels)))
        self.fixed = torch.from_numpy(self.data.labels[len(labels) :])
        self.weight = torch.from_numpy(self.data.weight.copy())
        self.weight[len(labels) :] *= settings.clean
        self.position = Position()
        head = set(team.model.head.parameters())
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in team.model.trained.values() if p not in head], "base": settings.lr},
                {"params": list(head), "base": settings.head_lr},
            ],
            weight_decay=settings.weight_decay,
        )
        self.orders = [self._shuffled(self.data, settings.batch_tokens, 0, n) for n in range(settings.epochs)]
        self.steps = sum(map(len, self.orders))
        self.meta_batches = self._shuffled(meta, max(1, int(settings.meta_share * settings.batch_tokens)), 1)

    def run(self) -> Iterator[bool]:
        """Train to the end. Yields where the state should be kept; True when validation was better than ever before."""
        position, settings = self.position, self.settings
        if not position.validation:
            yield self.validate()
        while not position.done:
            order = self.orders[position.epoch]
            self.step([self.data.trees[index] for index in order[position.batch]])
            position.batch, position.step = position.batch + 1, position.step + 1
            if position.batch == len(order):
                self._tell_moved()
                position.epoch, position.batch = position.epoch + 1, 0
                best = self.validate()
                position.done |= position.epoch == settings.epochs
                yield best
            elif settings.validate_every and position.step % settings.validate_every == 0:
                yield self.validate()
            elif settings.save_every and position.step % settings.save_every == 0:
                yield False

    def step(self, trees: Sequence[Tree]) -> None:
        """One step on a batch; its labels or weights move when their time has come."""
        settings, position = self.settings, self.position
        begin = time.perf_counter()
        rate = self.rate()
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * rate
        rows = torch.from_numpy(np.concatenate([tree.steps for tree in trees]))
        labels = torch.cat([self.moving.labels, self.fixed])[rows]
        weights = torch.cat([self.moving.weights, torch.ones_like(self.fixed)])[rows] * self.weight[rows]

        def train() -> Tensor:
            return self.team.backward(trees, self._loss(trees, labels, weights))

        loss = math.nan
        if settings.mode in ("reweight", "correct") and position.epoch >= settings.cold:
            told = correct_step(
                train,
                lambda: self.team.logits(trees),
                self._meta_backward,
                self.optimiser,
                settings.clip,
                _RELATIVE[self.team.model.dtype],
            )
            logits, loss = told.logits.cpu(), told.loss
            for_labels, for_weights = label_gradients(logits, labels, weights, told.along.cpu())
            first = position.epoch == settings.cold
            self.moving.move(self.start, settings, for_labels, for_weights * self.weight[rows], rows, first=first)
            position.meta.append(loss)
        else:
            logits = plain_step(train, self.optimiser, settings.clip).cpu()
        self.tell(
            Stepped(
                step=position.step + 1,
                steps=self.steps,
                epoch=position.epoch,
                loss=float(_pointwise(logits, labels, weights).mean()),
                meta=loss,
                lr=settings.lr * rate,
                tokens=sum(map(len, trees)),
                seconds=time.perf_counter() - begin,
            )
        )

    def validate(self) -> bool:
        """Measure the validation set; True when it is better than ever before."""
        begin, position = time.perf_counter(), self.position
        logits = self.scores()
        judged = self.validation.known & np.isfinite(logits)
        z, y = torch.from_numpy(logits[judged]), torch.from_numpy(self.validation.labels[judged])
        loss, within = float(F.binary_cross_entropy_with_logits(z, y)), _within(self.validation, logits)
        figure = loss if self.settings.watch == "loss" else -within
        best = figure < position.best - 1e-6
        collapsed = bool(np.nanstd(sigmoid(logits)) < 0.01 or self.moving.labels.std() < 0.01)
        if best:
            position.best, position.since, position.collapsed = figure, 0, collapsed
        else:
            position.since += 1
        position.done = position.since >= self.settings.patience
        position.validation.append(loss)
        position.auc.append(within)
        self.tell(
            Validated(
                step=position.step,
                epoch=position.epoch,
                loss=loss,
                auc=within,
                best=best,
                collapsed=collapsed,
                seconds=time.perf_counter() - begin,
            )
        )
        return best

    def scores(self) -> Floats:
        """Logits (S,) of the validation set; NaN for steps left out."""
        trees = self.validation.trees
        logits: Floats = np.full(len(self.validation.labels), np.nan, np.float32)
        logits[np.concatenate([tree.steps for tree in trees])] = self.team.logits(trees).cpu().numpy()
        return logits

    def _loss(self, trees: Sequence[Tree], labels: Tensor, weights: Tensor) -> Loss:
        """Of a batch: pointwise mean over its steps, pairwise mean over its trees with passing and failing programs."""
        share, pairs = self.settings.pairwise, max(1, sum(self._mixed(tree) for tree in trees))

        def loss(z: Tensor, one: Forward) -> Tensor:
            y, w = labels[one.place].to(z.device), weights[one.place].to(z.device)
            total = (1 - share) * _pointwise(z, y, w).sum() / len(labels)
            if share:
                parts = torch.split(z, [len(tree.reads) for tree in one.trees])
                for tree, part in zip(one.trees, parts, strict=True):
                    if self._mixed(tree):
                        total = total + share * _pairwise(part, tree.program, self.data.passed) / pairs
            return total

        return loss

    def _mixed(self, tree: Tree) -> bool:
        return len(set(self.data.passed[tree.program].tolist())) == 2

    def _meta_backward(self) -> Tensor:
        """The next meta batch's gradient, and its loss."""
        batch = self.meta_batches[len(self.position.meta) % len(self.meta_batches)]
        trees = [self.meta.trees[index] for index in batch]
        labels = torch.from_numpy(self.meta.labels[np.concatenate([tree.steps for tree in trees])])
        ones = torch.ones_like(labels)

        def loss(z: Tensor, one: Forward) -> Tensor:
            y = labels[one.place].to(z.device)
            return _pointwise(z, y, torch.ones_like(z)).sum() / len(labels)

        return _pointwise(self.team.backward(trees, loss).cpu(), labels, ones).mean()

    def _shuffled(self, data: Sequences, tokens: int, *seed: int) -> list[list[int]]:
        return shuffled([len(tree) for tree in data.trees], tokens, self.settings.seed, *seed)

    def rate(self) -> float:
        """Of the greatest learning rate: up over the warm-up, then down to 0 at the end of all epochs."""
        step = self.position.step
        return min(1.0, (step + 1) / max(1, self.settings.warmup)) * (1 - step / self.steps)

    def _tell_moved(self) -> None:
        if self.settings.mode not in ("reweight", "correct") or self.position.epoch < self.settings.cold:
            return
        labels, free = self.settings.mode == "correct", self.start.free
        now = self.moving.labels[free] if labels else self.moving.weights
        since = self.start.labels[free] if labels else torch.ones_like(now)
        if len(now):
            self.tell(
                Moved(
                    epoch=self.position.epoch,
                    what="labels" if labels else "weights",
                    distance=float((now - since).abs().mean()),
                    quantiles=tuple(torch.quantile(now, torch.linspace(0, 1, 11)).tolist()),
                )
            )


def _pointwise(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(N,) weighted cross-entropy to soft labels."""
    return weights * (F.softplus(logits) - labels * logits)


def _pairwise(logits: Tensor, program: Ints, passed: NDArray[np.bool_]) -> Tensor:
    """Mean over pairs of passing and failing programs of softplus(failing - passing), mean step logits each."""
    numbers, index = np.unique(program, return_inverse=True)
    place = torch.from_numpy(index).to(logits.device)
    sums = torch.zeros(len(numbers), device=logits.device).index_add(0, place, logits)
    means = sums / torch.bincount(place)
    right = torch.from_numpy(passed[numbers]).to(logits.device)
    return F.softplus(means[~right][None] - means[right][:, None]).mean()


def _within(data: Sequences, logits: Floats) -> float:
    """Mean over problems of the AUC of mean step rewards against outcomes; NaN where no problem has both."""
    known = np.isfinite(logits)
    programs = data.program[known]
    total = np.bincount(programs, sigmoid(logits[known]), len(data.passed))
    count = np.bincount(programs, minlength=len(data.passed))
    values = []
    for number in np.unique(data.problem):
        own = np.flatnonzero((data.problem == number) & (count > 0))
        if len(set(data.passed[own].tolist())) == 2:
            values.append(auc((total[own] / count[own]).tolist(), data.passed[own].tolist()))
    return float(np.mean(values)) if values else math.nan


def sigmoid(logits: Floats) -> Floats:
    return np.float32(0.5) * (1 + np.tanh(logits / 2))
