"""Does label correction work? Known step truth, noise put on it, and every control beside the correction.

python -m dreamprm_trainer.planted --out benchmarks/results/planted.json          # full size, some minutes
python -m dreamprm_trainer.planted --small --seeds 5                              # a minute

The programs are those of `plant.py`: correct ones and mutants whose first wrong function is known; their states are
frozen. For each seed the training problems are divided into noisy ones, clean ones (`meta`: outcomes of whole programs,
nothing about their steps) and validation; the noisy ones' steps get labels by one of two kinds of noise:

flip:     the truth of every step, turned over with probability `level`; one rollout.
rollouts: `rollouts` draws. A right prefix passes with a probability of its problem's own, Beta-distributed with mean
          1 - level (a policy finds some problems hard); a wrong one with level / 4 (repairs, weak tests). The outcome
          of a whole program is known.

Judged by: how well the labels order right and wrong prefixes (AUC) and their distance to the truth (Brier), on prefixes
that are not whole programs; and the AUC of the head so fitted on problems that it has never seen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamprm_trainer.experiment import Draw, Experiment, Outcome, auc, packed, unpacked
from dreamprm_trainer.labels import WHOLE, Steps, blended, steps_of
from dreamprm_trainer.tables import Bools, Floats, Table

FILE = Path(__file__).parents[1] / "data" / "planted-0.5b.npz"
METRICS = ("label_auc", "label_auc_failing", "label_brier", "prm_auc", "prm_auc_inner", "prm_auc_whole")


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
    meta: float = 0.25  # share of the training problems that are clean

    @property
    def name(self) -> str:
        count = f", K={self.rollouts}" if self.kind == "rollouts" else ""
        return f"{self.kind} {self.level:.0%}{count}" + (f", meta {self.meta:.0%}" if self.meta != 0.25 else "")


FULL = (
    *(Noise("flip", level) for level in (0.1, 0.2, 0.3, 0.4)),
    *(Noise("flip", 0.3, meta=share) for share in (0.1, 0.5)),
    *(Noise("rollouts", level, 4) for level in (0.1, 0.2, 0.3, 0.4)),
    *(Noise("rollouts", 0.4, count) for count in (1, 16)),
)
SMALL = (Noise("flip", 0.4), Noise("rollouts", 0.4, 4))


def read(path: Path = FILE) -> Planted:
    """The file of states that `write` made."""
    with np.load(path) as file:
        states = unpacked(file)
        truth = file["truth"].astype(np.float32)
        steps = Steps(
            states, file["program"].astype(np.int64), file["problem"].astype(np.int64), truth, np.ones_like(truth)
        )
        return Planted(steps, truth, file["test"])


def write(path: Path, planted: Planted) -> None:
    np.savez_compressed(
        path,
        **packed(planted.steps.states),  # type: ignore[arg-type]
        truth=planted.truth.astype(np.int8),
        program=planted.steps.program.astype(np.int16),
        problem=planted.steps.problem.astype(np.int16),
        test=planted.test,
    )


def of_table(table: Table, layer: int, cached: Sequence[int]) -> Planted:
    """Planted programs (`plant.items`) and their cached states of one layer; all but training problems are held out."""
    held = np.array([item.split != "train" for item in table.items])
    steps = steps_of(table, [layer], cached, table.target, np.ones_like(table.target))
    return Planted(steps, table.target, held[table.program])


def noisy(steps: Steps, truth: Floats, noise: Noise, rng: np.random.Generator) -> Steps:
    """The steps with counts drawn by `noise`."""
    right = truth > 0.5
    if noise.kind == "flip":
        turned = rng.random(len(truth)) < noise.level
        return steps.counted((right ^ turned).astype(np.float32), np.ones(len(truth), np.float32))
    ability = rng.beta(2 * (1 - noise.level), 2 * noise.level, int(steps.problem.max()) + 1)
    chance = np.where(right, ability[steps.problem], noise.level / 4)
    passes = rng.binomial(noise.rollouts, chance)
    count = np.where(steps.last, WHOLE, noise.rollouts).astype(np.float32)
    return steps.counted(np.where(steps.last, WHOLE * truth, passes).astype(np.float32), count)


def divide(planted: Planted, noise: Noise, seed: int, validation: float = 0.15) -> Draw:
    """Training problems at random into noisy, meta and validation."""
    rng = np.random.default_rng(seed)
    problems = rng.permutation(np.unique(planted.steps.problem[~planted.test]))
    clean, judge = (round(share * len(problems)) for share in (noise.meta, validation))
    parts = []
    for some in np.split(problems, [clean, clean + judge]):
        parts.append(np.isin(planted.steps.problem, some))
    known = planted.steps.counted(WHOLE * planted.truth, np.full(len(planted.truth), WHOLE, np.float32))
    last = planted.steps.last
    train = planted.steps.only(parts[2])
    return Draw(
        train=noisy(train, planted.truth[parts[2]], noise, rng),
        truth=planted.truth[parts[2]],
        meta=known.only(parts[0] & last),
        validation=known.only(parts[1] & last),
        test=planted.steps.only(planted.test),
    )


def measure(draw: Draw, outcome: Outcome) -> dict[str, float]:
    """Labels and rewards against the truth. `inner`: prefixes that are not whole programs; `failing`: of programs that
    fail, where the outcome of the program does not give the step's away."""
    assert draw.truth is not None
    inner, right = ~draw.train.last, draw.truth > 0.5
    failing = inner & (blended(draw.train, draw.truth, 1.0) < 0.5)
    rewards = outcome.fitted.head.rewards(draw.test.states)
    own = outcome.fitted.head.rewards(draw.train.states)
    held, last = draw.test.passes > 0.5, draw.test.last
    return {
        "label_auc": auc(outcome.labels[inner], right[inner]),
        "label_auc_failing": auc(outcome.labels[failing], right[failing]),
        "label_brier": float(((outcome.labels - draw.truth)[inner] ** 2).mean()),
        "reward_auc_train": auc(own[inner], right[inner]),
        "prm_auc": auc(rewards, held),
        "prm_auc_inner": auc(rewards[~last], held[~last]),
        "prm_auc_whole": auc(rewards[last], held[last]),
        "collapsed": float(outcome.fitted.collapsed),
    }


EXPERIMENT = Experiment(
    module="dreamprm_trainer.planted",
    file=FILE,
    read=read,
    steps=lambda planted: planted.steps,
    full=FULL,
    small=SMALL,
    divide=divide,
    measure=measure,
    metrics=METRICS,
    truth=True,
)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
