"""What happens in a training, as frozen events. The live view folds them; TensorBoard's writer reads them too.

Events hold no time: what trains looks at no clock, and whoever listens stamps them as they come. Losses are mean
cross-entropies in nats; NaN where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEvent:
    """Base of the events below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(TrainingEvent):
    """recipe: its name; params: features, lora or full; mode: plain, pooled, reweight or correct."""

    recipe: str
    backbone: str
    params: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStarted(TrainingEvent):
    """A training of several parts (`dreamprm train REPO`: mine, label, fit, eval) begins the one at index `at`."""

    parts: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(TrainingEvent):
    """A part of the work begins, of `total` units (0: not known); `done` of them were there before. most_s: it takes no
    longer than that, whatever is done by then."""

    stage: str
    unit: str
    total: int
    done: int = 0
    most_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(TrainingEvent):
    """`done` units of the stage, `tokens` read or written by a model since it began; the loss of what came last."""

    done: int
    tokens: int = 0
    loss: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(TrainingEvent):
    """After `at` units of the stage: loss on the validation set, and on the meta set where there is one. auc: within
    validation problems, where that says which state is the best; else the loss does."""

    at: int
    loss: float
    meta: float = math.nan
    auc: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsMoved(TrainingEvent):
    """After `at` units of the stage: mean distance of the labels that may move from where they began, 0 to 1."""

    at: int
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingNotice(TrainingEvent):
    """One line the user should see."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFinished(TrainingEvent):
    """Where the checkpoint is."""

    checkpoint: str


Tell = Callable[[TrainingEvent], None]


def silent(event: TrainingEvent) -> None:
    """A `Tell` that nobody listens to."""
