"""Ways of making labels, and a head of them, side by side over seeds: the controls (a) to (e), and correction.

An experiment (`planted.py`, `real.py`) divides its problems anew for each seed into a `Draw`; every method sees the
same draw, so differences between methods are paired.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm_trainer.correct import Fitted, Settings, fit
from dreamprm_trainer.data import digest
from dreamprm_trainer.labels import Steps, start
from dreamprm_trainer.tables import Bools, Floats

Data = TypeVar("Data")
OURS = ("corrected", "corrected td", "corrected td, apart", "corrected self-taught")
# Student's t, two-sided 95%, by degrees of freedom.
_T95 = (
    0, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One seed's division by problem; nothing is fitted on `test`. truth: (N,) along `train`, where it is known."""

    train: Steps
    meta: Steps
    validation: Steps
    test: Steps
    truth: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a method makes of a draw: labels (N,) of the noisy steps and a head."""

    labels: Floats
    fitted: Fitted


Method = Callable[[Draw], Outcome]


class Condition(Protocol):
    """One regime: how noisy, how many rollouts, how many clean problems."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Experiment(Generic[Data]):
    """`python -m MODULE`: data from `file`, divided under each condition and seed, every method measured.

    divide: (data, condition, seed) -> Draw; truth: the truth of `train` is known, so a head that has it is fitted too.
    """

    module: str
    file: Path
    read: Callable[[Path], Data]
    steps: Callable[[Data], Steps]
    full: Sequence[Condition]
    small: Sequence[Condition]
    divide: Callable[[Data, Any, int], Draw]
    measure: Callable[[Draw, Outcome], Mapping[str, float]]
    metrics: Sequence[str]
    truth: bool = False

    def main(self, argv: Sequence[str] | None = None) -> int:
        """The command. With --out a run that was stopped goes on from what is there, if it was on the same data."""
        parser = argparse.ArgumentParser(prog=self.module)
        parser.add_argument("--file", type=Path, default=self.file, help="states and labels")
        parser.add_argument("--seeds", type=int, default=8)
        parser.add_argument("--epochs", type=int, default=200)
        parser.add_argument("--small", action="store_true", help="few conditions, 60 epochs")
        parser.add_argument("--out", type=Path, help="JSON of all results")
        args = parser.parse_args(argv)
        began, data = time.monotonic(), self.read(args.file)
        conditions, epochs = (self.small, 60) if args.small else (self.full, args.epochs)
        same = {"data_sha256": digest(args.file), "epochs": epochs}
        past = json.loads(args.out.read_text(encoding="utf-8")) if args.out and args.out.exists() else {}
        if past and {key: past.get(key) for key in same} != same:
            print(f"{args.out} is of other data or epochs: begun anew", file=sys.stderr)
            past = {}
        spent = past.get("seconds") or 0.0

        divisions = {one.name: partial(self.divide, data, one) for one in conditions}
        tested = len(np.unique(next(iter(divisions.values()))(0).test.problem))

        def keep(found: Mapping[str, Any]) -> None:
            if args.out:
                steps = self.steps(data)
                about = {
                    "command": f"python -m {self.module} --seeds {args.seeds} --epochs {epochs}",
                    "machine": platform.processor() or platform.machine(),
                    **same,
                    "steps": len(steps),
                    "programs": int(steps.last.sum()),
                    "problems": len(np.unique(steps.problem)),
                    "test_problems": tested,
                    "seconds": round(spent + time.monotonic() - began, 1),
                }
                result = {**about, "summary": summary(found, OURS, self.metrics), "seeds": found}
                scratch = args.out.with_suffix(".tmp")
                scratch.write_text(json.dumps(result) + "\n", encoding="utf-8")
                scratch.replace(args.out)

        with one_thread():
            found = run(
                divisions, range(args.seeds), methods(epochs, self.truth), self.measure, past.get("seeds"), keep
            )
        print(table(summary(found, OURS, self.metrics), self.metrics))
        return 0


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
        assert draw.truth is not None
        return Outcome(draw.truth, fit(draw.train, draw.meta, draw.validation, settings, draw.truth))

    return method


def methods(epochs: int = 200, truth: bool = False) -> dict[str, Method]:
    """Every method; correction has to beat (a) to (e). Settings were chosen on seeds 200 to 203 of planted noise.

    truth: with the head that knows it, where the experiment does.
    """
    plain = Settings(mode="plain", l2=0.2, epochs=epochs)
    pooled = replace(plain, mode="pooled")
    moving = Settings(mode="correct", l2=0.2, lr=0.001, epochs=epochs, label_lr=0.1, anchor=3.0)
    chosen = {
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
    }
    return chosen | {"truth": known(pooled)} if truth else chosen


def auc(scores: NDArray[np.floating[Any]], right: Bools) -> float:
    """As `dreamprm_cli.aggregate.auc`, by ranks: it is asked thousands of times."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    good, bad = int(right.sum()), int((~right).sum())
    return float((rank[right].sum() - good * (good + 1) / 2) / (good * bad)) if good and bad else math.nan


def run(
    conditions: Mapping[str, Callable[[int], Draw]],
    seeds: Sequence[int],
    chosen: Mapping[str, Method],
    measure: Callable[[Draw, Outcome], Mapping[str, float]],
    done: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda done: None,
) -> dict[str, Any]:
    """condition -> method -> seed -> metrics.

    conditions: name -> the division of a seed. done: what an earlier run had; keep is called after each draw.
    """
    found: dict[str, Any] = {} if done is None else done
    for condition, divide in conditions.items():
        for seed in seeds:
            draw = divide(seed)
            for name, method in chosen.items():
                rows = found.setdefault(condition, {}).setdefault(name, {})
                if str(seed) not in rows:
                    rows[str(seed)] = {key: round(value, 5) for key, value in measure(draw, method(draw)).items()}
            keep(found)
            print(f"{condition}: seed {seed}", file=sys.stderr, flush=True)
    return found


def summary(found: Mapping[str, Any], ours: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """condition -> method -> metric: mean and 95% interval over seeds; for our methods also the paired differences to
    all others, with their intervals."""
    result: dict[str, Any] = {}
    for condition, by_method in found.items():
        result[condition] = {}
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
            result[condition][name] = entry
    return result


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95% interval of Student's t."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return {"mean": known[0] if known else None, "ci95": [None, None]}
    mean, half = float(np.mean(known)), _T95[min(len(known) - 1, 30)] * float(np.std(known, ddof=1)) / len(known) ** 0.5
    return {"mean": round(mean, 4), "ci95": [round(mean - half, 4), round(mean + half, 4)]}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """The products are small: a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def packed(states: Floats) -> dict[str, NDArray[Any]]:
    """States (N, F) as int8 for a file: each dimension in units of a 1/40 of its standard deviation, clipped at 3.2 of
    them. Means are lost."""
    centred = states - states.mean(0)
    scale = (centred.std(0) / 40 + 1e-6).astype(np.float32)
    return {"states": np.clip(np.round(centred / scale), -127, 127).astype(np.int8), "scale": scale}


def unpacked(file: Mapping[str, NDArray[Any]]) -> Floats:
    """The states (N, F) of `packed`."""
    states: Floats = file["states"].astype(np.float32) * file["scale"]
    return states


def table(result: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Means with half intervals, a row a method."""
    lines = []
    for condition, by_method in result.items():
        lines += ["", f"{condition:22}" + "".join(f"{metric:>22}" for metric in metrics)]
        for name, entry in by_method.items():
            cells = [entry[metric] for metric in metrics]
            lines.append(f"{name:22}" + "".join(f"{c['mean']:>14.3f} {_half(c['ci95']):7}" for c in cells))
    return "\n".join(lines)


def _half(interval: Sequence[float | None]) -> str:
    """Half an interval; one seed has none."""
    low, high = interval
    return "" if low is None or high is None else f"±{(high - low) / 2:.3f}"
