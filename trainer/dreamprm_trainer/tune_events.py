"""What happens while a backbone is tuned, as frozen events: for a live view, a log, or tensorboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage begins, or is `done` of `total` along (activations: trees, training: steps)."""

    name: Literal["pack", "activations", "train", "save"]
    done: int = 0
    total: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """One training step. loss: of the batch before it; meta: of the meta batch after it, NaN without one; seconds: it
    took; tokens: of the batch."""

    step: int
    steps: int
    epoch: int
    loss: float
    meta: float
    lr: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """auc: within problems, NaN where none has both passing and failing programs. best: no earlier one was better.
    collapsed: rewards or labels have become one constant."""

    step: int
    epoch: int
    loss: float
    auc: float
    best: bool
    collapsed: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Weights, or labels that may move, after an epoch: mean distance from their start; quantiles 0, 0.1 ... 1."""

    epoch: int
    what: Literal["labels", "weights"]
    distance: float
    quantiles: tuple[float, ...]


Event = Stage | Stepped | Validated | Moved
Tell = Callable[[Event], None]
