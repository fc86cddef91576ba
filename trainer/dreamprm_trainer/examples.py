"""What a backbone is tuned on: problems, programs of them in steps, and what is known of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dreamprm_cli.types import Problem, Step
from dreamprm_trainer.data import Item
from dreamprm_trainer.labels import WHOLE
from dreamprm_trainer.tables import Floats


@dataclass(frozen=True, slots=True)
class Program:
    """One program. `labels` and `rollouts` run along `steps`.

    labels:   how likely the prefix that ends with the step is right, in [0, 1]; NaN: the step is read, never judged
    rollouts: what the label rests on; `labels.WHOLE` where it is known (the last step of a graded program)
    weight:   how much its steps count in the loss
    """

    steps: tuple[Step, ...]
    labels: tuple[float, ...]
    rollouts: tuple[int, ...]
    passed: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """A problem and the programs of it that share its tokens."""

    problem: Problem
    programs: tuple[Program, ...]


def examples_of(
    items: Sequence[Item], labels: Floats | None = None, weights: Mapping[str, float] = MappingProxyType({})
) -> list[Example]:
    """Graded items by problem. labels: (S,) of the scored steps of all items in order; weights: of sources, default 1.

    By default a step's label is its own truth where known, else the Beta mean of its rollouts, else the program's
    outcome. The last scored step of a program always has its outcome.
    """
    grouped: dict[tuple[str, str], tuple[Problem, list[Program]]] = {}
    given = iter(labels.tolist()) if labels is not None else None
    for item in items:
        scored = [number for number, step in enumerate(item.steps) if step.scored]
        values = [math.nan] * len(item.steps)
        counts = [0] * len(item.steps)
        for number in scored:
            values[number], counts[number] = _known(item, number, whole=number == scored[-1])
            if given is not None:
                label = next(given)
                values[number] = values[number] if number == scored[-1] else label
        program = Program(item.steps, tuple(values), tuple(counts), item.passed, weights.get(item.source, 1.0))
        grouped.setdefault((item.source, item.problem.id), (item.problem, []))[1].append(program)
    return [Example(problem, tuple(programs)) for problem, programs in grouped.values()]


def _known(item: Item, number: int, *, whole: bool) -> tuple[float, int]:
    """(label, rollouts) of a step."""
    truth = item.truth[number]
    if whole or truth is not None:
        return float(item.passed if truth is None else truth), WHOLE
    if item.rollouts and item.rollouts[number]:
        return (item.passes[number] + 1) / (item.rollouts[number] + 2), item.rollouts[number]
    return float(item.passed), 0
