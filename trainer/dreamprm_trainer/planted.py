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

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm_trainer.correct import Fitted, Settings, fit
from dreamprm_trainer.labels import WHOLE, Steps, blended, start, steps_of
from dreamprm_trainer.tables import Floats, Table

FILE = Path(__file__).parents[1] / "data" / "planted-0.5b.npz"
OURS = ("corrected", "corrected td", "corrected td, apart", "corrected self-taught")
METRICS = ("label_auc", "label_auc_failing", "label_brier", "prm_auc", "prm_auc_inner", "prm_auc_whole")
# Student's t, two-sided 95%, by degrees of freedom.
_T95 = (
    0, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Bools = NDArray[np.bool_]


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


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One seed's division. `truth` runs along `train`."""

    train: Steps
    truth: Floats
    meta: Steps
    validation: Steps


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a method makes of a draw: labels (N,) of the noisy steps and a head."""

    labels: Floats
    fitted: Fitted


Method = Callable[[Draw], Outcome]


def read(path: Path = FILE) -> Planted:
    """The file of states that `write` made."""
    with np.load(path) as file:
        states = file["states"].astype(np.float32) * file["scale"]
        truth = file["truth"].astype(np.float32)
        steps = Steps(
            states, file["program"].astype(np.int64), file["problem"].astype(np.int64), truth, np.ones_like(truth)
        )
        return Planted(steps, truth, file["test"])


def write(path: Path, planted: Planted) -> None:
    """States as int8, each dimension in units of a 1/40 of its standard deviation, clipped at 3.2 of them."""
    states = planted.steps.states - planted.steps.states.mean(0)
    scale = (states.std(0) / 40 + 1e-6).astype(np.float32)
    np.savez_compressed(
        path,
        states=np.clip(np.round(states / scale), -127, 127).astype(np.int8),
        scale=scale,
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
    )


def fixed(how: str, settings: Settings) -> Method:
    """Train on labels that do not move."""

    def method(draw: Draw) -> Outcome:
        labels = start(draw.train, how)
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, settings, labels))

    return method


def corrected(how: str, settings: Settings, then: Settings) -> Method:
    """Correct the labels from a start, then train a head on them with the settings that the controls have."""

    def method(draw: Draw) -> Outcome:
        labels = fit(draw.train, draw.meta, draw.validation, settings, start(draw.train, how)).labels
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, then, labels))

    return method


def self_taught(how: str, settings: Settings, strength: float) -> Method:
    """An obvious rival beyond the usual controls: a head's prediction as a prior worth `strength` rollouts."""

    def method(draw: Draw) -> Outcome:
        labels = start(draw.train, how)
        first = fit(draw.train, draw.meta, draw.validation, settings, labels)
        prior = first.head.rewards(draw.train.states).astype(np.float32)
        seen = draw.train.rollouts + 2
        labels = (labels * seen + strength * prior) / (seen + strength)
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, settings, labels))

    return method


def corrected_self_taught(settings: Settings, then: Settings, strength: float) -> Method:
    """Both: the self-taught labels are where the correction starts."""
    teach = self_taught("beta", then, strength)

    def method(draw: Draw) -> Outcome:
        labels = fit(draw.train, draw.meta, draw.validation, settings, teach(draw).labels).labels
        return Outcome(labels, fit(draw.train, draw.meta, draw.validation, then, labels))

    return method


def clean_only(settings: Settings) -> Method:
    """Train on the meta set alone; the labels are the head's predictions."""

    def method(draw: Draw) -> Outcome:
        fitted = fit(draw.meta, draw.meta, draw.validation, settings)
        return Outcome(fitted.head.rewards(draw.train.states).astype(np.float32), fitted)

    return method


def known(settings: Settings) -> Method:
    """Train on the truth of every step: what no method can have."""

    def method(draw: Draw) -> Outcome:
        return Outcome(draw.truth, fit(draw.train, draw.meta, draw.validation, settings, draw.truth))

    return method


def methods(epochs: int = 200) -> dict[str, Method]:
    """Every method; correction has to beat (a) to (e). Settings were chosen on seeds 200 to 203."""
    plain = Settings(mode="plain", l2=0.2, epochs=epochs)
    pooled = replace(plain, mode="pooled")
    moving = Settings(mode="correct", l2=0.2, lr=0.001, epochs=epochs, label_lr=0.1, anchor=3.0)
    return {
        "noisy (a)": fixed("mc", plain),
        "pooled (b)": fixed("mc", pooled),
        "shrunk (c)": fixed("beta", pooled),
        "blended (d)": fixed("blend 0.5", pooled),
        "td (d)": fixed("td 0.5", pooled),
        "reweighted (e)": fixed("beta", replace(plain, mode="reweight")),
        "clean only": clean_only(plain),
        "self-taught": self_taught("beta", pooled, 3.0),
        "self-taught td": self_taught("td 0.5", pooled, 3.0),
        "corrected": corrected("beta", moving, pooled),
        "corrected td": corrected("td 0.5", replace(moving, anchor=10.0), pooled),
        "corrected td, apart": corrected("td 0.5", replace(moving, anchor=10.0, apart=True), pooled),
        "corrected self-taught": corrected_self_taught(replace(moving, anchor=10.0), pooled, 3.0),
        "truth": known(pooled),
    }


def measure(planted: Planted, draw: Draw, outcome: Outcome) -> dict[str, float]:
    """Labels and rewards against the truth. `inner`: prefixes that are not whole programs; `failing`: of programs that
    fail, where the outcome of the program does not give the step's away."""
    inner, right = ~draw.train.last, draw.truth > 0.5
    failing = inner & (blended(draw.train, draw.truth, 1.0) < 0.5)
    rewards = outcome.fitted.head.rewards(planted.steps.states[planted.test])
    own = outcome.fitted.head.rewards(draw.train.states)
    held, last = planted.truth[planted.test] > 0.5, planted.steps.last[planted.test]
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


def auc(scores: NDArray[np.floating[Any]], right: Bools) -> float:
    """As `dreamprm_cli.aggregate.auc`, by ranks: it is asked thousands of times."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    good, bad = int(right.sum()), int((~right).sum())
    return float((rank[right].sum() - good * (good + 1) / 2) / (good * bad)) if good and bad else math.nan


def run(
    planted: Planted,
    noises: Sequence[Noise],
    seeds: Sequence[int],
    chosen: Mapping[str, Method],
    done: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda done: None,
) -> dict[str, Any]:
    """noise -> method -> seed -> metrics. `done`: what an earlier run had; `keep` is called after each draw."""
    found: dict[str, Any] = {} if done is None else done
    for noise in noises:
        for seed in seeds:
            draw = divide(planted, noise, seed)
            for name, method in chosen.items():
                rows = found.setdefault(noise.name, {}).setdefault(name, {})
                if str(seed) not in rows:
                    rows[str(seed)] = {key: round(v, 5) for key, v in measure(planted, draw, method(draw)).items()}
            keep(found)
            print(f"{noise.name}: seed {seed}", file=sys.stderr, flush=True)
    return found


def summary(found: Mapping[str, Any], ours: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """noise -> method -> metric: mean and 95% interval over seeds; for our methods also the paired differences to all
    others, with their intervals."""
    result: dict[str, Any] = {}
    for noise, by_method in found.items():
        result[noise] = {}
        for name, rows in by_method.items():
            entry: dict[str, Any] = {}
            for metric in metrics:
                values = [row[metric] for row in rows.values()]
                entry[metric] = interval(values)
                if name in ours:
                    entry[metric]["minus"] = {
                        other: interval([row[metric] - by_method[other][seed][metric] for seed, row in rows.items()])
                        for other in by_method
                        if other != name
                    }
            result[noise][name] = entry
    return result


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95% interval of Student's t."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return {"mean": known[0] if known else None, "ci95": [None, None]}
    mean, half = float(np.mean(known)), _T95[min(len(known) - 1, 30)] * float(np.std(known, ddof=1)) / len(known) ** 0.5
    return {"mean": round(mean, 4), "ci95": [round(mean - half, 4), round(mean + half, 4)]}


def table(result: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Means with half intervals, a row a method."""
    lines = []
    for noise, by_method in result.items():
        lines += ["", f"{noise:22}" + "".join(f"{metric:>22}" for metric in metrics)]
        for name, entry in by_method.items():
            cells = [entry[metric] for metric in metrics]
            row = "".join(f"{c['mean']:>14.3f} ±{(c['ci95'][1] - c['ci95'][0]) / 2:.3f} " for c in cells)
            lines.append(f"{name:22}{row}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.planted", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--file", type=Path, default=FILE, help="states of planted programs")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="two kinds of noise, 60 epochs")
    parser.add_argument("--out", type=Path, help="JSON of all results; a run that was stopped goes on from it")
    args = parser.parse_args(argv)
    began, planted = time.monotonic(), read(args.file)
    noises, epochs = (SMALL, 60) if args.small else (FULL, args.epochs)
    done = json.loads(args.out.read_text(encoding="utf-8"))["seeds"] if args.out and args.out.exists() else {}

    def keep(found: Mapping[str, Any]) -> None:
        if args.out:
            about = {
                "command": f"python -m dreamprm_trainer.planted --seeds {args.seeds} --epochs {epochs}",
                "machine": platform.processor() or platform.machine(),
                "steps": len(planted.steps),
                "programs": int(planted.steps.last.sum()),
                "problems": len(np.unique(planted.steps.problem)),
                "test_problems": len(np.unique(planted.steps.problem[planted.test])),
                "seconds": round(time.monotonic() - began, 1),
            }
            result = {**about, "summary": summary(found, OURS, METRICS), "seeds": found}
            args.out.write_text(json.dumps(result) + "\n", encoding="utf-8")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the products are small: a second thread costs more than it brings
    try:
        found = run(planted, noises, range(args.seeds), methods(epochs), done, keep)
    finally:
        torch.set_num_threads(threads)
    print(table(summary(found, OURS, METRICS), METRICS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
