"""Labels and loss weights that follow the meta loss: how far, how they are held back, what never moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dreamprm_trainer.hypergradient import on_logits
from dreamprm_trainer.labels import WHOLE, Mode
from dreamprm_trainer.tables import Floats


class Pace(Protocol):
    """The settings of a move, as `correct.Settings` tells them."""

    @property
    def mode(self) -> Mode: ...
    @property
    def label_lr(self) -> float: ...
    @property
    def anchor(self) -> float: ...
    @property
    def margin(self) -> float: ...


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where labels (N,) begin, which of them may move, and how much each is trusted (on average 1)."""

    labels: Tensor
    free: Tensor
    trust: Tensor

    @classmethod
    def of(cls, labels: Floats, rollouts: Floats) -> Start:
        free = torch.from_numpy(rollouts < WHOLE)
        trust = torch.from_numpy(rollouts) + 2
        return cls(torch.from_numpy(labels), free, trust / trust[free].mean())


@dataclass(slots=True, eq=False)
class Moving:
    """Labels and weights (N,) as they are now. square: mean square of the first gradients, over `count` of them."""

    labels: Tensor
    weights: Tensor
    square: float = 0.0
    count: int = 0

    def move(
        self,
        start: Start,
        pace: Pace,
        for_labels: Tensor,
        for_weights: Tensor,
        rows: Tensor | slice = slice(None),
        *,
        first: bool,
    ) -> None:
        """Down the gradients (R,) of `rows`. The gradients of the `first` moves set the scale of all."""
        if pace.mode == "reweight":
            by = self._scaled(for_weights, first)
            self.weights = _put(self.weights, rows, (self.weights[rows] - pace.label_lr * by).clamp(0, 2))
            return
        y, free = self.labels[rows], start.free[rows]
        pull = self._scaled(torch.where(free, on_logits(y, for_labels), 0), first)
        back = torch.where(free, pace.anchor * start.trust[rows] * (y - start.labels[rows]), 0)
        logits = torch.logit(y) - pace.label_lr * (pull + back)
        self.labels = _put(self.labels, rows, torch.sigmoid(logits).clamp(pace.margin, 1 - pace.margin))

    def _scaled(self, gradient: Tensor, first: bool) -> Tensor:
        if first:
            total = self.square * self.count + float(gradient.square().mean()) * len(gradient)
            self.count += len(gradient)
            self.square = total / self.count
        return gradient / (math.sqrt(self.square) or 1.0)


def _put(values: Tensor, rows: Tensor | slice, new: Tensor) -> Tensor:
    """A copy with other values at `rows`: what was kept of earlier states must not change."""
    copy = values.clone()
    copy[rows] = new
    return copy
