"""What a correction did to the labels: histograms before and after, and the steps that moved most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamprm_trainer.labels import Steps
from dreamprm_trainer.tables import Floats


@dataclass(frozen=True, slots=True)
class Moved:
    """A step whose label moved: its place in the table, program and problem, the label's way and its counts."""

    index: int
    program: int
    problem: int
    before: float
    after: float
    passes: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Audit:
    """before, after: counts in bins of equal width over [0, 1]; crossed: labels that are on the other side of one half
    now; most: the steps that moved most, farthest first."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mean_moved: float
    crossed: int
    most: tuple[Moved, ...]


def audit(steps: Steps, before: Floats, after: Floats, bins: int = 10, most: int = 20) -> Audit:
    """Compare labels (N,) of the same steps. Raises ValueError where the lengths differ."""
    if not len(steps) == len(before) == len(after):
        raise ValueError(f"{len(steps)} steps, {len(before)} labels before and {len(after)} after")
    distance = np.abs(after - before)
    order = np.argsort(-distance, kind="stable")[:most]
    return Audit(
        before=_histogram(before, bins),
        after=_histogram(after, bins),
        mean_moved=float(distance.mean()) if len(steps) else 0.0,
        crossed=int(((before > 0.5) != (after > 0.5)).sum()),
        most=tuple(
            Moved(
                index=int(index),
                program=int(steps.program[index]),
                problem=int(steps.problem[index]),
                before=float(before[index]),
                after=float(after[index]),
                passes=int(steps.passes[index]),
                rollouts=int(steps.rollouts[index]),
            )
            for index in order
            if distance[index] > 0
        ),
    )


def _histogram(labels: Floats, bins: int) -> tuple[int, ...]:
    return tuple(np.histogram(labels, bins, (0.0, 1.0))[0].tolist())
