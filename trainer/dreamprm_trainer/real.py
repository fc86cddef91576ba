"""Does label correction work on real rollouts? Labelled programs, real counts, problems never seen.

python -m dreamprm_trainer.real --out benchmarks/results/real.json          # from trainer/data/real-0.5b.npz
python -m dreamprm_trainer.real --small --seeds 5

The file is made by `real_data.py` from labels of `dreamprm train label`.

No truth of a step is known here, so heads are judged, on held-out problems, by what they are for: how they rank the
programs of a problem (a program's reward is the mean of its steps'), and how well the reward of an inner prefix
foretells its rollouts. For each seed the problems are divided anew; every method sees the same division, and equal
compute: the same epochs over the same states.

rollouts: of each inner prefix, so many of those made are kept (drawn without replacement), or all.
flips:    each kept rollout's outcome is turned over with this probability: a grader or a policy worse than ours.
meta:     share of the training problems that give clean outcomes only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamprm_cli.aggregate import best_of_n
from dreamprm_trainer.experiment import Draw, Experiment, Outcome, auc, packed, unpacked
from dreamprm_trainer.labels import WHOLE, Steps

FILE = Path(__file__).parents[1] / "data" / "real-0.5b.npz"
METRICS = ("within", "best_of_4", "prm_auc_whole", "inner_auc")
_TEST = 0.3  # of the problems


@dataclass(frozen=True, slots=True)
class Condition:
    """What a draw leaves of the labels; `rollouts` 0 is all of them."""

    rollouts: int = 0
    flips: float = 0.0
    meta: float = 0.25

    @property
    def name(self) -> str:
        kept = f"K={self.rollouts}" if self.rollouts else "all rollouts"
        flips = f", {self.flips:.0%} turned" if self.flips else ""
        return kept + flips + (f", meta {self.meta:.0%}" if self.meta != 0.25 else "")


FULL = (
    *(Condition(count) for count in (1, 2, 4, 0)),
    *(Condition(0, meta=share) for share in (0.1, 0.5)),
    *(Condition(1, flips) for flips in (0.2, 0.4)),
    *(Condition(4, flips) for flips in (0.2, 0.4)),
)
SMALL = (Condition(1), Condition(0))


def read(path: Path = FILE) -> Steps:
    """The file that `write` made."""
    with np.load(path) as file:
        return Steps(
            unpacked(file),
            file["program"].astype(np.int64),
            file["problem"].astype(np.int64),
            file["passes"].astype(np.float32),
            file["rollouts"].astype(np.float32),
        )


def write(path: Path, steps: Steps) -> None:
    np.savez_compressed(
        path,
        **packed(steps.states),  # type: ignore[arg-type]
        program=steps.program.astype(np.int16),
        problem=steps.problem.astype(np.int16),
        passes=steps.passes.astype(np.int32),
        rollouts=steps.rollouts.astype(np.int32),
    )


def divide(steps: Steps, condition: Condition, seed: int, validation: float = 0.15) -> Draw:
    """Problems at random into test (`_TEST` of all), meta, validation and those with step labels."""
    rng = np.random.default_rng(seed)
    problems = rng.permutation(np.unique(steps.problem))
    test, rest = np.split(problems, [round(_TEST * len(problems))])
    clean, judge = (round(share * len(rest)) for share in (condition.meta, validation))
    parts = [steps.only(np.isin(steps.problem, some)) for some in np.split(rest, [clean, clean + judge])]
    meta, valid, train = parts
    return Draw(
        train=thinned(train, condition, rng),
        meta=meta.only(meta.last),
        validation=valid.only(valid.last),
        test=steps.only(np.isin(steps.problem, test)),
    )


def thinned(steps: Steps, condition: Condition, rng: np.random.Generator) -> Steps:
    """Fewer rollouts of each inner prefix, and some turned over."""
    passes, rollouts = steps.passes.astype(np.int64), steps.rollouts.astype(np.int64)
    inner = rollouts < WHOLE
    if condition.rollouts:
        kept = np.minimum(rollouts, condition.rollouts)
        drawn = rng.hypergeometric(
            np.where(inner, passes, 0), np.where(inner, rollouts - passes, 1), np.where(inner, kept, 0)
        )
        passes, rollouts = np.where(inner, drawn, passes), np.where(inner, kept, rollouts)
    if condition.flips:
        wrong = np.where(inner, rollouts - passes, 0)
        right = np.where(inner, passes, 0)
        turned = right - rng.binomial(right, condition.flips) + rng.binomial(wrong, condition.flips)
        passes = np.where(inner, turned, passes)
    return steps.counted(passes.astype(np.float32), rollouts.astype(np.float32))


def measure(draw: Draw, outcome: Outcome) -> dict[str, float]:
    """On the test problems.

    within: mean AUC within problems that have passing and failing programs; best_of_4: solved, over problems with four
    programs or more; prm_auc_whole: AUC over all programs; inner_auc: chance that a rollout that passes came from a
    prefix with a higher reward than one that fails.
    """
    test = draw.test
    rewards = outcome.fitted.head.rewards(test.states)
    ends = np.flatnonzero(test.last)
    starts = np.append(0, ends[:-1] + 1)
    programs = np.add.reduceat(rewards, starts) / (ends - starts + 1)
    passed, problem = test.passes[ends] > 0, test.problem[ends]
    within, best = [], []
    for number in np.unique(problem):
        own = problem == number
        if 0 < passed[own].sum() < own.sum():
            within.append(auc(programs[own], passed[own]))
        if own.sum() >= 4:
            best.append(best_of_n(programs[own].tolist(), passed[own].tolist(), 4))
    inner = ~test.last
    good, bad = test.passes[inner].astype(int), (test.rollouts - test.passes)[inner].astype(int)
    scores = np.concatenate([np.repeat(rewards[inner], good), np.repeat(rewards[inner], bad)])
    return {
        "within": _mean(within),
        "best_of_4": _mean(best),
        "prm_auc_whole": auc(programs, passed),
        "inner_auc": auc(scores, np.arange(len(scores)) < good.sum()),
        "collapsed": float(outcome.fitted.collapsed),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


EXPERIMENT = Experiment(
    module="dreamprm_trainer.real",
    file=FILE,
    read=read,
    steps=lambda steps: steps,
    full=FULL,
    small=SMALL,
    divide=divide,
    measure=measure,
    metrics=METRICS,
)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
