"""Step labels: what rollouts say of a prefix, and the ways of making more of it than passes / rollouts.

Labels are floats from beginning to end; the counts they came from stay beside them. A prefix is the steps 1..k of a
program, its label how often the programs that go on from it pass. The label of a whole program is its own outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.data import Item
from dreamprm_trainer.tables import Floats, Ints, Table

Mode = Literal["plain", "pooled", "reweight", "correct"]  # how a model is fitted to them, see `correct.py`
MODES: tuple[Mode, ...] = ("plain", "pooled", "reweight", "correct")
WHOLE = 1_000_000  # rollouts that a whole program's outcome counts for: it is known


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """N scored steps as arrays; the steps of a program stand together, in order.

    states: (N, F); program, problem: (N,) numbers; passes, rollouts: (N,) of the prefix that ends with the step.
    A step whose outcome is known (a whole program) has `WHOLE` rollouts.
    """

    states: Floats
    program: Ints
    problem: Ints
    passes: Floats
    rollouts: Floats

    def __len__(self) -> int:
        return len(self.program)

    @property
    def last(self) -> NDArray[np.bool_]:
        """(N,) whether a step is its program's last."""
        return np.append(self.program[1:] != self.program[:-1], True) if len(self) else np.zeros(0, bool)

    def only(self, keep: NDArray[np.bool_] | Ints) -> Steps:
        return Steps(self.states[keep], self.program[keep], self.problem[keep], self.passes[keep], self.rollouts[keep])

    def counted(self, passes: Floats, rollouts: Floats) -> Steps:
        """The same steps with other counts."""
        return replace(self, passes=passes.astype(np.float32), rollouts=rollouts.astype(np.float32))


def steps_of(table: Table, layers: Sequence[int], cached: Sequence[int], passes: Floats, rollouts: Floats) -> Steps:
    """Steps of a feature table with the counts of its rows."""
    return Steps(
        states=table.features(layers, cached),
        program=table.program,
        problem=table.problem[table.program],
        passes=passes.astype(np.float32),
        rollouts=rollouts.astype(np.float32),
    )


def steps_of_items(items: Sequence[Item]) -> Steps:
    """The scored steps of all items in order with what is known of them, without states: (N, 0).

    A whole program is known, and so is a step with a truth of its own. A prefix has its rollouts; where none were made,
    the one that there always is: the program itself, which went on from it.
    """
    program: list[int] = []
    passes: list[float] = []
    rollouts: list[float] = []
    problems: dict[tuple[str, str], int] = {}
    of_program = [problems.setdefault((item.source, item.problem.id), len(problems)) for item in items]
    for number, item in enumerate(items):
        scored = [index for index, step in enumerate(item.steps) if step.scored]
        for index in scored:
            truth = item.truth[index]
            made = item.rollouts[index] if item.rollouts else 0
            known = truth is not None or index == scored[-1]
            right = float(item.passed if truth is None else truth)
            program.append(number)
            passes.append(WHOLE * right if known else item.passes[index] if made else right)
            rollouts.append(WHOLE if known else made or 1)
    return Steps(
        states=np.zeros((len(program), 0), np.float32),
        program=np.array(program, np.int64),
        problem=np.array(of_program, np.int64)[program] if program else np.zeros(0, np.int64),
        passes=np.array(passes, np.float32),
        rollouts=np.array(rollouts, np.float32),
    )


def counted_steps(table: Table, layers: Sequence[int], cached: Sequence[int]) -> Steps:
    """The same with the states of a feature table."""
    return replace(steps_of_items(table.items), states=table.features(layers, cached))


def join(first: Steps, second: Steps) -> Steps:
    """The steps of both; programs and problems of the second get numbers of their own."""
    return Steps(
        states=np.concatenate([first.states, second.states]),
        program=np.concatenate([first.program, second.program + first.program.max(initial=-1) + 1]),
        problem=np.concatenate([first.problem, second.problem + first.problem.max(initial=-1) + 1]),
        passes=np.concatenate([first.passes, second.passes]),
        rollouts=np.concatenate([first.rollouts, second.rollouts]),
    )


def monte_carlo(steps: Steps) -> Floats:
    """passes / rollouts (N,)."""
    return (steps.passes / np.maximum(steps.rollouts, 1)).astype(np.float32)


def shrunk(steps: Steps, right: float = 1.0, wrong: float = 1.0) -> Floats:
    """Mean of the Beta posterior (N,): (passes + right) / (rollouts + right + wrong). Strictly between 0 and 1."""
    return ((steps.passes + right) / (steps.rollouts + right + wrong)).astype(np.float32)


def blended(steps: Steps, labels: Floats, share: float = 0.5) -> Floats:
    """Each label mixed with `share` of the label of its own program's last step."""
    return (1 - share) * labels + share * labels[_end(steps)]


def td(steps: Steps, labels: Floats, trace: float = 0.5) -> Floats:
    """TD(lambda) targets (N,): G_k = (1 - trace) * label_k + trace * G_(k+1), and G of the last step is its label.

    The value of a prefix is a martingale under the rollout policy, so all labels after it are estimates of it too.
    """
    targets = labels.astype(np.float32).copy()
    for index in range(len(steps) - 2, -1, -1):
        if steps.program[index] == steps.program[index + 1]:
            targets[index] = (1 - trace) * labels[index] + trace * targets[index + 1]
    return targets


def bounded(labels: Floats, margin: float = 0.02) -> Floats:
    """Away from 0 and 1, so that their logits are finite and can still move."""
    return np.clip(labels, margin, 1 - margin).astype(np.float32)


STARTS = ("mc", "beta", "blend SHARE", "td TRACE")


def start(steps: Steps, how: str) -> Floats:
    """Labels before any fitting (N,): `mc`, `beta`, `blend SHARE` or `td TRACE` (both of the Beta posterior means).

    Raises ConfigError for another word, or a share that is not between 0 and 1.
    """
    kind, _, text = how.partition(" ")
    try:
        value = float(text) if kind in ("blend", "td") else 0.0 if not text else math.nan
    except ValueError:
        value = math.nan
    if kind not in ("mc", "beta", "blend", "td") or not 0 <= value <= 1:
        raise ConfigError(f"labels cannot start from {how!r}", f"one of {', '.join(STARTS)}")
    if kind == "mc":
        return monte_carlo(steps)
    base = shrunk(steps)
    if kind == "blend":
        return blended(steps, base, value)
    return td(steps, base, value) if kind == "td" else base


def _end(steps: Steps) -> Ints:
    """(N,) index of the last step of each step's program."""
    ends = np.flatnonzero(steps.last)
    return ends[np.searchsorted(ends, np.arange(len(steps)))]
