"""A linear head on frozen features: convex, so the same data and settings always give the same head.

The loss is a weighted sum of two logistic losses and an L2 penalty: how likely each step is of a program that passes
(`pointwise`), and whether a problem's passing programs stand above its failing ones (`pairwise`, on the mean of a
program's step logits). The first is what makes a reward a probability, the second what best-of-n needs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dreamprm_cli.prm.head import Head
from dreamprm_cli.training import Progressed, Tell, silent
from dreamprm_trainer.tables import Floats, Table

Steps = Literal["all", "last", "mean"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fitted.

    layers:   whose states are read, counted from 1
    l2:       penalty on the weights of standardised features
    steps:    pointwise loss on all steps, on the last one, or on the mean of a program's step states
    pairwise: share of the pairwise loss, 0 to 1
    """

    layers: tuple[int, ...]
    l2: float = 0.1
    steps: Steps = "all"
    pairwise: float = 0.0


def fit(
    table: Table,
    settings: Settings,
    cached: tuple[int, ...],
    weights: Floats | None = None,
    start: Head | None = None,
    tell: Tell = silent,
) -> Head:
    """The head that minimises the loss on `table`. weights: (P,) of programs, default 1.

    start: a head of the same layers that the penalty pulls to, instead of zeros: little data change it little.
    tell:  hears of the loss each time that it is computed.
    """
    x = table.features(settings.layers, cached)
    mean: Floats = x.mean(0)
    scale: Floats = x.std(0) + np.float32(1e-3)
    each = np.ones(len(table.items), np.float32) if weights is None else weights
    centre = np.zeros(x.shape[1], np.float32) if start is None else start.weight * scale
    level = 0.0 if start is None else start.bias + float(start.weight @ mean)
    theta, bias = _minimise(table, (x - mean) / scale, settings, each, centre, level, tell)
    folded = theta / scale
    return Head(weight=folded.astype(np.float32), bias=float(bias - folded @ mean))


def _minimise(
    table: Table, x: Floats, settings: Settings, weights: Floats, centre: Floats, level: float, tell: Tell
) -> tuple[Floats, float]:
    """Weights (F,) and bias for standardised features x (S, F), by L-BFGS from `centre` and `level`."""
    count: Floats = np.bincount(table.program, minlength=len(table.items)).astype(np.float32)
    pooled = _pool(x, table, count)
    if settings.steps == "mean":
        points, target, weight = pooled, table.outcome, weights
    else:
        keep = table.last if settings.steps == "last" else np.ones(len(x), bool)
        share: Floats = np.reciprocal(count) if settings.steps == "all" else np.ones_like(count)
        points, target, weight = x[keep], table.target[keep], (weights * share)[table.program[keep]]
    above, below, pair_weight = _pairs(table, weights)
    points_t, target_t = torch.from_numpy(np.ascontiguousarray(points)), torch.from_numpy(target)
    weight_t = torch.from_numpy(weight / weight.sum())
    difference = torch.from_numpy(pooled[above] - pooled[below])
    pair_t = torch.from_numpy(pair_weight)
    ratio = settings.pairwise if len(above) else 0.0
    around = torch.from_numpy(centre)
    theta = around.clone().requires_grad_()
    bias = torch.full((1,), level, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [theta, bias], max_iter=200, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    evaluations = itertools.count(1)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        total = settings.l2 / 2 * (theta - around).square().sum()
        # A trace of the pointwise loss is always there: without it a purely pairwise head would have no bias.
        share = max(1 - ratio, 0.01)
        total = (
            total
            + share
            * (weight_t * F.binary_cross_entropy_with_logits(points_t @ theta + bias, target_t, reduction="none")).sum()
        )
        if ratio:
            total = total + ratio * (pair_t * F.softplus(-(difference @ theta))).sum()
        total.backward()  # type: ignore[no-untyped-call]
        tell(Progressed(done=next(evaluations), loss=float(total.detach())))
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return theta.detach().numpy(), float(bias.detach())


def _pool(x: Floats, table: Table, count: Floats) -> Floats:
    """Mean over each program's steps: (P, F)."""
    pooled = np.zeros((len(table.items), x.shape[1]), np.float32)
    np.add.at(pooled, table.program, x)
    pooled /= np.maximum(count, 1)[:, None]
    return pooled


def _pairs(table: Table, weights: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Indices of (passing, failing) programs of one problem; every problem's pairs weigh as much as its programs."""
    outcome, problem = table.outcome, table.problem
    above: list[int] = []
    below: list[int] = []
    weight: list[float] = []
    for number in np.unique(problem):
        members = np.flatnonzero(problem == number)
        good, bad = members[outcome[members] > 0.5], members[outcome[members] < 0.5]
        pairs = len(good) * len(bad)
        for one in good:
            above += [int(one)] * len(bad)
            below += [int(other) for other in bad]
            weight += [float(weights[members].mean()) / max(pairs, 1)] * len(bad)
    total = sum(weight) or 1.0
    empty = np.array([], np.int64)
    return (
        np.array(above, np.int64) if above else empty,
        np.array(below, np.int64) if below else empty,
        np.array(weight, np.float32) / np.float32(total),
    )


def calibrate(head: Head, table: Table, cached: tuple[int, ...], layers: tuple[int, ...]) -> Head:
    """The head with the temperature and offset that make its step rewards likeliest on `table` (Platt scaling)."""
    count = np.bincount(table.program, minlength=len(table.items))
    scores = head.logits(table.features(layers, cached))
    temperature, offset = platt(scores, table.target, 1 / count[table.program])
    return Head(weight=head.weight, bias=head.bias, temperature=temperature, offset=offset)


def platt(scores: NDArray[np.float64], labels: Floats, weights: NDArray[np.float64]) -> tuple[float, float]:
    """(temperature, offset): sigmoid(scores / temperature + offset) is likeliest for labels (N,) in [0, 1]."""
    logits, target, weight = torch.from_numpy(scores), torch.from_numpy(labels).double(), torch.from_numpy(weights)
    slope = torch.ones(1, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, offset], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        each = F.binary_cross_entropy_with_logits(logits * slope + offset, target, weight, reduction="sum")
        total = each / weight.sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    steepness = max(float(slope.detach()), 1e-3)  # a head that ranks backwards must not be turned round in secret
    return 1 / steepness, float(offset.detach())
